"""However files change, the policies in force become theirs; and what cannot be loaded leaves the last good ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker import logs, reload
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from broker.policy.loader import Listing, Loader
from broker.policy.model import Policies
from broker.reload import PoliciesInForce, look
from tests.harness import Clock
from tests.in_force import kept_current, logged, swap, until
from tests.policy.example import ACME, FILES, GLOBEX, INDEX, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_looks")]

ALICE_LEFT = ACME.replace("role: owner", "role: member")
BROKEN = ACME.replace("role: owner", "role: boss")


def in_force(folder: Path, clock: Callable[[], float] | None = None, hours: float = 24) -> PoliciesInForce:
    """The policies of a folder."""
    logs.configure("info")
    return PoliciesInForce(
        folder, allow_loopback_issuers=False, stale_after_seconds=hours * 3600, clock=clock or Clock()
    )


# --- Ways to change files --------------------------------------------------------------------------------------------


def edited_in_place(folder: Path) -> None:
    (folder / "organizations/acme.yaml").write_text(ALICE_LEFT)


def edited_to_the_same_size_and_time(folder: Path) -> None:
    file = folder / "organizations/acme.yaml"
    before = file.stat()
    file.write_text(ACME.replace('github: "1001"', 'github: "1009"'))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def renamed_into_place(folder: Path) -> None:
    (folder / ".acme.yaml.tmp").write_text(ALICE_LEFT)
    (folder / ".acme.yaml.tmp").rename(folder / "organizations/acme.yaml")


def added(folder: Path) -> None:
    write(folder, {"organizations/initech.yaml": "organization: initech\n"})


def removed(folder: Path) -> None:
    (folder / "organizations/globex.yaml").unlink()


def index_edited(folder: Path) -> None:
    (folder / "index.yaml").write_text(INDEX.replace("longest: 1h", "longest: 2h"))


@pytest.mark.parametrize(
    "change",
    [edited_in_place, edited_to_the_same_size_and_time, renamed_into_place, added, removed, index_edited],
    ids=lambda change: change.__name__,
)
async def test_a_changed_folder_is_taken_up(
    tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    policies = in_force(write(tmp_path))
    before = policies.current
    await policies.refresh()
    assert policies.current is before
    assert logged(capsys) == []
    change(tmp_path)
    await policies.refresh()
    assert policies.current == load(tmp_path) != before
    [line] = logged(capsys)
    assert (line["event"], line["level"]) == ("policies reloaded", "info")
    assert line["generation"] == policies.current.generation
    assert line["organizations"] == len(policies.current.organizations)


@dataclass(frozen=True, slots=True)
class Mount:
    """One folder as Kubernetes mounts a ConfigMap, a Secret or a projected volume (its AtomicWriter)."""

    folder: Path

    def put(self, files: dict[str, str], at: int) -> None:
        """A new dated folder, and `..data` led to it; a link for each name at the top, and the old folder is gone."""
        write(self.folder / f"..2026_11_2{at}", files)
        old = self.folder / f"..2026_11_2{at - 1}"
        swap(self.folder / "..data", f"..2026_11_2{at}")
        for name in {file.partition("/")[0] for file in files}:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if old.is_dir():
            for path in sorted(old.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            old.rmdir()


async def test_two_mounted_configmaps_are_followed_as_their_links_are_swapped(tmp_path: Path) -> None:
    index, organizations = Mount(tmp_path / "policies"), Mount(tmp_path / "policies" / "organizations")
    index.put({"index.yaml": INDEX}, at=1)
    organizations.put({"acme.yaml": ACME, "globex.yaml": GLOBEX}, at=1)
    policies = in_force(index.folder)
    before = policies.current
    organizations.put({"acme.yaml": ALICE_LEFT, "globex.yaml": GLOBEX}, at=2)
    await policies.refresh()
    assert policies.current == load(index.folder)
    assert policies.current.organizations["acme"].members["alice"].role == "member"
    assert policies.current.organizations["globex"] is before.organizations["globex"]
    index.put({"index.yaml": INDEX.replace("longest: 1h", "longest: 2h")}, at=2)
    await policies.refresh()
    assert policies.current.longest_lifetime_seconds == 7200
    (organizations.folder / "globex.yaml").unlink()  # kubelet does so after it took a file out of the swapped folder
    await policies.refresh()
    assert set(policies.current.organizations) == {"acme"}


async def test_one_projected_volume_with_paths_is_followed_too(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "policies")
    mount.put(dict(FILES), at=1)
    assert (mount.folder / "organizations").is_symlink()
    policies = in_force(mount.folder)
    mount.put({**FILES, "organizations/acme.yaml": ALICE_LEFT}, at=2)
    await policies.refresh()
    assert policies.current == load(mount.folder)
    assert policies.current.organizations["acme"].members["alice"].role == "member"


async def test_a_checkout_is_followed_as_git_sync_swaps_it(tmp_path: Path) -> None:
    """The folder itself is a link, or something above it is."""
    write(tmp_path / "4f2a" / "policies")
    swap(tmp_path / "current", "4f2a")
    policies = in_force(tmp_path / "current" / "policies")
    before = policies.current
    write(tmp_path / "91bc" / "policies", {**FILES, "organizations/acme.yaml": ALICE_LEFT})
    swap(tmp_path / "current", "91bc")
    await policies.refresh()
    assert policies.current == load(tmp_path / "91bc" / "policies")
    assert policies.current.organizations["globex"] is before.organizations["globex"]


async def test_a_folder_that_is_moved_out_is_not_followed(tmp_path: Path) -> None:
    """The files are the very same; but no policy lies outside of the folder."""
    policies = in_force(write(tmp_path / "policies"))
    (tmp_path / "policies" / "organizations").rename(tmp_path / "elsewhere")
    (tmp_path / "policies" / "organizations").symlink_to("../elsewhere")
    await policies.refresh()
    assert policies.failing is not None
    assert {error.what for error in policies.failing.error.errors} == {"leads out of the folder of policies"}


# --- What is young, vanishes, or does not hold still -----------------------------------------------------------------


def test_a_file_that_was_changed_just_now_or_cannot_be_seen_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    (tmp_path / "organizations/initech.yaml").symlink_to("nowhere.yaml")
    assert look(tmp_path).unsure == {*FILES, "organizations/initech.yaml"}
    monkeypatch.setattr(reload, "YOUNG_SECONDS", -1.0)
    assert set(look(tmp_path).sure(1).stamps) >= set(FILES)


async def test_a_young_file_is_read_again_until_it_is_old_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times need not change with it. Here it is the loader that counts how often it was asked."""
    loads = watch_loads(monkeypatch)
    monkeypatch.setattr(reload, "YOUNG_SECONDS", 3600.0)
    policies = in_force(write(tmp_path))
    for times in (2, 3):
        await policies.refresh()
        assert len(loads) == times
    monkeypatch.setattr(reload, "YOUNG_SECONDS", -1.0)
    for _ in range(3):
        await policies.refresh()
        assert len(loads) == 4


def watch_loads(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[int], None] = lambda _: None
) -> list[Listing | None]:
    """What the loader was asked for; and something else happens each time before it begins to read."""
    loads: list[Listing | None] = []

    class Watched(Loader):
        def load(self, listing: Listing | None = None) -> Policies:
            loads.append(listing)
            meanwhile(len(loads))
            return super().load(listing)

    monkeypatch.setattr(reload, "Loader", Watched)
    return loads


async def test_what_is_swapped_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", {"index.yaml": INDEX, "organizations/acme.yaml": BROKEN})
    write(tmp_path / "c", {"index.yaml": INDEX, "organizations/acme.yaml": ALICE_LEFT})
    swap(tmp_path / "policies", "a")
    loads = watch_loads(monkeypatch, lambda times: swap(tmp_path / "policies", {1: "a", 2: "b"}.get(times, "c")))
    policies = in_force(tmp_path / "policies")
    swap(tmp_path / "policies", "c")
    await policies.refresh()
    assert policies.failing is None
    assert policies.current == load(tmp_path / "c")
    assert len(loads) == 4


# --- What cannot be loaded -------------------------------------------------------------------------------------------


def test_nothing_begins_with_broken_policies(tmp_path: Path) -> None:
    with pytest.raises(PolicyErrors):
        in_force(write(tmp_path, {**FILES, "organizations/acme.yaml": BROKEN}))


async def test_a_broken_change_leaves_the_last_good_in_force_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    policies = in_force(write(tmp_path), clock)
    good = policies.current
    write(tmp_path, {"organizations/acme.yaml": BROKEN})
    for _ in range(3):
        await policies.refresh()
        assert policies.current.organizations == good.organizations
        assert policies.current.generation == good.generation
    [line] = logged(capsys)
    assert (line["level"], line["event"]) == ("error", "policies not reloaded: the last good ones decide")
    assert (line["mistakes"], line["generation"]) == (1, good.generation)
    assert "organizations/acme.yaml:4: members.alice.role: must be" in line["explained"]
    assert line["denied_in_seconds"] == pytest.approx(24 * 3600, abs=5)

    clock.ahead_seconds = 300
    write(tmp_path, {"organizations/globex.yaml": "organization: [\n"})
    await policies.refresh()
    [line] = logged(capsys)
    assert (line["mistakes"], line["failing_seconds"]) == (2, pytest.approx(300, abs=5))
    clock.ahead_seconds = 1000
    await policies.refresh()
    assert len(logged(capsys)) == 1, "reminded"

    write(tmp_path)
    await policies.refresh()
    assert policies.current == good
    assert policies.failing is None
    assert [line["event"] for line in logged(capsys)] == ["policies reloaded"]


async def test_after_the_stated_time_they_decide_nothing_and_mended_they_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    policies = in_force(write(tmp_path), clock, hours=2)
    began = clock()
    (tmp_path / "index.yaml").rename(tmp_path / "index.bak")
    await policies.refresh()
    denied_from = policies.current.denied_from
    assert denied_from == pytest.approx(began + 7200, abs=5)
    clock.ahead_seconds = 7000
    write(tmp_path, {"organizations/acme.yaml": BROKEN})
    await policies.refresh()
    assert policies.current.denied_from == denied_from, "other mistakes buy no more time"
    clock.ahead_seconds = 7210
    await policies.refresh()
    line = logged(capsys)[-1]
    assert (line["event"], line["level"]) == ("policies stale: everything is denied", "error")
    write(tmp_path)
    await policies.refresh()
    assert policies.current.denied_from is None


async def test_a_bug_while_loading_is_a_failure_like_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = in_force(write(tmp_path))

    def fail(_: int) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        watch_loads(patched, fail)
        policies._loader = policies._new_loader()
        write(tmp_path, {"organizations/acme.yaml": ALICE_LEFT})
        await policies.refresh()
        assert policies.current.denied_from is not None
        bug, told = logged(capsys)
        assert "ZeroDivisionError" in bug["exception"]
        assert told["event"] == "policies not reloaded: the last good ones decide"
    policies._loader = policies._new_loader()
    await policies.refresh()
    assert policies.current == load(tmp_path)


async def test_a_failure_that_passes_denies_nothing_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no thread can be started for a moment, and no file has changed since."""
    policies = in_force(write(tmp_path))
    policies._seen = policies._look().seen  # as with files that are old enough to be sure of

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "to_thread", fail)
        await policies.refresh()
        assert policies.current.denied_from is not None
    await policies.refresh()
    assert policies.failing is None
    assert policies.current.denied_from is None


# --- While it runs ---------------------------------------------------------------------------------------------------


async def test_who_asks_is_answered_in_the_log_and_every_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("broker.in_force.LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(reload, "YOUNG_SECONDS", -1.0)
    loads = watch_loads(monkeypatch)
    policies = in_force(write(tmp_path))
    lines: list[dict[str, Any]] = []

    def told(event: str) -> bool:
        lines.extend(logged(capsys))
        return [line["event"] for line in lines[-1:]] == [event]

    async with kept_current(policies):
        policies.read_again()
        await until(lambda: told("policies unchanged"))
        first, second = (loaded.stamps for loaded in loads if loaded is not None)
        assert not first.items() & second.items(), "no stamp of before counts"
        write(tmp_path, {"organizations/acme.yaml": BROKEN})
        for _ in range(2):
            lines.clear()
            policies.read_again()
            await until(lambda: told("policies not reloaded: the last good ones decide"))

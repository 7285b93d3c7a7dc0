"""Whatever lies in a folder of policies, and whatever happens to it meanwhile: policies as they stood at one moment, or
mistakes that name the file. Never another exception, a hang, a gigabyte, or half a policy."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.policy.document import LONGEST_FILE_BYTES
from broker.policy.errors import MOST_MISTAKES, PolicyErrors
from broker.policy.files import load
from broker.policy.model import Policies
from tests.policy.example import ACME, FILES, INDEX, write

EXAMPLES = Path(__file__).parents[2] / "policies"
GLOBEX, OTHER = "organizations/globex.yaml", "organizations/acme.yaml"


def told(folder: Path) -> list[str]:
    """Every mistake in a line, without the folder."""
    with pytest.raises(PolicyErrors) as caught:
        load(folder)
    assert all(error.remedy for error in caught.value.errors)
    return str(caught.value).replace(f"{folder}/", "").replace(str(folder), "FOLDER").splitlines()


# --- What is no file -------------------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name is shorter than a temporary folder's
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("make", [Path.mkdir, pipe, listening], ids=["folder", "pipe", "socket"])
@pytest.mark.parametrize("file", ["index.yaml", GLOBEX])
def test_what_is_no_regular_file_is_named_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None], file: str
) -> None:
    folder = write(tmp_path)
    (folder / file).unlink()
    make(folder / file)
    assert told(folder) == [f"{file}: is no regular file"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin", "/proc/self/environ"])
@pytest.mark.parametrize("file", ["index.yaml", GLOBEX])
def test_a_link_to_a_device_is_not_followed(tmp_path: Path, device: str, file: str) -> None:
    folder = write(tmp_path)
    (folder / file).unlink()
    (folder / file).symlink_to(device)
    (line,) = told(folder)
    assert line in {f"{file}: leads out of the folder of policies", f"{file}: is not there"}


@pytest.mark.parametrize("make", [Path.touch, pipe, lambda path: path.symlink_to("nowhere")])
def test_organizations_that_are_no_folder_are_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write(tmp_path, {"index.yaml": INDEX})
    make(tmp_path / "organizations")
    assert told(tmp_path) == ["organizations: is no folder"]


# --- What changes meanwhile ------------------------------------------------------------------------------------------

Touch = Callable[[Path], object]


class _Disturbed(type(Path())):  # type: ignore[misc]
    """A folder in which something happens right before, or right after, one file is read."""

    disturb: Mapping[str, Touch] = {}

    def resolve(self, strict: bool = False) -> Path:
        if (touch := type(self).disturb.get(self.name)) is not None:
            touch(Path(self))
        return Path(super().resolve(strict))


def disturbed(folder: Path, **disturb: Touch) -> Path:
    """The folder; each touch gets the path of the file that it is named after (globex, index)."""
    named = {f"{name}.yaml": touch for name, touch in disturb.items()}
    return type("Disturbed", (_Disturbed,), {"disturb": named})(folder)  # type: ignore[no-any-return]


def replace_whole(text: str) -> Touch:
    """As editors and git do: another file takes the name."""

    def touch(path: Path) -> None:
        other = path.with_suffix(".new")
        other.write_text(text)
        other.replace(path)

    return touch


CHANGED = f"{GLOBEX}: changed while the policies were read"


def test_a_file_that_vanishes_between_listing_and_reading_is_named(tmp_path: Path) -> None:
    lines = told(disturbed(write(tmp_path), globex=lambda path: path.unlink()))
    assert lines == [CHANGED, f"{GLOBEX}: is not there"]


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.write_text(path.read_text() + "# longer\n"),
        lambda path: os.truncate(path, 200),
        lambda path: path.write_text(path.read_text().replace("owner", "OWNER")),
        replace_whole(FILES[GLOBEX]),
        lambda path: (path.unlink(), path.symlink_to("acme.yaml")),
    ],
    ids=["grows", "shrinks", "is written to", "is replaced", "becomes a link"],
)
@pytest.mark.parametrize("during", ["globex", "acme"])
def test_a_file_that_changes_before_or_after_it_is_read_is_named(tmp_path: Path, touch: Touch, during: str) -> None:
    """Also one that was read before and after the change of which the others know: a mixture is nobody's policy."""
    folder = write(tmp_path)
    changed = folder / "organizations/globex.yaml"
    lines = told(disturbed(folder, **{during: lambda _: touch(changed)}))
    assert CHANGED in lines


def test_a_file_that_was_read_already_is_asked_again(tmp_path: Path) -> None:
    """A narrower index with wider organizations would grant what neither the old nor the new folder does."""
    folder = write(tmp_path)
    index = replace_whole(INDEX + "# another generation\n")
    lines = told(disturbed(folder, globex=lambda path: index(path.parents[1] / "index.yaml")))
    assert lines == ["index.yaml: changed while the policies were read"]
    assert set(load(folder).organizations) == {"acme", "globex"}


def test_a_configmap_that_is_swapped_while_it_is_read_is_not_mixed(tmp_path: Path) -> None:
    for generation, name in (("..1", "alice"), ("..2", "albert")):
        files = {file: text.replace("alice", name) for file, text in FILES.items()}
        write(tmp_path / generation, files)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "index.yaml").symlink_to("..data/index.yaml")
    (tmp_path / "organizations").symlink_to("..data/organizations")

    def swap(_: Path) -> None:
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").replace(tmp_path / "..data")

    lines = told(disturbed(tmp_path, acme=swap))
    assert lines == [f"{file}: changed while the policies were read" for file in FILES]
    members = [set(one.members) for one in load(tmp_path).organizations.values()]
    assert all("albert" in names and "alice" not in names for names in members)


def test_what_is_not_policy_may_change(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert load(disturbed(folder, globex=lambda path: (path.parent / ".globex.yaml.swp").touch())) == load(folder)


# --- What is large ---------------------------------------------------------------------------------------------------


def test_of_a_hundred_megabytes_only_the_first_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for file in (GLOBEX, "index.yaml"):
        with (folder / file).open("wb") as stream:
            stream.truncate(100 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert [line.split(": ")[1] for line in told(folder)] == [f"is larger than {LONGEST_FILE_BYTES} bytes"] * 2
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_file_of_nothing_but_mistakes_is_told_a_thousand_of_them(tmp_path: Path) -> None:
    """A megabyte could hold a million, and their sentences a gigabyte."""
    text = ACME + "".join(f"field{number}: 1\n" for number in range(MOST_MISTAKES + 1))
    lines = told(write(tmp_path, {**FILES, OTHER: text}))
    assert len(lines) == MOST_MISTAKES + 1
    assert lines[0] == f"{OTHER}: has more than 1000 mistakes, of which 1000 are told"
    lines = told(write(tmp_path, {**FILES, OTHER: text.removesuffix(f"field{MOST_MISTAKES}: 1\n")}))
    assert len(lines) == MOST_MISTAKES
    assert "more than" not in "".join(lines)


def test_one_file_s_thousand_mistakes_hide_none_of_another_s(tmp_path: Path) -> None:
    text = ACME + "a: *b\n" * 2000
    lines = told(write(tmp_path, {**FILES, OTHER: text, GLOBEX: FILES[GLOBEX] + "colour: blue\n"}))
    assert lines[-1].startswith(f"{GLOBEX}:11: colour: is no field here")


# --- Anything --------------------------------------------------------------------------------------------------------

RICH = {
    "index.yaml": INDEX
    + """\
freezes:
  - {from: 2026-12-20, until: 2027-01-02T18:00:00+01:00, organizations: [globex], reason: year end}
ceilings:
  lifetime: 15m
  required: [ids]
  issuers: [github, gitlab, google]
  events: [push, release, workflow_dispatch]
  pipeline_sources: [push]
  organizations:
    acme: {lifetime: 15m, required: [environment, refs], events: [push, release, workflow_dispatch]}
""",
    OTHER: ACME + "lifetime: 15m\nfreezes: [{reason: year end, until: 2027-01-02}]\n",
    GLOBEX: FILES[GLOBEX].replace("pin: first-use", 'project_id: "1"\n    namespace_id: "2"'),
}
SHIPPED = {
    str(path.relative_to(EXAMPLES)): path.read_text()
    for path in (EXAMPLES / "index.yaml", *EXAMPLES.glob("organizations/*.yaml"))
}

folders = st.sampled_from([RICH, SHIPPED])
anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def outcome(folder: Path, files: Mapping[str, str | bytes]) -> Policies | PolicyErrors:
    """The only two ways a load can end; mistakes name a file and can be read by a person."""
    try:
        return load(write(folder, files))
    except PolicyErrors as error:
        mistakes = error
    assert mistakes.errors
    for each in mistakes.errors:
        assert each.file in {*files, "organizations"}
        assert each.what
        assert each.remedy
        assert str(each).isascii()
        assert str(each).isprintable()
    return mistakes


@pytest.mark.parametrize("files", [RICH, SHIPPED], ids=["rich", "shipped"])
def test_what_is_changed_below_loads(tmp_path: Path, files: dict[str, str]) -> None:
    """Or the rest would show nothing."""
    assert isinstance(outcome(tmp_path, files), Policies)


@anything
@given(st.data(), folders, st.binary(max_size=200))
def test_with_any_bytes_in_any_file_it_loads_or_says_why_not(
    tmp_path: Path, data: st.DataObject, files: dict[str, str], content: bytes
) -> None:
    file = data.draw(st.sampled_from(sorted(files)))
    whole = files[file].encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    for text in (content, whole[:start] + content, whole[:start] + content + whole[end:]):
        outcome(tmp_path, {**files, file: text})


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**41), st.floats(), st.dates(), st.datetimes(), st.binary(),
    st.text(max_size=10),
    st.sampled_from(["no", "1.0", "on", "~", "first-use", "ids", "environment", "team:core", "acme-*", "15m", "7h",
                     "github", "gitlab", "push", "schedule", "2026-12-20T18:00:00Z", "9999-12-31", "\ud7ff"]),
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)


def mutated(data: st.DataObject, tree: Any) -> Any:
    """The tree with one thing in it replaced, removed, doubled or renamed."""
    steps = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    if not steps or data.draw(st.integers(0, 5)) == 0:
        return data.draw(trees)
    step = data.draw(st.sampled_from(steps))
    copy = tree.copy()
    how = data.draw(st.sampled_from(["deeper", "deeper", "deeper", "remove", "move"]))
    if how == "deeper":
        copy[step] = mutated(data, tree[step])
    elif how == "remove":
        del copy[step]
    elif isinstance(copy, dict):
        copy[data.draw(st.one_of(st.sampled_from([*map(str, steps), "freezes", "ceilings", "lifetime"]), scalars))] = (
            copy.pop(step)
        )
    else:
        copy.append(copy[step])
    return copy


@anything
@given(st.data(), folders)
def test_with_any_change_to_what_it_says_it_loads_or_says_why_not(
    tmp_path: Path, data: st.DataObject, files: dict[str, str]
) -> None:
    file = data.draw(st.sampled_from(sorted(files)))
    tree = yaml.safe_load(files[file])
    for _ in range(data.draw(st.integers(1, 3))):
        tree = mutated(data, tree)
    outcome(tmp_path, {**files, file: yaml.safe_dump(tree, allow_unicode=True)})

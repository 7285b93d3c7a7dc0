"""A folder that is loaded again and again is what it would be if it were loaded now for the first time."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.errors import PolicyError, PolicyErrors
from broker.policy.files import load
from broker.policy.loader import Listing, Loader
from broker.policy.model import Policies
from tests.policy.example import ACME, FILES, GLOBEX, INDEX, write

ISSUERS: Final = INDEX[: INDEX.index("lifetime:")]
ALLOTMENTS: Final = INDEX[INDEX.index("organizations:\n") :]

INDEXES: Final = (
    INDEX,
    INDEX + "# a comment\n",
    ISSUERS,
    ISSUERS + "lifetime: {default: 20m, longest: 2h}\n",
    ISSUERS.replace("{provider: google}", "{provider: google, disabled: true}"),
    ISSUERS.replace("{provider: github}", "{provider: github, organizations: [acme]}"),
    ISSUERS.replace("{provider: github}", "{provider: github, organizations: [globex]}"),
    ISSUERS.replace("[acme]", "[initech]"),
    ISSUERS.replace("https://gitlab.acme.example", "https://git.acme.example"),
    ISSUERS.replace("provider: gitlab}", "provider: github}"),
    ISSUERS.replace("  google: {provider: google}\n", ""),
    ISSUERS.replace("gitlab: {", "gitlob: {"),
    ISSUERS + ALLOTMENTS.replace("projects: [widgets]", "projects: [gadgets]"),
    ISSUERS + ALLOTMENTS.replace("[globex]", "[globex, initech]"),
    ISSUERS + ALLOTMENTS + "  initech: {namespaces: [initech]}\n",
    ISSUERS + ALLOTMENTS + "  initech: {namespaces: [ini*tech]}\n",
    ISSUERS + "ceilings: {lifetime: 30m, events: [push, release]}\n",
    "# one line further down\n" + ISSUERS + "ceilings: {lifetime: 30m, events: [push, release]}\n",
    ISSUERS + "ceilings: {issuers: [github], organizations: {acme: {required: [ids, environment]}}}\n",
    ISSUERS + "ceilings: {organizations: {globex: {lifetime: 15m}}}\n",
    ISSUERS + "freezes: [{reason: moving, organizations: [acme]}]\n",
    ISSUERS + "freezes: [{reason: moving}, {until: soon, reason: x}]\n",
    ISSUERS + "lifetime: {default: 10s}\n",
    ISSUERS + "organizations: none\n",
    "issuers: none\n" + ALLOTMENTS,
    "issuers: {}\n",
    "issuers: [\n",
    "",
)
SHARED: Final = GLOBEX.replace("globex/engine", "acme/tools")
ORGANIZATIONS: Final[tuple[str | bytes, ...]] = (
    ACME,
    ACME.replace("until: 2027-01-31", "until: 2027-02-28"),
    ACME.replace("core: [alice, bob]", "core: [alice, bob, carol]"),
    ACME.replace("namespaces: [acme]", "namespaces: [acme, gadgets]"),
    ACME.replace("namespaces: [acme]", "namespaces: [acme, globex-tools]"),
    ACME.replace("role: owner", "role: boss"),
    ACME.replace("issuer: github", "issuer: gitlap"),
    ACME.replace("workflow: release.yml", "workflow: publish.yml"),
    GLOBEX,
    SHARED,
    SHARED.replace("namespaces: [globex]", "namespaces: [globex, acme-widgets-tools]"),
    GLOBEX.replace("issuer: gitlab", "issuer: gitlab-acme"),
    GLOBEX.replace("namespaces: [globex]", "namespaces: [globex, widgets]"),
    GLOBEX.replace("namespaces: [globex]", "namespaces: [globex]\nprojects:\n  gadgets-new-*: {upload: [alice]}"),
    GLOBEX + "suspended: true\n",
    GLOBEX + "lifetime: 20m\n",
    ACME + "lifetime: 1h\nfreezes: [{from: 2026-12-20, until: 2027-01-02, reason: holidays}]\n",
    ACME.replace("events: [push, release]", "events: [push, schedule]"),
    GLOBEX.replace('members:\n  alice: {role: owner, gitlab: "77"}\n', ""),
    "organization: globex\n",
    "organization: [\n",
    "",
    "\u00e9".encode("latin-1"),
)
NAMES: Final = ("acme", "globex", "initech")


def named(content: str | bytes, name: str) -> bytes:
    """An organization's file, of another organization: so that names meet."""
    if isinstance(content, bytes):
        return content
    own = content.partition("\n")[0].removeprefix("organization: ")
    return content.replace(f"organization: {own}\n", f"organization: {name}\n").encode()


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, bytes | None]:
    """A file and its new content; None removes it."""
    if draw(st.integers(0, 3)) == 0:
        return "index.yaml", draw(st.sampled_from(INDEXES)).encode()
    name = draw(st.sampled_from(NAMES))
    file = f"organizations/{draw(st.sampled_from([name, name, name, 'Initech']))}.yaml"
    content = draw(st.none() | st.sampled_from(ORGANIZATIONS).map(lambda content: named(content, name)))
    return draw(st.sampled_from([file] * 9 + ["index.yaml", "globex.yml"])), content


def outcome(folder: Path, loader: Loader | None = None, listing: Listing | None = None) -> Policies | list[PolicyError]:
    """What a load gives, in a form that compares."""
    try:
        return load(folder) if loader is None else loader.load(listing)
    except PolicyErrors as errors:
        return list(errors.errors)


def edit(folder: Path, file: str, content: bytes | None) -> None:
    """Writes a file, or removes it."""
    if content is None:
        (folder / file).unlink(missing_ok=True)
    else:
        write(folder, {file: content})


@settings(max_examples=50, deadline=None)
@given(history=st.lists(st.lists(edits(), max_size=2), min_size=2, max_size=8), data=st.data())
def test_after_any_history_a_load_gives_what_a_first_one_would(
    history: list[list[tuple[str, bytes | None]]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = write(Path(name))
        loader, versions = Loader(folder), dict.fromkeys(FILES, 0)
        given_so_far: list[tuple[object, object]] = []
        for now, changes in enumerate(history, 1):
            for file, content in changes:
                edit(folder, file, content)
                versions[file] = now
            unsure = data.draw(st.sets(st.sampled_from(sorted(versions)), max_size=2))
            listing = Listing.of(folder)
            stamps = {file: versions[file] for file in listing.files if file in versions and file not in unsure}
            new = outcome(folder, loader, Listing(files=listing.files, errors=listing.errors, stamps=stamps))
            given_so_far.append((new, outcome(folder)))
        for again, first in given_so_far:  # also those that were given long ago
            assert again == first


def stamped(folder: Path, **changed: int) -> Listing:
    """Every file with a stamp: 0, but for those that are named."""
    files = Listing.of(folder).files
    return Listing(files=files, stamps={file: changed.get(Path(file).stem, 0) for file in files})


def test_a_file_that_has_its_stamp_still_is_not_even_read(tmp_path: Path) -> None:
    loader = Loader(write(tmp_path))
    before = loader.load(stamped(tmp_path))
    write(tmp_path, dict.fromkeys(FILES, "not: [a policy"))
    assert loader.load(stamped(tmp_path)) is before
    with pytest.raises(PolicyErrors) as caught:
        loader.load(stamped(tmp_path, globex=1))
    assert {error.file for error in caught.value.errors} == {"organizations/globex.yaml"}


def test_what_only_looks_changed_gives_the_very_same_policies(tmp_path: Path) -> None:
    loader = Loader(write(tmp_path))
    assert loader.load() is loader.load()


def test_a_changed_organization_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    loader = Loader(write(tmp_path))
    before = loader.load()
    write(tmp_path, {"organizations/acme.yaml": ACME.replace("role: owner", "role: member")})
    after = loader.load()
    assert after.organizations["globex"] is before.organizations["globex"]
    assert after.organizations["acme"] is not before.organizations["acme"]
    assert before.organizations["acme"].members["alice"].role == "owner"
    assert after.generation != before.generation


@pytest.mark.parametrize(
    ("index", "again"),
    [
        (INDEX.replace("longest: 1h", "longest: 2h"), {"acme", "globex"}),
        (INDEX + "ceilings: {organizations: {acme: {lifetime: 15m}}}\n", {"acme"}),
        (INDEX + "ceilings: {organizations: {acme: {required: [ids]}}}\n", {"acme"}),
        (INDEX + "freezes: [{reason: moving, organizations: [globex]}]\n", {"globex"}),
        (INDEX + "freezes: [{reason: moving}]\n", {"acme", "globex"}),
        (INDEX.replace("google: {provider: google}", "google: {provider: google, disabled: true}"), set()),
        (INDEX.replace("lifetime:", "  ours: {provider: github, url: 'https://ours.example'}\nlifetime:"), set()),
        (INDEX.replace("projects: [widgets]", "projects: [gadgets]"), {"acme"}),
        (INDEX.replace("github: {provider: github}", "github: {provider: github, organizations: [acme]}"), {"acme"}),
        (INDEX.replace("gitlab: {provider: gitlab}", "gitlab: {provider: gitlab, organizations: [acme, globex]}"),
         {"acme", "globex"}),
    ],
)  # fmt: skip
def test_an_index_compiles_those_again_that_it_says_something_else_to(
    tmp_path: Path, index: str, again: set[str]
) -> None:
    loader = Loader(write(tmp_path))
    before = loader.load().organizations
    after = loader.load(write_listing(tmp_path, index)).organizations
    assert {name for name in after if after[name] is not before[name]} == again


def write_listing(folder: Path, index: str) -> Listing:
    """The folder with another index; of the organizations nothing need be read."""
    return Listing.of(write(folder, {"index.yaml": index}))


def test_a_broken_index_that_is_mended_costs_no_organization(tmp_path: Path) -> None:
    loader = Loader(write(tmp_path))
    before = loader.load().organizations
    write(tmp_path, {"index.yaml": "issuers: ["})
    with pytest.raises(PolicyErrors):
        loader.load()
    write(tmp_path, {"index.yaml": INDEX + "# mended\n"})
    after = loader.load().organizations
    assert all(after[name] is before[name] for name in before)

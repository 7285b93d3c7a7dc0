"""Which files count, what is wrong with a folder, and what only all files together can get wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from broker.policy.document import LONGEST_FILE_BYTES
from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from tests.policy.example import ACME, FILES, GLOBEX, INDEX, changed, write


def told(folder: Path, *, allow_loopback_issuers: bool = False) -> list[str]:
    """Every mistake in a line, without the folder."""
    with pytest.raises(PolicyErrors) as caught:
        load(folder, allow_loopback_issuers=allow_loopback_issuers)
    assert all(error.remedy for error in caught.value.errors)
    return str(caught.value).replace(f"{folder}/", "").replace(str(folder), "FOLDER").splitlines()


def without(*names: str) -> Mapping[str, str]:
    return {name: text for name, text in FILES.items() if name not in names}


# --- The folder ------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_a_mistake(tmp_path: Path) -> None:
    assert told(tmp_path / "nowhere") == ["FOLDER: is no folder"]


def test_a_file_in_place_of_the_folder_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text("")
    assert told(tmp_path / "policies") == ["FOLDER: is no folder"]


def test_an_empty_folder_lacks_both(tmp_path: Path) -> None:
    assert told(tmp_path) == ["index.yaml: is not there", "organizations: is no folder"]


def test_without_an_index_the_organizations_are_still_read(tmp_path: Path) -> None:
    """Their own mistakes are told; nothing is said of issuers, which nobody knows."""
    write(tmp_path, {"organizations/acme.yaml": ACME.replace("owner", "boss", 1)})
    roles = "'owner', 'member' or 'billing-manager'"
    assert told(tmp_path) == [
        "index.yaml: is not there",
        f"organizations/acme.yaml:4: members.alice.role: must be {roles}, and is the text 'boss'",
    ]


def test_a_broken_index_is_told_once_and_not_by_every_organization(tmp_path: Path) -> None:
    assert told(write(tmp_path, {**FILES, "index.yaml": "issuers: [github\n"})) == [
        "index.yaml:2: is not YAML: did not find expected ',' or ']' (in what began on line 1)"
    ]
    assert (
        told(write(tmp_path, {**FILES, "index.yaml": "issuers: {}\n"}))[0] == "index.yaml:1: issuers: must not be empty"
    )


@pytest.mark.parametrize("issuers", ["github", "[github]", "~"])
def test_issuers_that_cannot_be_read_are_told_once(tmp_path: Path, issuers: str) -> None:
    assert len(told(write(tmp_path, {**FILES, "index.yaml": f"issuers: {issuers}\n"}))) == 1


def test_a_mistake_in_an_issuer_is_not_told_again_by_those_who_refer_to_it(tmp_path: Path) -> None:
    files = changed("index.yaml", "  github: {provider: github}", "  github: {provider: gihub}")
    assert told(write(tmp_path, files)) == ["index.yaml:2: issuers.github.provider: is no provider: 'gihub'"]
    files = changed("index.yaml", "  github: {provider: github}", "  github: github")
    assert [line.split(": ")[1] for line in told(write(tmp_path, files))] == ["issuers.github"]


def test_no_organizations_load_and_grant_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"index.yaml": "issuers: {github: {provider: github}}\n"})
    (tmp_path / "organizations").mkdir()
    assert load(tmp_path).organizations == {}
    assert load(tmp_path).publishers_by_name == {}


def test_readmes_dotfiles_and_test_cases_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path)
    extra = {
        "README.md": "",
        ".pre-commit-config.yaml": "a",
        "organizations/.acme.yaml.swp": "",
        "organizations/README": "",
        "organizations/acme.yaml.orig": "",
        "tests/acme.yaml": "not: [a policy",
    }
    before = load(tmp_path)
    assert load(write(tmp_path, extra)) == before


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("index.yml", "is not read: policies are index.yaml and organizations/*.yaml"),
        ("acme.yaml", "is not read: policies are index.yaml and organizations/*.yaml"),
        ("organizations/initech.yml", "is not read: its name does not end in .yaml"),
        ("organizations/initech.YAML", "is not read: its name does not end in .yaml"),
        ("organizations/teams/initech.yaml", "is a folder, and nothing in it is read"),
        ("organizations/Initech.yaml", "is not called as an organization can be"),
        ("organizations/-a.yaml", "is not called as an organization can be"),
        ("organizations/init\u0435ch.yaml", "is not called as an organization can be"),
    ],
)
def test_what_looks_like_a_policy_and_is_none_is_a_mistake(tmp_path: Path, name: str, what: str) -> None:
    """Its author would think that it grants something."""
    stem = name.rsplit("/", 1)[-1].removesuffix(".yaml")
    write(tmp_path, {**FILES, name: f"organization: {stem}\n"})
    shown = "organizations/teams" if "teams" in name else name.encode("ascii", "backslashreplace").decode()
    assert [line for line in told(tmp_path) if "which index.yaml" not in line] == [f"{shown}: {what}"]


# --- Files -----------------------------------------------------------------------------------------------------------


def test_a_configmap_is_read_through_its_links(tmp_path: Path) -> None:
    """As Kubernetes mounts one: a dated folder, `..data` that leads to it, and a link for each file."""
    write(tmp_path / "..2026_11_20", {"index.yaml": INDEX})
    (tmp_path / "..data").symlink_to("..2026_11_20")
    (tmp_path / "index.yaml").symlink_to("..data/index.yaml")
    inner = tmp_path / "organizations"
    write(inner / "..2026_11_20", {"acme.yaml": ACME, "globex.yaml": GLOBEX})
    (inner / "..data").symlink_to("..2026_11_20")
    for name in ("acme.yaml", "globex.yaml"):
        (inner / name).symlink_to(f"..data/{name}")
    assert set(load(tmp_path).organizations) == {"acme", "globex"}


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real")
    (tmp_path / "policies").symlink_to("real")
    assert load(tmp_path / "policies") == load(tmp_path / "real")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "policies")
    outside = tmp_path / "policies-of-others.yaml"
    outside.write_text("organization: initech\n")
    (folder / "organizations/initech.yaml").symlink_to(outside)
    assert told(folder) == ["organizations/initech.yaml: leads out of the folder of policies"]


def test_a_folder_of_organizations_elsewhere_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"acme.yaml": ACME})
    folder = write(tmp_path / "policies", {"index.yaml": INDEX})
    (folder / "organizations").symlink_to(tmp_path / "elsewhere")
    assert told(folder) == ["organizations/acme.yaml: leads out of the folder of policies"]


def test_a_link_to_nothing_and_a_circle_of_links_are_mistakes(tmp_path: Path) -> None:
    folder = write(tmp_path, without("organizations/globex.yaml", "organizations/acme.yaml"))
    (folder / "organizations").mkdir()
    (folder / "organizations/acme.yaml").symlink_to("missing")
    (folder / "organizations/globex.yaml").symlink_to("globex.yaml")
    first, second = told(folder)
    assert first == "organizations/acme.yaml: is not there"
    assert second.startswith("organizations/globex.yaml: cannot be read: ")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    folder = write(tmp_path)
    (folder / "organizations/initech.yaml").mkdir()
    os.mkfifo(folder / "organizations/umbrella.yaml")
    assert told(folder) == [
        "organizations/initech.yaml: is no regular file",
        "organizations/umbrella.yaml: is no regular file",
    ]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("closed", "lines"),
    [
        ("", ["FOLDER: cannot be listed: Permission denied", "index.yaml: cannot be read: Permission denied"]),
        ("index.yaml", ["index.yaml: cannot be read: Permission denied"]),
        ("organizations", ["organizations: cannot be listed: Permission denied"]),
        ("organizations/acme.yaml", ["organizations/acme.yaml: cannot be read: Permission denied"]),
    ],
)
def test_what_may_not_be_read_is_a_mistake(closed: str, lines: list[str]) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (write(folder) / closed).chmod(0)
        with as_nobody():
            assert told(folder) == lines
        (folder / closed).chmod(0o755)


def test_a_folder_in_a_closed_one_is_a_mistake() -> None:
    with TemporaryDirectory() as place:
        Path(place).chmod(0)
        with as_nobody():
            assert told(Path(place) / "policies") == ["FOLDER: cannot be listed: Permission denied"]
        Path(place).chmod(0o755)


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with (folder / "organizations/initech.yaml").open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    assert told(folder) == [f"organizations/initech.yaml:1: is larger than {LONGEST_FILE_BYTES} bytes"]


# --- The generation --------------------------------------------------------------------------------------------------


def test_the_generation_is_that_of_the_files_and_of_nothing_else(tmp_path: Path) -> None:
    generations = [
        load(write(tmp_path / "a")).generation,
        load(write(tmp_path / "b", {**FILES, "README.md": "x"})).generation,
        load(write(tmp_path / "c", {**FILES, "index.yaml": INDEX + "# a comment\n"})).generation,
        load(write(tmp_path / "d", without("organizations/globex.yaml"))).generation,
        load(write(tmp_path / "e", {**FILES, "organizations/acme.yaml": ACME + "\n"})).generation,
    ]
    assert generations[0] == generations[1]
    assert len(set(generations)) == 4
    assert all(len(generation) == 16 and int(generation, 16) for generation in generations)


def test_the_generation_knows_which_file_said_what(tmp_path: Path) -> None:
    """The same bytes in a row, cut in another place, are other policies."""
    index = "issuers: {github: {provider: github}}\n"
    one = load(write(tmp_path / "a", {"index.yaml": index, "organizations/a.yaml": "organization: a\n"}))
    two = load(write(tmp_path / "b", {"index.yaml": index, "organizations/b.yaml": "organization: b\n"}))
    three = load(write(tmp_path / "c", {"index.yaml": index + "\n", "organizations/a.yaml": "organization: a\n"}))
    assert len({one.generation, two.generation, three.generation}) == 3


def test_the_generation_knows_where_a_file_ends(tmp_path: Path) -> None:
    """Two files, and one that holds the other's name and text in a comment."""
    index, policy = "issuers: {github: {provider: github}}\n#", "organization: a\n"
    two = write(tmp_path / "two", {"index.yaml": index, "organizations/a.yaml": policy})
    one = write(tmp_path / "one", {"index.yaml": f"{index}organizations/a.yaml{policy}"})
    (one / "organizations").mkdir()
    assert load(one).generation != load(two).generation


# --- Names of others -------------------------------------------------------------------------------------------------

OPEN_INDEX = "issuers: {github: {provider: github}}\n"


def held(name: str, *, namespaces: str = "", projects: str = "") -> str:
    listed = "".join(f"  {project}: {{upload: []}}\n" for project in [*projects.split(), f"{name}-own"])
    return f"organization: {name}\nnamespaces: [{namespaces}]\nprojects:\n{listed}"


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ({"namespaces": "acme"}, {"namespaces": "Acme"}, "2: namespaces[0]: holds acme, A:2 holds acme"),
        ({"namespaces": "acme"}, {"projects": "acme"}, "4: projects.acme: holds acme, A:2 holds acme"),
        ({"namespaces": "acme"}, {"projects": "acme-x"}, "4: projects.acme-x: holds acme-x, A:2 holds acme-*"),
        ({"namespaces": "acme"}, {"namespaces": "acme-x"}, "2: namespaces[0]: holds acme-x, A:2 holds acme-*"),
        ({"projects": "acme_x"}, {"namespaces": "acme"}, "2: namespaces[0]: holds acme-*, A:4 holds acme-x"),
        ({"projects": "acme-x-*"}, {"projects": "acme-*"}, "4: projects.acme-*: holds acme-*, A:4 holds acme-x-*"),
        ({"projects": "acme-*"}, {"projects": "acme-*"}, "4: projects.acme-*: holds acme-*, A:4 holds acme-*"),
        ({"projects": "acme-x"}, {"projects": "Acme.X"}, '4: projects."Acme.X": holds acme-x, A:4 holds acme-x'),
        (
            {"projects": "acme-x-y acme-*"},
            {"projects": "acme-x-*"},
            "4: projects.acme-x-*: holds acme-x-*, A:4 holds acme-x-y",
        ),
    ],
)
def test_two_organizations_never_hold_overlapping_names(
    tmp_path: Path, first: dict[str, str], second: dict[str, str], overlap: str
) -> None:
    """Told at the later file, naming both."""
    files = {
        "index.yaml": OPEN_INDEX,
        "organizations/a.yaml": held("a", **first),
        "organizations/b.yaml": held("b", **second),
    }
    assert told(write(tmp_path, files)) == [
        f"organizations/b.yaml:{overlap.replace(' A:', ' and organizations/a.yaml:')}"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"namespaces": "acme"}, {"namespaces": "acmee"}),
        ({"projects": "acme"}, {"projects": "acme-*"}),
        ({"projects": "acme-x"}, {"projects": "acme-x-*"}),
        ({"projects": "acme-x"}, {"projects": "acme-y acme-xx"}),
        ({"namespaces": "acme-x"}, {"namespaces": "acme-y"}),
    ],
)
def test_names_that_do_not_overlap_are_held_side_by_side(
    tmp_path: Path, first: dict[str, str], second: dict[str, str]
) -> None:
    files = {
        "index.yaml": OPEN_INDEX,
        "organizations/a.yaml": held("a", **first),
        "organizations/b.yaml": held("b", **second),
    }
    assert set(load(write(tmp_path, files)).organizations) == {"a", "b"}


def test_of_three_that_hold_a_name_each_later_one_is_told(tmp_path: Path) -> None:
    files = {f"organizations/{name}.yaml": held(name, namespaces="acme") for name in "abc"}
    lines = told(write(tmp_path, {"index.yaml": OPEN_INDEX, **files}))
    assert [line.split(":")[0] for line in lines] == ["organizations/b.yaml", "organizations/c.yaml"]


def test_without_allotments_an_organization_holds_what_it_says(tmp_path: Path) -> None:
    write(tmp_path, {"index.yaml": OPEN_INDEX, "organizations/a.yaml": held("a", namespaces="x", projects="w z-*")})
    assert set(load(tmp_path).organizations) == {"a"}


def test_an_organization_without_an_allotment_holds_nothing(tmp_path: Path) -> None:
    index = OPEN_INDEX + "organizations: {b: {namespaces: [b]}}\n"
    write(tmp_path, {"index.yaml": index, "organizations/a.yaml": "organization: a\nnamespaces: [a]\n"})
    assert told(tmp_path) == ["organizations/a.yaml:2: namespaces[0]: holds a, which index.yaml does not allot to 'a'"]
    write(tmp_path, {"organizations/a.yaml": "organization: a\n"})
    assert set(load(tmp_path).organizations) == {"a"}


@pytest.mark.parametrize(
    ("allotted", "project", "fits"),
    [
        ("namespaces: [acme]", "acme", True),
        ("namespaces: [acme]", "acme-x", True),
        ("namespaces: [acme]", "acme-x-*", True),
        ("projects: [acme]", "acme", True),
        ("projects: [acme]", "acme-x", False),
        ("projects: [acme-*]", "acme-*", True),
        ("projects: [acme-x-*]", "acme-*", False),
        ("projects: [acme-*]", "acme", False),
        ("namespaces: [], projects: []", "acme", False),
    ],
)
def test_an_allotment_must_cover_all_that_is_held(tmp_path: Path, allotted: str, project: str, fits: bool) -> None:
    index = OPEN_INDEX + f"organizations: {{a: {{{allotted}}}}}\n"
    text = f"organization: a\nprojects: {{{project}: {{upload: []}}}}\n"
    write(tmp_path, {"index.yaml": index, "organizations/a.yaml": text})
    if fits:
        assert set(load(tmp_path).organizations) == {"a"}
    else:
        assert told(tmp_path) == [
            f"organizations/a.yaml:2: projects.{project}: holds {project}, which index.yaml does not allot to 'a'"
        ]


def test_a_mistake_in_an_allotment_is_told_once(tmp_path: Path) -> None:
    files = changed("index.yaml", "acme: {namespaces: [acme]", "acme: {namespaces: [acme*]")
    assert [line.split(": ")[1] for line in told(write(tmp_path, files))] == ["organizations.acme.namespaces[0]"]


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("acme-widgets: {", "acme-widgets-: {", "projects.acme-widgets-"),
        ("namespaces: [acme]", "namespaces: [acme*]", "namespaces[0]"),
        ("namespaces: [acme]", "namespaces: {acme: x}", "namespaces"),
    ],
)
def test_a_name_that_cannot_be_read_is_not_missed_by_publishers(tmp_path: Path, old: str, new: str, path: str) -> None:
    """They may have meant it."""
    files = changed("organizations/acme.yaml", old, new)
    files["organizations/acme.yaml"] = files["organizations/acme.yaml"].replace("[acme-widgets]", "[widgets]")
    assert [line.split(": ")[1] for line in told(write(tmp_path, files))] == [path]


def test_names_may_be_allotted_to_an_organization_before_it_has_a_file(tmp_path: Path) -> None:
    write(tmp_path, without("organizations/globex.yaml"))
    assert set(load(tmp_path).organizations) == {"acme"}


# --- Loopback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.0.0.1:8080/gitlab"])
def test_issuers_on_loopback_are_for_development(tmp_path: Path, host: str) -> None:
    files = changed("index.yaml", "url: https://gitlab.acme.example", f'url: "http://{host}"')
    assert len(told(write(tmp_path, files))) == 1
    policies = load(tmp_path, allow_loopback_issuers=True)
    assert policies.issuer_by_url[f"http://{host}"].name == "gitlab-acme"


@pytest.mark.parametrize(
    "url",
    ["http://gitlab.acme.example", "http://127.0.0.1.evil.example", "http://127.0.0.1@evil.example", "http://127.0.0.1:0",
     "http://localhost.evil.example", "http://127.0.0.1:8080/", "http://0.0.0.0:8080", "http://[::1]:8080/../a"],
)  # fmt: skip
def test_nothing_else_is_loopback(tmp_path: Path, url: str) -> None:
    files = changed("index.yaml", "url: https://gitlab.acme.example", f'url: "{url}"')
    assert len(told(write(tmp_path, files), allow_loopback_issuers=True)) == 1

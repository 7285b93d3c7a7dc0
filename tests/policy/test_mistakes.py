"""Every mistake a policy can have, each alone: told with file, line, path, what is wrong and how to mend it."""

# ruff: noqa: E501 (a table: one mistake, one line)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.policy.errors import PolicyErrors
from broker.policy.files import load
from tests.policy.example import FILES, changed, line_of, write

ACME = "organizations/acme.yaml"
GLOBEX = "organizations/globex.yaml"
INDEX = "index.yaml"

RELEASE = "publishers.widgets-release"


@dataclass(frozen=True)
class Row:
    """`old` becomes `new` in `file`; the mistake is on the line where `at` stands in the changed file."""

    file: str
    old: str
    new: str
    at: str
    path: str
    what: str
    remedy: str


ROWS = [
    # --- index.yaml
    Row(INDEX, "lifetime:", "lifetimes:", "lifetimes:", "lifetimes", "is no field here", "'lifetime'"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google}\n  GHES: {provider: github, url: https://ghes.example}", "GHES:", "issuers.GHES", "name that is none", "lower-case"),
    Row(INDEX, "github: {provider: github}\n", "github: {provider: github}\n  role: {provider: google, url: https://a.example}\n", "role:", "issuers.role", "a field of members", "another name"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: googel}", "googel", "issuers.google.provider", "is no provider: 'googel'", "'google'"),
    Row(INDEX, "  google: {provider: google}", "  google: {}", "google: {}", "issuers.google.provider", "is missing", "github, gitlab, google, activestate"),
    Row(INDEX, "  google: {provider: google}", "  google: google", "google: google", "issuers.google", "must be a mapping", "indented"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, disabled: yes}", "disabled", "issuers.google.disabled", "true or false, and is the text 'yes'", "without quotes"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, replay: loose}", "loose", "issuers.google.replay", "'strict' or 'same-token', and is the text 'loose'", "one of these"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, algorithms: [HS256]}", "HS256", "issuers.google.algorithms", "cannot be trusted with 'HS256'", "RS256"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, algorithms: [none]}", "none", "issuers.google.algorithms", "cannot be trusted with 'none'", "RS256"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, algorithms: []}", "algorithms", "issuers.google.algorithms", "must not be empty", ""),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, longest_token: 6}", "longest_token", "issuers.google.longest_token", "not the right form: a number (6)", "15m"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, longest_token: 0h}", "longest_token", "issuers.google.longest_token", "not the right form: the text '0h'", "15m"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: google, longest_token: 745h}", "longest_token", "issuers.google.longest_token", "longer than 744h", "shorter"),
    Row(INDEX, "organizations: [acme]", "organizations: [acmee]", "acmee", "issuers.gitlab-acme.organizations[0]", "organization that is not there: 'acmee'", "'acme'"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.com", "url:", "issuers.gitlab-acme.url", "same URL as the issuer 'gitlab' on line 3", "Keep one"),
    Row(INDEX, "  google: {provider: google}", "  google: {provider: github}", "google:", "issuers.google.provider", "same URL as the issuer 'github' on line 2", "Keep one"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: http://gitlab.acme.example", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "Begin with https://"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: http://127.0.0.1:8080", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "BROKER_ALLOW_LOOPBACK_ISSUERS"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.acme.example/", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "without the `/` at the end"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.acme.example:443", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", ":443"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://me@gitlab.acme.example", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "without user"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.acme.example?a=b", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "query"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.acme.example#a", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "fragment"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://GitLab.acme.example", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "lower case"),
    Row(INDEX, "url: https://gitlab.acme.example", "url: https://gitlab.acme.example/a/../b", "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL", "https://host/path"),
    Row(INDEX, "url: https://gitlab.acme.example", 'url: ""', "url:", "issuers.gitlab-acme.url", "cannot be an issuer's URL: ''", "https://"),
    Row(INDEX, "default: 15m", "default: 899s", "lifetime:", "lifetime.default", "899 seconds", "PEP 807"),
    Row(INDEX, "longest: 1h", "longest: 7h", "lifetime:", "lifetime.longest", "25200 seconds", "PEP 807"),
    Row(INDEX, "default: 15m", "default: 2h", "lifetime:", "lifetime.default", "longer than `longest`", "longer `longest`"),
    Row(INDEX, "default: 15m", "default: 15", "lifetime:", "lifetime.default", "not the right form", "900s, 15m, 1h"),
    Row(INDEX, "lifetime: {default: 15m, longest: 1h}", "lifetime: 15m", "lifetime:", "lifetime", "must be a mapping", "indented"),
    Row(INDEX, "  globex: {namespaces: [globex]}", "  globex: {namespaces: [globex], project: [x]}", "globex:", "organizations.globex.project", "is no field here", "'projects'"),
    Row(INDEX, "  globex: {namespaces: [globex]}", "  globex: {namespaces: [globex], projects: [acme-x]}", "globex:", "organizations.globex.projects[0]", "allots acme-x, and line 11 allots it to 'acme'", "Allot it to one"),
    Row(INDEX, "  globex: {namespaces: [globex]}", "  globex: {namespaces: [globex], projects: [widgets]}", "globex:", "organizations.globex.projects[0]", "allots widgets", "Allot it to one"),
    # --- an organization
    Row(ACME, "organization: acme\n", "", "namespaces:", "organization", "is missing", "as the file is called"),
    Row(ACME, "organization: acme\n", "organization: acmes\n", "organization:", "organization", "is 'acmes', and the file is called acme.yaml", "the same"),
    Row(ACME, "organization: acme\n", "organization: acme\nsuspend: true\n", "suspend:", "suspend", "is no field here", "'suspended'"),
    Row(ACME, "organization: acme\n", 'organization: acme\nsuspended: "true"\n', "suspended:", "suspended", "must be true or false, and is the text 'true'", "without quotes"),
    Row(ACME, "namespaces: [acme]", "namespaces: acme", "namespaces:", "namespaces", "must be a list, and is the text 'acme'", "["),
    Row(ACME, "namespaces: [acme]", "namespaces: [acme, 7]", "namespaces:", "namespaces[1]", "must be text, and is a number (7)", 'Write "7" in quotes'),
    Row(ACME, "namespaces: [acme]", "namespaces: [acme-*]", "namespaces:", "namespaces[0]", "'acme-*' is no namespace", "without the `*`"),
    Row(ACME, "namespaces: [acme]", "namespaces: [acme, Acme]", "namespaces:", "namespaces[1]", "means acme, as line 2 does", "Remove one"),
    Row(ACME, "namespaces: [acme]", "namespaces: [acme, '-']", "namespaces:", "namespaces[1]", "is no project name", "Correct"),
    Row(ACME, "namespaces: [acme]", "namespaces: [acme, initech]", "namespaces:", "namespaces[1]", "holds initech, which index.yaml does not allot to 'acme'", "operator"),
    Row(ACME, "namespaces: [acme]", f"namespaces: [acme, {'a' * 201}]", "namespaces:", "namespaces[1]", "longer than 200", "Correct"),
    # --- members
    Row(ACME, "  carol: {", "  Carol: {", "Carol:", "members.Carol", "name that is none here: 'Carol'", "lower-case"),
    Row(ACME, "{role: owner, github", "{github", "alice: {", "members.alice.role", "is missing", "owner, member or billing-manager"),
    Row(ACME, "role: owner", "role: admin", "admin", "members.alice.role", "must be 'owner', 'member' or 'billing-manager', and is the text 'admin'", "one of these"),
    Row(ACME, "role: owner", "rule: owner, role: owner", "rule:", "members.alice.rule", "is no field here, and no issuer", "'role'"),
    Row(ACME, 'github: "1001"', 'githb: "1001"', "githb", "members.alice.githb", "no issuer in index.yaml: 'githb'", "'github'"),
    Row(ACME, 'github: "1001"', "github: 1001", "github: 1001", "members.alice.github", "must be text, and is a number (1001)", 'Write "1001" in quotes'),
    Row(ACME, 'github: "1001"', 'github: "alice"', '"alice"', "members.alice.github", "not the right form: the text 'alice'", "immutable id"),
    Row(ACME, 'github: "1001"', 'github: "01001"', '"01001"', "members.alice.github", "not the right form: the text '01001'", "immutable id"),
    Row(ACME, 'github: "1001"', 'github: ["1001"]', '["1001"]', "members.alice.github", "must be text, and is a list", "immutable id"),
    Row(ACME, 'github: "1002"', 'github: "1001"', "bob: {", "members.bob.github", "also the id of 'alice', on line 4", "remove one"),
    Row(ACME, "machine: true", "machine: True", "machine:", "members.release-bot.machine", "true or false, and is the text 'True'", "without quotes"),
    Row(ACME, "until: 2027-01-31", "until: 2027-02-30", "until:", "members.bob.until", "day of the calendar, and is the text '2027-02-30'", "2027-01-31"),
    Row(ACME, "until: 2027-01-31", 'until: "2027-01-31"', "until:", "members.bob.until", "day of the calendar", "without quotes"),
    Row(ACME, "until: 2027-01-31", "until: null", "until:", "members.bob.until", "has no value", "remove the line"),
    Row(ACME, "environment: pypi", "environment:", "environment:", f"{RELEASE}.environment", "has no value", "remove the line"),
    Row(ACME, '  carol: {role: billing-manager, github: "1003"}', "  carol: owner", "carol: owner", "members.carol", "must be a mapping of names", "indented"),
    Row(GLOBEX, 'gitlab: "77"', 'gitlab-acme: "77"', "gitlab-acme", "members.alice.gitlab-acme", "issuer 'gitlab-acme', which 'globex' may not bind to", "operator"),
    # --- teams and projects
    Row(ACME, "core: [alice, bob]", "core: [alice, bobb]", "bobb", "teams.core[1]", "member that is not there: 'bobb'", "'bob'"),
    Row(ACME, "core: [alice, bob]", "core: alice", "core: alice", "teams.core", "must be a list, and is the text 'alice'", "["),
    Row(ACME, "core: [alice, bob]", "core: [alice, bob]\n  Ops: []", "Ops:", "teams.Ops", "name that is none here: 'Ops'", "lower-case"),
    Row(ACME, '["team:core"]', '["team:cores"]', "cores", "projects.acme-widgets.upload[0]", "team that is not there: 'cores'", "'core'"),
    Row(ACME, '["team:core"]', "[core]", "upload: [core]", "projects.acme-widgets.upload[0]", "names a team as a member: 'core'", "'team:core'"),
    Row(ACME, '["team:core"]', "[nobody]", "nobody", "projects.acme-widgets.upload[0]", "member that is not there: 'nobody'", "under `members`"),
    Row(ACME, '["team:core"]', '"team:core"', '"team:core"', "projects.acme-widgets.upload", "must be a list", "["),
    Row(ACME, '{upload: ["team:core"]}', "{}", "acme-widgets: {}", "projects.acme-widgets", "has neither `upload` nor `download`", "Say who may"),
    Row(ACME, '{upload: ["team:core"]}', '{download: ["team:cores"]}', "cores", "projects.acme-widgets.download[0]", "team that is not there: 'cores'", "'core'"),
    Row(ACME, '{upload: ["team:core"]}', "{download: [core]}", "download: [core]", "projects.acme-widgets.download[0]", "names a team as a member: 'core'", "'team:core'"),
    Row(ACME, '{upload: ["team:core"]}', "{upload: [bob], download: [nobody]}", "nobody", "projects.acme-widgets.download[0]", "member that is not there: 'nobody'", "under `members`"),
    Row(ACME, '{upload: ["team:core"]}', "{download: bob}", "download: bob", "projects.acme-widgets.download", "must be a list", "["),
    Row(ACME, '{upload: ["team:core"]}', "{downloads: [], upload: []}", "downloads:", "projects.acme-widgets.downloads", "is no field here", "'download'"),
    Row(ACME, '{upload: ["team:core"]}', "{uploads: [], upload: []}", "uploads:", "projects.acme-widgets.uploads", "is no field here", "'upload'"),
    Row(ACME, "acme-*: {", "acme*: {", "acme*:", "projects.acme*", "only at the end of a prefix", "Correct"),
    Row(ACME, "acme-*: {", '"*": {', '"*":', "projects.*", "only at the end of a prefix", "Correct"),
    Row(ACME, "acme-*: {", "Acme.Widgets: {", "Acme.Widgets", 'projects."Acme.Widgets"', "means acme-widgets, as line 11 does", "Remove one"),
    Row(ACME, "acme-*: {", "gadgets: {", "gadgets:", "projects.gadgets", "holds gadgets, which index.yaml does not allot", "operator"),
    Row(GLOBEX, "publishers:", "projects: {initech: {upload: []}}\npublishers:", "projects: {initech", "projects.initech", "holds initech, which index.yaml does not allot", "operator"),
    # --- publishers
    Row(ACME, "    issuer: github\n", "", "widgets-release:", f"{RELEASE}.issuer", "is missing", "name of an issuer"),
    Row(ACME, "issuer: github", "issuer: githb", "githb", f"{RELEASE}.issuer", "names no issuer in index.yaml: 'githb'", "'github'"),
    Row(ACME, "issuer: github", "issuer: [github]", "issuer:", f"{RELEASE}.issuer", "must be text, and is a list", "issuer"),
    Row(ACME, "    workflow: release.yml\n", "", "widgets-release:", f"{RELEASE}.workflow", "is missing", "release.yml"),
    Row(ACME, "workflow: release.yml", "workflow: .github/workflows/release.yml", "workflow:", f"{RELEASE}.workflow", "not the right form", "name alone"),
    Row(ACME, "workflow: release.yml", 'workflow: ""', "workflow:", f"{RELEASE}.workflow", "must not be empty", "release.yml"),
    Row(ACME, "workflow: release.yml", f"workflow: {'a' * 500}.yml", "workflow:", f"{RELEASE}.workflow", "longer than 500", "release.yml"),
    Row(ACME, "workflow: release.yml", "workflow: release.yml\n    workflows: a.yml", "workflows:", f"{RELEASE}.workflows", "is no field here", "'workflow'"),
    Row(ACME, "repository: acme-corp/widgets", "repository: https://github.com/acme-corp/widgets", "repository:", f"{RELEASE}.repository", "not the right form", "owner/name"),
    Row(ACME, '    repository_id: "424242424"\n', "", "widgets-release:", RELEASE, "does not state repository_id,", "pin: first-use"),
    Row(ACME, '    repository_id: "424242424"\n    repository_owner_id: "65600975"\n', "", "widgets-release:", RELEASE, "does not state repository_id and repository_owner_id,", "pin: first-use"),
    Row(ACME, "issuer: github", "issuer: github\n    pin: first-use", "pin:", f"{RELEASE}.pin", "pins nothing", "Remove it"),
    Row(ACME, "issuer: github", "issuer: github\n    pin: always", "pin:", f"{RELEASE}.pin", "must be 'first-use', and is the text 'always'", "one of these"),
    Row(ACME, 'repository_id: "424242424"', "repository_id: 424242424", "repository_id:", f"{RELEASE}.repository_id", "must be text, and is a number (424242424)", '"424242424"'),
    Row(ACME, "environment: pypi", "environment: true", "environment:", f"{RELEASE}.environment", "must be text, and is a boolean (true)", '"true"'),
    Row(ACME, "environment: pypi", "environment: 2027-01-31", "environment:", f"{RELEASE}.environment", "must be text, and is a day (2027-01-31)", '"2027-01-31"'),
    Row(ACME, "environment: pypi", "environment: ~", "environment:", f"{RELEASE}.environment", "has no value", "remove the line"),
    Row(ACME, "environment: pypi", r'environment: "py\npi"', "environment:", f"{RELEASE}.environment", "line break", "one line"),
    Row(ACME, '["refs/tags/v*"]', '["refs/tags/v*", main]', "refs:", f"{RELEASE}.refs[1]", "'main' is no full ref", "Write 'refs/tags/...'"),
    Row(ACME, '["refs/tags/v*"]', '["refs/**"]', "refs:", f"{RELEASE}.refs[0]", "only wildcard", "Globs"),
    Row(ACME, '["refs/tags/v*"]', "[7]", "refs:", f"{RELEASE}.refs[0]", "must be text, and is a number (7)", '"7"'),
    Row(ACME, '["refs/tags/v*"]', "[]", "refs:", f"{RELEASE}.refs", "must not be empty", "Globs"),
    Row(ACME, "[push, release, workflow_dispatch]", "[push, pull_request_target]", "events:", f"{RELEASE}.events", "outsiders can cause pull_request_target", "Safe are push"),
    Row(ACME, "    projects: [acme-widgets]\n", "", "widgets-release:", RELEASE, "has neither `projects` nor `downloads`", "publish"),
    Row(ACME, "projects: [acme-widgets]", "downloads: []", "downloads: []", f"{RELEASE}.downloads", "must not be empty", "read"),
    Row(ACME, "projects: [acme-widgets]", "downloads: [acme-widgets, evil]", "evil", f"{RELEASE}.downloads[1]", "reads evil, which is not the organization's own", "namespace"),
    Row(ACME, "projects: [acme-widgets]", "projects: [acme-widgets]\n    downloads: ['globex-*']", "globex-", f"{RELEASE}.downloads[0]", "reads globex-*, which is not", "namespace"),
    Row(ACME, "projects: [acme-widgets]", "downloads: ['acme*']", "acme*", f"{RELEASE}.downloads[0]", "only at the end of a prefix", "read"),
    Row(ACME, "projects: [acme-widgets]", "download: [acme-widgets]\n    projects: [acme-widgets]", "download:", f"{RELEASE}.download", "is no field here", "'downloads'"),
    Row(ACME, "projects: [acme-widgets]", "projects: []", "projects: []", f"{RELEASE}.projects", "must not be empty", "publish"),
    Row(ACME, "projects: [acme-widgets]", "projects: [acme-widgets, evil]", "evil", f"{RELEASE}.projects[1]", "publishes evil, which is not the organization's own", "namespace"),
    Row(ACME, "projects: [acme-widgets]", "projects: ['acmeevil-*']", "acmeevil", f"{RELEASE}.projects[0]", "publishes acmeevil-*", "namespace"),
    Row(ACME, "projects: [acme-widgets]", "projects: ['acme*']", "acme*", f"{RELEASE}.projects[0]", "only at the end of a prefix", "publish"),
    Row(ACME, "projects: [acme-widgets]", "projects: [7]", "projects: [7]", f"{RELEASE}.projects[0]", "must be text, and is a number (7)", '"7"'),
    Row(ACME, "projects: [acme-widgets]", "projects: [acme-widgets]\n    until: tomorrow", "until: tomorrow", f"{RELEASE}.until", "day of the calendar", "2027-01-31"),
    Row(ACME, "  widgets-release:\n", "  Widgets_Release:\n", "Widgets_Release", "publishers.Widgets_Release", "name that is none here", "lower-case"),
    Row(GLOBEX, "issuer: gitlab", "issuer: gitlab-acme", "gitlab-acme", "publishers.engine-release.issuer", "'globex' may not bind to", "operator"),
    Row(GLOBEX, "project_path: globex/engine", "repository: globex/engine\n    project_path: globex/engine", "repository:", "publishers.engine-release.repository", "is no field here", "project_path"),
    Row(GLOBEX, "project_path: globex/engine", "project_path: engine", "project_path:", "publishers.engine-release.project_path", "not the right form", "all subgroups"),
    # --- YAML itself
    Row(ACME, "  carol: {role", "  alice: {role", "billing-manager", "members.alice", "stands twice; first on line 4", "Remove one"),
    Row(ACME, "environment: pypi", "workflow: other.yml", "other.yml", f"{RELEASE}.workflow", "stands twice; first on line 19", "Remove one"),
    Row(ACME, "  carol: {role", "  no: {role", "no: {", "members.no", "not all readers of YAML", '"no"'),
    Row(ACME, "  carol: {role", "  7: {role", "7: {", "members.7", "not all readers of YAML", '"7"'),
    Row(ACME, "  carol: {role", "  true: {role", "true: {role: bill", "members.true", "not all readers of YAML", '"true"'),
    Row(ACME, "  carol: {role", "  2027-01-31: {role", "2027-01-31: {", "members.2027-01-31", "not all readers of YAML", '"2027-01-31"'),
    Row(ACME, "  bob: {role", "  ? [bob]\n  : {role", "? [bob]", "members", "key that is not text", "a name"),
    Row(ACME, "  bob: {role", "  ? &x bob\n  : {role", "? &x", "members.bob", "anchor or a tag on its name", "Remove"),
    Row(ACME, "  bob: {role", f"  {'b' * 201}: {{role", "b" * 201, "members", "longer than 200", "a name"),
    Row(ACME, "{role: owner, github", "{<<: {role: owner}, role: owner, github", "<<", "members.alice", "merge key", "themselves"),
    Row(ACME, "role: owner", "role: &role owner", "&role", "members.alice.role", "has an anchor (&role)", "Remove"),
    Row(ACME, "role: owner", "role: !!str owner", "!!str", "members.alice.role", "has a tag", "in quotes"),
    Row(ACME, "role: owner", "role: !!python/name:os.system owner", "!!python", "members.alice.role", "has a tag", "in quotes"),
    Row(ACME, "core: [alice, bob]", "core: [*team]", "*team", "teams.core[0]", "is an alias (*team)", "the value itself"),
    Row(ACME, "organization: acme\n", "%YAML 1.1\n---\norganization: acme\n", "%YAML", "", "has a YAML directive", "%"),
    Row(ACME, "organization: acme\n", "\torganization: acme\n", "\torg", "", "has a tab", "spaces"),
    Row(ACME, "teams:\n", "teams: # \u202e\n", "teams:", "", "not seen: '\\u202e'", "Remove it"),
    Row(ACME, "organization: acme\n", "\ufefforganization: acme\n", "organization:", "", "not seen: '\\ufeff'", "Remove it"),
    Row(ACME, "teams:\n", "teams:\x00\n", "teams:", "", "not seen: '\\x00'", "Remove it"),
    Row(ACME, "teams:\n", "teams:\r  \n", "teams:", "", "not seen: '\\r'", "Remove it"),
    Row(ACME, "  core: [alice, bob]", "  core: [alice, bob", "projects:\n", "", "is not YAML", "quotes"),
    Row(ACME, "  core: [alice, bob]", "  core: x: y", "core: x", "", "is not YAML", "indentation"),
    Row(ACME, "    projects: [acme-widgets]\n", "    projects: [acme-widgets]\n---\na: b\n", "---", "", "second document", "one document"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.file.split('/')[-1]}-{row.path}-{row.what}"[:90])
def test_a_mistake_is_told_with_its_place_and_its_remedy(tmp_path: Path, row: Row) -> None:
    """One mistake in, one error out: none hides it, and none follows from it."""
    files = changed(row.file, row.old, row.new)
    with pytest.raises(PolicyErrors) as caught:
        load(write(tmp_path, files))
    (error,) = caught.value.errors
    line = line_of(files[row.file], row.at) if row.at else 1
    assert (error.file, error.line, error.path) == (row.file, line, row.path)
    assert row.what in error.what
    assert row.remedy in error.remedy
    assert error.remedy
    assert str(caught.value) == f"{tmp_path}/{error}"


def test_the_example_has_no_mistake(tmp_path: Path) -> None:
    """Or the rows above would show nothing."""
    assert set(load(write(tmp_path, FILES)).organizations) == {"acme", "globex"}

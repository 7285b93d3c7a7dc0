"""What loads and is weak: bindings that are wide, and declarations that lead nowhere.

A weakness is no mistake: the policies are in force. Each kind has a stable code and one paragraph in
`docs/reference/warnings.md`, which is generated from `WEAKNESSES`. Only files are asked, and the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final, Self

from broker.patterns import Projects, RefGlob, intersect
from broker.policy.errors import Findings, Place, shown, written
from broker.policy.folder import ORGANIZATIONS
from broker.policy.holdings import entries, read_patterns
from broker.policy.matching import rights
from broker.policy.model import Member, Organization, Policies, Publisher, Scope
from broker.policy.sources import Source

SOON_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """One kind of weakness."""

    code: str
    about: str
    """What it is, and why it matters."""
    remedy: str


NO_ENVIRONMENT: Final = Weakness(
    code="no-environment",
    about="A publisher names no `environment`, and its provider has them. Then every job of the workflow can publish, "
    "and no reviewer is asked. One that only reads need not name any.",
    remedy="Add `environment`, and protect it at the provider.",
)
EVERY_REF: Final = Weakness(
    code="every-ref",
    about="A publisher takes every branch: it has no `refs`, or one like `refs/heads/*`, and does not ask for "
    "`ref_protected: true`. Then whoever can push a branch can publish what no one has reviewed. One that only "
    "reads may take them all: who may read is not for reviewers to say.",
    remedy='Add `refs`, such as ["refs/tags/v*"], or `ref_protected: true`.',
)
OWNER_ALONE: Final = Weakness(
    code="owner-alone",
    about="An organization has a single owner among its people. When they are away or their account is lost, nobody "
    "else has the right to all its projects.",
    remedy="Make a second member an owner.",
)
MEMBER_WITHOUT_ID: Final = Weakness(
    code="member-without-id",
    about="A member has the right to what a publisher publishes, or to what one reads that publishes nothing, and no "
    "id at its issuer: their runs there are refused. Of people, ids are expected where a human can start the run; of a "
    "machine, at one of the issuers.",
    remedy="Add their immutable id at that issuer.",
)
PUBLISHER_FOR_NOBODY: Final = Weakness(
    code="publisher-for-nobody",
    about="No member can satisfy a publisher: none who may upload to its projects (where it publishes nothing: who may "
    "read what it reads), at this moment, has an id at its issuer and, where only runs without a human match (a "
    "service account, a schedule), is marked as a machine. Every run is refused.",
    remedy="Give a member the right to its projects and an id at its issuer, or remove the publisher.",
)
PROJECT_FOR_NOBODY: Final = Weakness(
    code="project-for-nobody",
    about="Nobody can upload to a project that says who may: no publisher publishes it, or no member who may upload to "
    "it can start a run of one that does.",
    remedy="Add a publisher with this project, or a member to its `upload`; or remove the project.",
)
DOWNLOAD_FOR_NOBODY: Final = Weakness(
    code="download-for-nobody",
    about="A right to read that nobody can use. Of a project's `download`: no publisher publishes or reads the "
    "project, or nobody who is named there can start a run of one that does. Of a publisher's `downloads`: nobody who "
    "can start a run of it may read them.",
    remedy="Name the project in the `downloads` of a publisher, or who starts its runs in the project's `download`; or "
    "remove it.",
)
EXPIRES_SOON: Final = Weakness(
    code="expires-soon",
    about=f"The `until` of a member or a publisher is within {SOON_DAYS} days.",
    remedy="Write a later day, if it is to go on.",
)
EXPIRED: Final = Weakness(
    code="expired",
    about="The `until` of a member or a publisher is past: it is declared, and refused.",
    remedy="Remove it, or write a later day.",
)

UNKNOWN_ORGANIZATION: Final = Weakness(
    code="unknown-organization",
    about="The `organizations` of a registry name one that the policies do not have. Nobody uses the registry by that "
    "name; where it is misspelt, those whom it should name are refused. Told where `--registries` names the file; "
    "`broker serve` tells it in its log.",
    remedy="Correct the name, or add the organization's file.",
)

WEAKNESSES: Final = (
    NO_ENVIRONMENT,
    EVERY_REF,
    OWNER_ALONE,
    MEMBER_WITHOUT_ID,
    PUBLISHER_FOR_NOBODY,
    PROJECT_FOR_NOBODY,
    DOWNLOAD_FOR_NOBODY,
    EXPIRES_SOON,
    EXPIRED,
    UNKNOWN_ORGANIZATION,
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PolicyWarning:
    """One weakness in one file."""

    file: str
    line: int
    path: str
    code: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """'organizations/acme.yaml:18: publishers.widgets-release: names no environment (no-environment)'."""
        return f"{self.file}:{self.line}: {self.path}: {self.what} ({self.code})"


def find_warnings(policies: Policies, sources: Mapping[str, Source], today: date) -> tuple[PolicyWarning, ...]:
    """Every weakness of policies that load, by file and line.

    Args:
        sources: The files that they were made of, by name; for lines, and for what is declared there.
        today: In UTC.
    """
    found: list[PolicyWarning] = []
    for name, organization in policies.organizations.items():
        file = f"{ORGANIZATIONS}/{name}.yaml"
        source = sources.get(file, Source(file=file))  # it may have gone since the policies were loaded
        found += _Organization.of(organization, source, today).weaknesses()
    return tuple(sorted(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Organization:
    """One organization, as it is today."""

    members: list[Member]
    """Those whose membership counts."""
    publishers: list[Publisher]
    """Those whose time is not over."""
    uploads: list[tuple[Projects, Place]]
    """The projects of which its file says who may upload."""
    downloads: list[tuple[Projects, Place]]
    """Those of which it says who else may read them."""
    reads: dict[str, list[tuple[Projects, Place]]]
    """Publisher -> what its `downloads` name."""
    ends: list[tuple[date, Place]]
    findings: Findings
    today: date

    @classmethod
    def of(cls, organization: Organization, source: Source, today: date) -> Self:
        members, publishers = organization.members, organization.publishers
        findings = source.findings()
        stated = entries(source.values, "projects")
        declared = [
            (projects, place, stated.get(str(place[-1]), {}))
            for projects, place in read_patterns(source.values, "projects", (), findings)
        ]
        ends: list[tuple[date | None, Place]] = [
            *((one.until, ("members", name)) for name, one in members.items()),
            *((one.until, ("publishers", name)) for name, one in publishers.items()),
        ]
        return cls(
            members=[one for one in members.values() if not one.suspended and not _is_over(one.until, today)],
            publishers=[one for one in publishers.values() if not _is_over(one.until, today)],
            uploads=[(projects, place) for projects, place, fields in declared if "upload" in fields],
            downloads=[
                (projects, (*place, "download")) for projects, place, fields in declared if "download" in fields
            ],
            reads={
                name: read_patterns(fields, "downloads", ("publishers", name), findings)
                for name, fields in entries(source.values, "publishers").items()
            },
            ends=[(until, (*place, "until")) for until, place in ends if until is not None],
            findings=findings,
            today=today,
        )

    def weaknesses(self) -> Iterator[PolicyWarning]:
        for publisher in self.publishers:
            if publisher.projects:
                yield from self._wide(publisher)
            yield from self._publisher_for_nobody(publisher)
        for member in self.members:
            yield from self._without_id(member)
        yield from self._owner_alone()
        for projects, place in self.uploads:
            yield from self._project_for_nobody(projects, place)
        for projects, place in self.downloads:
            yield from self._download_for_nobody(projects, place)
        for until, place in self.ends:
            yield from self._ending(until, place)

    def _warn(self, weakness: Weakness, place: Place, what: str) -> PolicyWarning:
        return PolicyWarning(
            file=self.findings.file,
            line=self.findings.line_of(place),
            path=written(place),
            code=weakness.code,
            what=what,
            remedy=weakness.remedy,
        )

    def _wide(self, publisher: Publisher) -> Iterator[PolicyWarning]:
        trust, place = publisher.trust, ("publishers", publisher.name)
        fields = type(trust).model_fields
        if "environment" in fields and getattr(trust, "environment", None) is None:
            yield self._warn(NO_ENVIRONMENT, place, "names no environment")
        if "refs" not in fields or getattr(trust, "ref_protected", None) is True:
            return
        refs: tuple[RefGlob, ...] | None = getattr(trust, "refs", None)
        if refs is None:
            yield self._warn(EVERY_REF, place, "publishes from every ref")
            return
        for at, ref in enumerate(refs):
            if _takes_every_branch(ref):
                yield self._warn(EVERY_REF, (*place, "refs", at), f"publishes from every branch: {ref}")

    def _publisher_for_nobody(self, publisher: Publisher) -> Iterator[PolicyWarning]:
        scope = _purpose(publisher)
        if any(_can_start(one, publisher, scope) for one in self.members):
            for projects, place in self.reads.get(publisher.name, ()):
                if not any(_can_use(one, publisher, "read", projects) for one in self.members):
                    what = f"reads {projects}, which no member who can start its runs may read"
                    yield self._warn(DOWNLOAD_FOR_NOBODY, place, what)
            return
        trust = publisher.trust
        able = [member for member in self.members if rights(member, publisher, scope)]
        known = [member.ids[trust.issuer] for member in able if trust.issuer in member.ids]
        only = trust.only_actor()
        if not able:
            what = "publishes what no member may upload to" if scope == "upload" else "reads what no member may read"
        elif only is not None and only not in known:
            what = f"is for the account {only} alone, which is no member with a right to its projects"
        elif not known:
            what = (
                f"asks for a member with an id at {shown(trust.issuer)}, and none with a right to its projects has one"
            )
        else:
            what = "matches only runs without a human, and no member with a right to its projects is a machine there"
        yield self._warn(PUBLISHER_FOR_NOBODY, ("publishers", publisher.name), what)

    def _project_for_nobody(self, projects: Projects, place: Place) -> Iterator[PolicyWarning]:
        publishing = [one for one in self.publishers if intersect((projects,), one.projects)]
        if not publishing:
            yield self._warn(PROJECT_FOR_NOBODY, place, "is published by no publisher")
        elif not any(_can_use(member, one, "upload", projects) for one in publishing for member in self.members):
            what = "may be uploaded to by no member who can start a run that publishes it"
            yield self._warn(PROJECT_FOR_NOBODY, place, what)

    def _download_for_nobody(self, projects: Projects, place: Place) -> Iterator[PolicyWarning]:
        reading = [one for one in self.publishers if intersect((projects,), one.projects | one.downloads)]
        named = [member for member in self.members if projects in member.downloads]
        if not reading:
            yield self._warn(DOWNLOAD_FOR_NOBODY, place, "is of what no publisher publishes or reads")
        elif not any(_can_use(member, one, "read", projects) for one in reading for member in named):
            what = "names nobody who can start a run of a publisher that reads it"
            yield self._warn(DOWNLOAD_FOR_NOBODY, place, what)

    def _without_id(self, member: Member) -> Iterator[PolicyWarning]:
        useful = [one for one in self.publishers if rights(member, one, _purpose(one))]
        needed = {one.trust.issuer for one in useful if member.machine or not one.trust.machines_only()}
        missing = sorted(needed - member.ids.keys())
        if missing and not (member.machine and needed & member.ids.keys()):
            issuers = (" or " if member.machine else " and ").join(map(shown, missing))
            what = f"has no id at {issuers}, where publishers of their projects are"
            yield self._warn(MEMBER_WITHOUT_ID, ("members", member.name), what)

    def _owner_alone(self) -> Iterator[PolicyWarning]:
        owners = [one for one in self.members if one.role == "owner" and not one.machine]
        if len(owners) == 1:
            yield self._warn(OWNER_ALONE, ("members", owners[0].name), "is the only owner")

    def _ending(self, until: date, place: Place) -> Iterator[PolicyWarning]:
        days = (until - self.today).days
        if days < 0:
            yield self._warn(EXPIRED, place, f"was declared until {until}, which is past")
        elif days <= SOON_DAYS:
            when = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
            yield self._warn(EXPIRES_SOON, place, f"ends {when}, on {until}")


def _is_over(until: date | None, today: date) -> bool:
    return until is not None and until < today


def _purpose(publisher: Publisher) -> Scope:
    """What its runs are for: to publish, unless it only reads."""
    return "upload" if publisher.projects else "read"


def _can_use(member: Member, publisher: Publisher, scope: Scope, projects: Projects) -> bool:
    """Whether a run of this member can be granted something of these."""
    return _can_start(member, publisher, scope) and bool(intersect((projects,), rights(member, publisher, scope)))


def _can_start(member: Member, publisher: Publisher, scope: Scope) -> bool:
    """Whether both gates can let a run of this member pass."""
    trust = publisher.trust
    return (
        trust.issuer in member.ids
        and trust.only_actor() in {None, member.ids[trust.issuer]}
        and (member.machine or not trust.machines_only())
        and bool(rights(member, publisher, scope))
    )


def _takes_every_branch(ref: RefGlob) -> bool:
    """Of some depth: 'refs/heads/*', 'refs/*/*', 'refs/heads/*/*'. Only `*` fits a `?`, which none may have."""
    depth = ref.text.count("/") - 1
    return depth > 0 and ref.matches("refs/heads" + "/?" * depth)

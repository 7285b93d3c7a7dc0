"""What two policies set otherwise that decides about no run by itself: lifetimes, issuers, and whose pins are open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker.policy.model import Issuer, Policies


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting that differs."""

    path: str
    """'index.yaml: lifetime.default'."""
    before: str
    """Empty where it was not there."""
    after: str
    wider: bool
    """Whether the new value allows more."""


def settings_between(old: Policies, new: Policies) -> Iterator[Setting]:
    """The settings that differ, those of the index first.

    Issuers are compared by their URLs, which is how tokens name them; what is set for one that is off counts for
    nothing.
    """
    yield from _lifetimes(old, new)
    one, other = (
        {issuer.url: issuer for issuer in policies.issuers.values() if not issuer.disabled} for policies in (old, new)
    )
    for url in sorted({*one, *other}):
        yield from _of_issuer(one.get(url), other.get(url))
    yield from _open_pins(old, new)


def _lifetimes(old: Policies, new: Policies) -> Iterator[Setting]:
    """How long upload tokens live: for all, and for each organization where that is not what holds for all."""
    common = sorted(old.organizations.keys() & new.organizations.keys())
    lives = {name: (_lifetime(old, name), _lifetime(new, name)) for name in common}
    default = (old.default_lifetime_seconds, new.default_lifetime_seconds)
    if default[0] != default[1]:
        longer = any(after > before for before, after in lives.values())
        yield _lifetime_setting("index.yaml: lifetime.default", *default, wider=longer)
    # It bounds what others set, and gives nobody anything by itself.
    longest = (old.longest_lifetime_seconds, new.longest_lifetime_seconds)
    if longest[0] != longest[1]:
        yield _lifetime_setting("index.yaml: lifetime.longest", *longest, wider=False)
    for name, (before, after) in lives.items():
        if before != after and (before, after) != default:
            yield _lifetime_setting(f"{name}: lifetime of upload tokens", before, after, wider=after > before)


def _lifetime(policies: Policies, organization: str) -> int:
    return min(policies.default_lifetime_seconds, policies.organizations[organization].lifetime_seconds)


def _lifetime_setting(path: str, before: int, after: int, *, wider: bool) -> Setting:
    return Setting(path=path, before=f"{before} s", after=f"{after} s", wider=wider)


def _of_issuer(old: Issuer | None, new: Issuer | None) -> Iterator[Setting]:
    known = new or old
    path = f"index.yaml: issuers.{known.name if known else ''}"
    if old is None or new is None:
        before, after = (f"trusted ({one.provider.name}, {one.url})" if one else "" for one in (old, new))
        # Alone, it lets nobody publish: publishers and members that are bound to it are changes of their own.
        yield Setting(path=path, before=before, after=after, wider=False)
        return
    for name, before, after, wider in (
        ("name", old.name, new.name, False),
        ("provider", old.provider.name, new.provider.name, False),
        ("algorithms", *_lists(old.algorithms, new.algorithms), not {*new.algorithms} <= {*old.algorithms}),
        (
            "longest_token",
            f"{old.longest_token_seconds} s",
            f"{new.longest_token_seconds} s",
            new.longest_token_seconds > old.longest_token_seconds,
        ),
        ("replay", old.replay, new.replay, new.replay == "same-token"),
    ):
        if before != after:
            yield Setting(path=f"{path}.{name}", before=before, after=after, wider=wider)


def _lists(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, str]:
    return ", ".join(sorted(old)), ", ".join(sorted(new))


def _open_pins(old: Policies, new: Policies) -> Iterator[Setting]:
    """Publishers that will pin whoever comes first: what a first use recorded is kept by the publisher's name."""
    before, after = (
        {
            one.id: one.trust.missing_ids()
            for organization in policies.organizations.values()
            for one in organization.publishers.values()
            if one.trust.pin is not None
        }
        for policies in (old, new)
    )
    for name, fields in after.items():
        if opened := [field for field in fields if field not in before.get(name, ())]:
            path = f"organizations/{name.replace('/', '.yaml: publishers.')}.pin"
            yield Setting(path=path, before="", after=f"the first use decides {', '.join(opened)}", wider=True)

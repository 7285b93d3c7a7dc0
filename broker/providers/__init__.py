"""The kinds of issuers the broker knows. A new one is a file here, and its name in this list."""

from __future__ import annotations

from broker.providers import activestate, buildkite, circleci, forgejo, generic, github, gitlab, google
from broker.providers.base import Identity, Kind, Mismatch, Provider, Rule, Trust

PROVIDERS: dict[str, Provider] = {
    module.PROVIDER.name: module.PROVIDER
    for module in (github, gitlab, google, activestate, buildkite, circleci, forgejo, generic)
}

__all__ = ["PROVIDERS", "Identity", "Kind", "Mismatch", "Provider", "Rule", "Trust"]

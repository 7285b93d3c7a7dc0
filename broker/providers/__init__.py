"""The kinds of issuers the broker knows. A new one is a file here, and its name in this list."""

from __future__ import annotations

from broker.providers import github, gitlab, google
from broker.providers.base import Identity, Kind, Mismatch, Provider, Rule, Trust

PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (github.PROVIDER, gitlab.PROVIDER, google.PROVIDER)
}

__all__ = ["PROVIDERS", "Identity", "Kind", "Mismatch", "Provider", "Rule", "Trust"]

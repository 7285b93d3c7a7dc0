"""Which routes are served at which host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.routing import BaseRoute, Host, Router
from starlette.types import ASGIApp

from broker.web import downloads, forward, oauth, publishing, uploads
from broker.web.callers import Callers
from broker.web.index import Index


def routes(indexes: Sequence[Index], callers: Callers) -> list[BaseRoute]:
    """The routes of each host's indexes. The first host's are served to whoever asks for none of them by name."""
    hosts: dict[str, list[Index]] = {}
    for index in indexes:
        hosts.setdefault(urlsplit(index.url).hostname or "", []).append(index)
    first, *others = hosts.values()
    named = [
        Host(urlsplit(several[0].url).hostname or "", Router(_routes(several, callers), redirect_slashes=False))
        for several in others
    ]
    return [*named, *_routes(first, callers)]


def asked_most(indexes: Sequence[Index]) -> Mapping[str, ASGIApp]:
    """What is posted to most, by its path: exchanges. Of several hosts, each has its own, behind its name."""
    hosts = {urlsplit(index.url).hostname for index in indexes}
    return publishing.mints(indexes) if len(hosts) == 1 else {}


def _routes(indexes: Sequence[Index], callers: Callers) -> list[BaseRoute]:
    return [
        *publishing.routes(indexes),
        *oauth.routes(indexes, callers),
        *(
            route
            for index in indexes
            for route in (*uploads.routes(index), *downloads.routes(index), *forward.routes(index))
        ),
    ]

"""Writes pages of a simple index: PEP 691 JSON and PEP 503 HTML of the same projects and files.

Nothing of the registry's own page passes but what was read from it, escaped, with links of our own: whatever it puts
into its HTML reaches no browser, and no link leads past the broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from html import escape
from typing import Any

from broker.gateway.index import Listed


def projects_json(names: Iterable[str]) -> dict[str, Any]:
    """The list of projects."""
    return {"meta": {"api-version": "1.0"}, "projects": [{"name": name} for name in names]}


def projects_html(names: Iterable[str]) -> str:
    """The same as a page. Its links go from the list's URL, which ends in a slash."""
    return _page("Simple index", (_link(f"{name}/", name) for name in names))


def files_json(project: str, files: Iterable[Listed], link: Callable[[str], str]) -> dict[str, Any]:
    """The files of a project.

    Args:
        link: A filename's URL.
    """
    return {
        "meta": {"api-version": "1.0"},
        "name": project,
        "files": [{**_file(one), "filename": one.filename, "url": link(one.filename)} for one in files],
    }


def _file(one: Listed) -> dict[str, Any]:
    told: dict[str, Any] = {"hashes": {"sha256": one.sha256} if one.sha256 else {}}
    if one.requires_python:
        told["requires-python"] = one.requires_python
    if one.yanked is not None:
        told["yanked"] = one.yanked or True
    if one.metadata_sha256 is not None:
        # Under both names: PEP 714 says which clients know which.
        told["core-metadata"] = {"sha256": one.metadata_sha256} if one.metadata_sha256 else True
        told["dist-info-metadata"] = told["core-metadata"]
    if one.size_bytes is not None:
        told["size"] = one.size_bytes
    if one.uploaded_at is not None:
        told["upload-time"] = datetime.fromtimestamp(one.uploaded_at, UTC).isoformat().replace("+00:00", "Z")
    return told


def files_html(project: str, files: Iterable[Listed], link: Callable[[str], str]) -> str:
    """The same as a page."""
    return _page(f"Links for {project}", (_anchor(one, link) for one in files))


def _anchor(one: Listed, link: Callable[[str], str]) -> str:
    told = {}
    if one.requires_python:
        told["data-requires-python"] = one.requires_python
    if one.yanked is not None:
        told["data-yanked"] = one.yanked
    if one.metadata_sha256 is not None:
        told["data-core-metadata"] = f"sha256={one.metadata_sha256}" if one.metadata_sha256 else "true"
        told["data-dist-info-metadata"] = told["data-core-metadata"]
    fragment = f"#sha256={one.sha256}" if one.sha256 else ""
    return _link(link(one.filename) + fragment, one.filename, **told)


def _link(target: str, text: str, **attributes: str) -> str:
    told = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f'<a href="{escape(target)}"{told}>{escape(text)}</a><br>'


def _page(title: str, links: Iterator[str]) -> str:
    head = f'<meta name="pypi:repository-version" content="1.0"><title>{escape(title)}</title>'
    return "\n".join(["<!DOCTYPE html>", f"<html><head>{head}</head><body>", *links, "</body></html>", ""])

"""A folder as it is in a git revision, written into a folder of our own.

Blobs are taken as git holds them: `git archive` and `git checkout` would let attributes in the very tree leave files
out or rewrite them, and so hide a policy from those who review it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_LINK: Final = "120000"


class RevisionError(Exception):
    """The folder cannot be had; the message says why, without a full stop."""


def extracted(revision: str, folder: str, into: Path) -> Path:
    """Writes the files of a folder in a revision.

    Args:
        revision: A branch, a tag, a commit; whatever names one.
        folder: Relative to the current folder, or absolute, in a repository's working tree.
        into: A folder that is there and empty.

    Raises:
        RevisionError: there is no git, no repository, no such revision or no such folder in it.
    """
    if revision.startswith("-") or not revision:
        raise RevisionError(f"{revision!a} is no revision")
    base = next(one for one in (Path(folder), *Path(folder).parents, Path()) if one.is_dir())
    prefix = _git(base, "rev-parse", "--show-prefix").decode(errors="surrogateescape").rstrip("\n")
    path = PurePosixPath(prefix, Path(folder).relative_to(base).as_posix()).as_posix().removeprefix(".")
    named = f"{revision}^{{commit}}"
    commit = _git(base, "rev-parse", "--verify", "--quiet", named, wrong=f"{revision!a} is no revision here")
    tree = f"{commit.decode().strip()}:{path}"
    listing = _git(base, "ls-tree", "-r", "-z", "--full-tree", tree, wrong=f"{revision!a} has no folder {path!a}")
    # Links last, so that nothing is written through one.
    files = sorted(_files(listing), key=lambda one: one[0] == _LINK)
    blobs = _blobs(base, [blob for _, blob, _ in files])
    for (mode, _, name), content in zip(files, blobs, strict=True):
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == _LINK:
            target.symlink_to(content.decode(errors="surrogateescape"))
        else:
            target.write_bytes(content)
    return into


def _files(listing: bytes) -> Iterator[tuple[str, str, str]]:
    """Mode, id and path of each blob; what would lead out of the folder is no path that git itself would make."""
    for line in listing.split(b"\0")[:-1]:
        head, _, name = line.partition(b"\t")
        mode, kind, blob = head.decode().split()
        path = PurePosixPath(name.decode(errors="surrogateescape"))
        if kind == "blob" and not path.is_absolute() and ".." not in path.parts:
            yield mode, blob, str(path)


def _blobs(folder: Path, ids: list[str]) -> Iterator[bytes]:
    """Their contents: for each, git answers a line that ends in its size, the content, and a line break."""
    told = _git(folder, "cat-file", "--batch", told="".join(f"{one}\n" for one in ids).encode())
    at = 0
    for _ in ids:
        line = told.index(b"\n", at)
        start, size = line + 1, int(told[at:line].rpartition(b" ")[2])
        at = start + size + 1
        yield told[start : start + size]


def _git(folder: Path, *arguments: str, wrong: str = "", told: bytes = b"") -> bytes:
    git = shutil.which("git")
    if git is None:
        raise RevisionError("there is no git here: compare two folders instead")
    command = [git, "-C", str(folder), *arguments]
    done = subprocess.run(command, input=told, capture_output=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise RevisionError(wrong or f"git says: {done.stderr.decode(errors='replace').strip().rstrip('.')}")
    return done.stdout

"""`broker keys`: the broker's own signing keys."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.app import read_signing_keys, signing_key_files
from broker.minting import SigningKey
from broker.settings import SettingsError


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser("keys", help="make and list signing keys", description="The broker's own signing keys.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Makes an Ed25519 key: a PEM file that only its owner may read. Nothing is ever overwritten.",
    )
    new.add_argument("path", type=Path, help="the new file (*.pem), or a folder: the file is then named for the moment")
    new.set_defaults(run=run_new)
    listing = actions.add_parser("list", help="list keys", description="Lists the keys' ids; the last one signs.")
    listing.add_argument("path", type=Path, help="a PEM file or a folder of them")
    listing.set_defaults(run=run_list)


def run_new(args: argparse.Namespace) -> int:
    """Writes a new key."""
    path: Path = args.path
    if path.suffix != ".pem":
        path = path / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.pem"
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created with its final rights, and only if it is not there: a key that signs must not be lost.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError as error:
        print(
            f"broker keys: {path} was not written ({error.strerror}). Name a folder, or a "
            "file that is not there yet and ends in .pem.",
            file=sys.stderr,
        )
        return 1
    print(f"{path}: {SigningKey.parse(pem).id}")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Prints the keys' ids and files."""
    try:
        files = signing_key_files(args.path)
        keys = read_signing_keys(args.path)
    except SettingsError as error:
        print(f"broker keys: {error}", file=sys.stderr)
        return 1
    for file, key in zip(files, keys.keys, strict=True):
        print(f"{key.id}  {file}{'  signs' if key is keys.signing else ''}")
    return 0

"""`broker playground`: everything on one laptop, no cloud."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import time
import types
from pathlib import Path

from broker.playground.demo import Demo, SurpriseError
from broker.playground.packages import Uv, UvError
from broker.playground.page import Page, audit_line
from broker.playground.processes import ServerError
from broker.playground.session import FolderError, Playground

_POLL_SECONDS = 0.5


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = verbs.add_parser(
        "playground",
        help="try everything on this machine",
        description="Starts a CI that signs, a real registry, and the broker between them over TLS, on this machine "
        "alone. Runs until Ctrl-C; nothing is left running, and nothing left behind but a folder that you name.",
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="a new or empty folder to keep everything in")
    parser.add_argument("--port", type=int, default=0, help="where the broker listens (default: any that is free)")
    parser.add_argument("--demo", action="store_true", help="publish, show three refusals and the audit, and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Opens the playground; 0 is that all went as it must."""
    # As Ctrl-C does, so that contexts are left and servers end.
    signal.signal(signal.SIGTERM, _interrupt)
    page = Page()
    page.line(page.styled("The broker's playground: a CI, a registry, and the broker between them.", "bold"))
    try:
        with Playground(args.dir, port=args.port, say=page.step) as playground:
            if args.demo:
                return _demo(playground, page)
            _explain(playground, page)
            _watch(playground, page)
            return 0
    except (FolderError, ServerError, SurpriseError, UvError) as error:
        print(f"broker playground: {error}", file=sys.stderr)
    return 1


def _demo(playground: Playground, page: Page) -> int:
    Demo(playground=playground, page=page, uv=Uv.find(playground.folder / "home")).run()
    page.heading("All went as it must. To try it by hand: make playground")
    return 0


def _explain(playground: Playground, page: Page) -> None:
    folder = playground.folder
    page.heading("Ready. What is where:")
    for name, where in (
        ("broker", f"{playground.upload_url}   log: {folder / 'broker.log'}"),
        ("registry", f"{playground.registry.url}/simple/   files: {playground.registry.packages}"),
        ("policies", f"{playground.policies}   (edit them: read again at once)"),
        ("state", playground.state_url),
    ):
        page.line(f"  {name:<9} {where}")
    uv = "uv" if shutil.which("uv") else Path(sys.executable).with_name("uv")
    page.heading("Publish by hand, in another shell, from a project named acme-widgets:")
    page.line(f"  . {folder / 'environment.sh'}")
    page.line(f"  {uv} build && {uv} publish --trusted-publishing always")
    page.heading("Other runs to be, instead of the first line:")
    for path in sorted((folder / "runs").iterdir()):
        page.line(f"  . {path}")
    page.heading("Attempts, as they come. Ctrl-C ends everything.")


def _watch(playground: Playground, page: Page) -> None:
    """Shows attempts until Ctrl-C, which is how a playground ends."""
    seen: set[str] = set()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for record in [one for one in playground.records(most=100) if one["attempt"] not in seen]:
                seen.add(record["attempt"])
                page.line(audit_line(record))
            time.sleep(_POLL_SECONDS)


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt

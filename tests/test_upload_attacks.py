"""What a hostile CI job with a good token tries at the gateway: a real broker, real registries, and raw sockets.

The rows are what was measured to pass a naive proxy, with the registry's own credential. What the registry has is
compared before and after each: pypiserver's folder, devpi's index.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from broker.playground.ci import FakeCI
from broker.playground.ci_server import serving_ci
from tests.devpi import Devpi
from tests.gateway.uploads import (
    BOUNDARY,
    CONTENT_TYPE,
    WHEEL,
    Fields,
    fields_of,
    join,
    pack_sdist,
    pack_wheel,
    part,
    parts_of,
    raw_part,
    upload,
)
from tests.registries import Registry, pypi_server
from tests.servers import Served, broker
from tests.web.test_upload_refusals import basic

FILE = pack_wheel()
VICTIM = "victim-1.0-py3-none-any.whl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A broker in front of a registry, and a token of alice's run for acme-widgets and acme-gadgets."""

    served: Served
    registry: Registry
    ci: FakeCI

    def token(self) -> str:
        """A fresh upload token."""
        answer = httpx.post(f"{self.served.url}/_/oidc/mint-token", json={"token": self.ci.token()}, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def post(self, body: bytes, path: str = "/legacy/", **headers: str) -> httpx.Response:
        """Uploads a body as a well-behaved client would."""
        told = {"Authorization": basic(self.token()), "Content-Type": CONTENT_TYPE} | headers
        return httpx.post(self.served.url + path, content=body, headers=told, trust_env=False, timeout=60)

    def begin(self, declared: int) -> socket.socket:
        """The head of an upload over a raw socket."""
        where = urlsplit(self.served.url)
        connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30)
        head = (
            f"POST /legacy/ HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: {basic(self.token())}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {declared}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        return connection


@pytest.fixture(name="front", scope="module", params=["waitress", "gunicorn", "devpi"])
def _front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with ExitStack() as stack:
        registry: Registry
        if request.param == "devpi":
            devpi: Devpi = request.getfixturevalue("devpi")
            registry = devpi.index()
        else:
            registry = stack.enter_context(pypi_server(tmp_path_factory.mktemp("registry"), request.param))
            assert httpx.get(registry.url, trust_env=False).headers["server"].lower().startswith(request.param)
        _plant_victim(registry)
        ci = stack.enter_context(serving_ci())
        served = stack.enter_context(
            broker(
                tmp_path_factory.mktemp("broker"),
                ci,
                registry_url=registry.url,
                registry_username=registry.username,
                registry_password=registry.password,
                registry_index_url=registry.url + ("+simple/" if request.param == "devpi" else "simple/"),
            )
        )
        yield Front(served=served, registry=registry, ci=ci)
        told = served.logged()
        assert {str(line["level"]) for line in told} <= {"info", "warning"}, "what callers send is no error of ours"
        assert registry.password not in served.log.read_text()


def _plant_victim(registry: Registry) -> None:
    """What an attack must not remove, overwrite or join; uploaded as the registry's own user may."""
    planted = httpx.post(
        registry.url,
        content=join(parts_of(fields(name="victim"), FILE, VICTIM)),
        headers={"Content-Type": CONTENT_TYPE},
        auth=(registry.username, registry.password),
        trust_env=False,
    )
    assert planted.status_code == 200, planted.text
    assert registry.stored() == {VICTIM: hashlib.sha256(FILE).hexdigest()}


def fields(**changes: str | Sequence[str] | None) -> Fields:
    """The text fields of a valid upload, with changes."""
    return fields_of(FILE, WHEEL, **changes)


def replaced(fields_: Fields, **content: str) -> bytes:
    """A form whose file is sent under another filename."""
    return join(parts_of(fields_, FILE, content["filename"]))


TWO_NAMES = raw_part(
    f'Content-Disposition: form-data; name="content"; filename="{WHEEL}"; filename="victim-1.0.tar.gz"'.encode(),
    FILE,
)
STARRED = raw_part(
    f'Content-Disposition: form-data; name="content"; filename="{WHEEL}"; filename*=UTF-8\'\'victim.whl'.encode(),
    FILE,
)

ATTACKS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "another's filename": ("filename-mismatch", lambda: replaced(fields(), filename=VICTIM)),
    "name twice": ("repeated-field", lambda: join(parts_of(fields(name=["acme-widgets", "victim"]), FILE))),
    "name twice, mine last": (
        "project-not-granted",
        lambda: join(parts_of(fields(name=["victim", "acme-widgets"]), FILE)),
    ),
    "content twice": (
        "repeated-field",
        lambda: join([*parts_of(fields(), FILE), part("content", FILE, VICTIM)]),
    ),
    "remove_pkg": ("wrong-action", lambda: upload(action="remove_pkg")),
    "submit": ("wrong-action", lambda: upload(action="submit")),
    "doc_upload": ("wrong-action", lambda: upload(action="doc_upload")),
    "another action after the file": (
        "wrong-action",
        lambda: join([*parts_of(fields(action=None), FILE), part(":action", "remove_pkg")]),
    ),
    "another name after the file": (
        "project-not-granted",
        lambda: join([*parts_of(fields(name=None), FILE), part("name", "victim")]),
    ),
    "wrong sha256": ("digest-mismatch", lambda: upload(sha256_digest=hashlib.sha256(b"").hexdigest())),
    "wrong md5": ("digest-mismatch", lambda: upload(md5_digest="0" * 32)),
    "no sha256": ("missing-field", lambda: upload(sha256_digest=None)),
    "filename twice in one header": ("malformed-upload", lambda: join([*parts_of(fields(), FILE)[:-1], TWO_NAMES])),
    "an extended filename": ("malformed-upload", lambda: join([*parts_of(fields(), FILE)[:-1], STARRED])),
    "no final boundary": ("truncated-upload", lambda: upload()[: -len(BOUNDARY) - 6]),
    "something after the end": ("malformed-upload", lambda: upload() + b"--" + BOUNDARY.encode() + b"\r\n"),
    "a path for a filename": ("filename-mismatch", lambda: replaced(fields(), filename="../../" + WHEEL)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_and_the_registry_is_as_before(front: Front, attack: str) -> None:
    code, body = ATTACKS[attack]
    before = front.registry.stored()
    answer = front.post(body())
    assert 400 <= answer.status_code < 500
    assert answer.json()["errors"][0]["code"] == code
    assert front.registry.stored() == before


def test_a_query_overrides_nothing(front: Front) -> None:
    file = pack_sdist()
    answer = front.post(
        upload(file, "acme_widgets-1.0.tar.gz"), path="/legacy/?:action=remove_pkg&name=victim&version=1.0"
    )
    assert answer.status_code == 200
    assert VICTIM in front.registry.stored()


def test_what_is_unusual_but_right_passes_and_the_signature_is_dropped(front: Front) -> None:
    """A 2 MB description, fields after the file, and a `gpg_signature`, which registries store unchecked."""
    description = "Widgets.\n" * 230_000
    assert len(description) > 2_000_000
    parts = parts_of(fields(description=description, name=None, version=None, action=None), FILE)
    parts += [part("gpg_signature", b"--PGP--", WHEEL + ".asc"), part("name", "Acme.Widgets"), part("version", "1.0")]
    before = front.registry.stored()
    answer = front.post(join([*parts, part(":action", "file_upload")]))
    assert answer.status_code == 200, answer.text
    added = {name: digest for name, digest in front.registry.stored().items() if name not in before}
    assert added == {WHEEL: hashlib.sha256(FILE).hexdigest()}
    again = front.post(upload())
    assert (again.status_code, front.registry.stored()) == (200, before | added)


def test_a_body_that_is_cut_anywhere_leaves_nothing(front: Front) -> None:
    """The client closes after less than it declared: between parts, inside the file, right before the end."""
    body = upload(pack_wheel(), "acme_widgets-1.0-1-py3-none-any.whl")
    at_file = body.index(b'filename="')
    before = front.registry.stored()
    known = [0, 1, len(BOUNDARY) + 4, 200, at_file, at_file + 100, len(body) - 60, len(body) - 4, len(body) - 1]
    cuts = [*known, *range(len(body) // 12, len(body), len(body) // 12)][:20]
    assert len(set(cuts)) == 20
    for cut in cuts:
        with front.begin(len(body)) as connection:
            connection.sendall(body[:cut])
    deadline = time.monotonic() + 10
    while (told := _refused(front, "truncated-upload")) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told >= 20
    assert front.registry.stored() == before
    assert _spooled(front) == []


def test_a_body_cut_but_declared_so_is_refused_at_every_place(front: Front) -> None:
    """The same as complete requests: what registries on gunicorn and wsgiref store when it is streamed through."""
    body = upload(pack_wheel(), "acme_widgets-1.0-1-py3-none-any.whl")
    before = front.registry.stored()
    complete = len(body) - len(b"\r\n")  # the line break after the final boundary is optional
    for cut in [*range(1, complete, complete // 19), complete - 1]:
        answer = front.post(body[:cut])
        assert (answer.status_code, front.registry.stored()) == (400, before), (cut, answer.text)
    assert front.registry.stored() == before


def test_a_client_gone_at_sixty_percent_of_a_large_file_leaves_nothing(front: Front) -> None:
    file = pack_wheel() + b"\0" * 20_000_000
    body = join(parts_of(fields_of(file), file))
    before = front.registry.stored()
    already = _refused(front, "truncated-upload")
    with front.begin(len(body)) as connection:
        connection.sendall(body[: len(body) * 6 // 10])
        time.sleep(0.2)
        assert _spooled(front) != []
    deadline = time.monotonic() + 10
    while _refused(front, "truncated-upload") == already and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _refused(front, "truncated-upload") == already + 1
    assert front.registry.stored() == before
    assert _spooled(front) == []


def _refused(front: Front, code: str) -> int:
    records = [line.get("record") for line in front.served.logged()]
    return sum(1 for record in records if isinstance(record, dict) and record.get("code") == code)


def _spooled(front: Front) -> list[str]:
    """What the broker holds in its spool: files with and without a name."""
    spool = front.served.log.parent / "spool"
    held = [str(path) for path in spool.iterdir()]
    for descriptor in Path(f"/proc/{front.served.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        held += [target] if target.startswith(f"{spool}/") else []
    return held

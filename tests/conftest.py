"""What all tests share. Servers are imported where a test asks for one: for a test of one module, all of it is late."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.api import Asked
    from tests.devpi import Devpi

# A busy machine is no fault of a test's.
settings.register_profile("patient", settings.default, deadline=None, max_examples=60)
settings.load_profile("patient")


def pytest_configure() -> None:
    """Takes signals that whoever started this had ignored: processes that tests start would ignore them too."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture
def anyio_backend() -> str:
    """The broker runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in force are looked at all the time, and need not hold still for long."""
    from broker import in_force  # noqa: PLC0415 - see above

    monkeypatch.setattr(in_force, "SETTLE_SECONDS", 0.001)
    monkeypatch.setattr(in_force, "LOOK_SECONDS", 0.02)


@pytest.fixture(scope="session", name="devpi")
def _devpi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devpi]:
    """One devpi for all tests of a process: it takes seconds to start, an index of one's own is made at once."""
    from tests.devpi import serving_devpi  # noqa: PLC0415 - see above

    with serving_devpi(tmp_path_factory.mktemp("devpi")) as devpi:
        yield devpi


@pytest.fixture(scope="session")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One broker with an API for all tests of a process: its audit grows with each."""
    from tests import api  # noqa: PLC0415 - see above

    with api.asked(tmp_path_factory.mktemp("broker")) as asked:
        yield asked

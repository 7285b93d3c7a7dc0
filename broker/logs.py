"""structlog set-up: one JSON line an event on standard output, and a line an attempt that is its audit record.

Never logged: tokens, Authorization headers, request bodies, query strings, the registry's credential. Callers log
names, ids and codes; what a caller of the service sent is at most `info`, and errors are ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import select
import sys
from typing import Any, Final

import structlog

from broker.audit import Record

ANY_NUMBER: Final = sys.maxsize


def configure(level: str, *, shared_output: bool = False) -> None:
    """Sends structlog's events, and those of the standard library's loggers, as JSON lines to standard output.

    Args:
        shared_output: Other processes write there too. A pipe keeps apart what is written at once only where that is
            short (POSIX `PIPE_BUF`), so each line is a write of its own.
    """
    _LINES.most = 1 if shared_output else ANY_NUMBER
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # One write a line, its end included: workers share the stream, and `print` may write the two apart.
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # httpx logs whole URLs at info, and uvicorn's access log has query strings.
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel("WARNING")
    # It warns of each malformed body, which is a refusal and recorded as one.
    logging.getLogger("python_multipart").setLevel("ERROR")


def logger() -> Any:
    """The broker's logger."""
    return structlog.get_logger()


class _Lines:
    """Lines that one turn of an event loop logs, written together at its end.

    Each write hands the interpreter over to other threads and takes it back, and dozens of exchanges are told in one
    turn that they are settled: written one by one, their lines cost a twentieth of all exchanges (ADR 11).
    """

    def __init__(self) -> None:
        self.most = ANY_NUMBER
        self._waiting: list[str] = []
        self._promised: asyncio.AbstractEventLoop | None = None
        """The loop that will write them."""

    def log(self, line: str) -> None:
        """Writes a line, when this turn ends; outside of an event loop, at once."""
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write()
            return
        if loop is not self._promised:
            self._promised = loop
            loop.call_soon(self.write)

    def write(self) -> None:
        """Writes what waits."""
        self._promised = None
        lines, self._waiting = self._waiting, []
        failure: OSError | None = None
        for start in range(0, len(lines), self.most):
            try:
                _write_whole("".join(lines[start : start + self.most]))
            except OSError as error:  # the next line may find room again
                failure = error
        if failure is not None:
            raise failure


def _write_whole(text: str) -> None:
    """Writes all of a text that is ASCII: unbuffered, a signal can cut a long write short, and nothing would tell."""
    output = getattr(sys.stdout, "buffer", None)
    if output is None:
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    rest = memoryview(text.encode())
    while rest:
        taken = output.write(rest)
        if taken is None:  # somebody made it non-blocking, and it is full
            select.select([], [output], [])
        else:
            rest = rest[taken:]
    output.flush()


_LINES: Final = _Lines()


def attempt(record: Record) -> None:
    """Logs a stored record as it is: one line of JSON, ready for a log pipeline."""
    _LINES.log(f'{{"event":"attempt","level":"info","record":{record.body}}}\n')


def flush() -> None:
    """Writes what waits for the end of a turn: after the last one, nobody would."""
    _LINES.write()


def attempt_as_event(record: Record) -> None:
    """Logs a stored record as one of structlog's events, for an application that has set up logging itself."""
    logger().info("attempt", record=json.loads(record.body))

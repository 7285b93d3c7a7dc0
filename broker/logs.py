"""structlog set-up: one JSON line an event on standard output, and a line an attempt that is its audit record.

Never logged: tokens, Authorization headers, request bodies, query strings, the registry's credential. Callers log
names, ids and codes; what a caller of the service sent is at most `info`, and errors are ours.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import structlog

from broker.audit import Record


def configure(level: str) -> None:
    """Sends structlog's events, and those of the standard library's loggers, as JSON lines to standard output."""
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


def attempt(record: Record) -> None:
    """Logs a stored record as it is: one line of JSON, ready for a log pipeline."""
    sys.stdout.write(f'{{"event":"attempt","level":"info","record":{record.body}}}\n')
    sys.stdout.flush()


def attempt_as_event(record: Record) -> None:
    """Logs a stored record as one of structlog's events, for an application that has set up logging itself."""
    logger().info("attempt", record=json.loads(record.body))

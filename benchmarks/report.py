"""The figures as Markdown, and beside each target whether it was met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.exchange import Exchanges, Measured
from benchmarks.upload import AT_ONCE, Uploads

EXCHANGE_TARGETS: Final = {"broker + SQLite": 0.4, "broker + Redis": 0.3}
"""At least, of the floor's exchanges a second."""
UPLOAD_RATIO: Final = 1.6
"""At most, of the time straight to the registry."""
UPLOAD_MEMORY_MB: Final = 30
"""At most, over idle."""


def exchanges(seen: Exchanges) -> str:
    """The exchange benchmark."""
    names = [measured.server for measured in seen.rounds[0]]
    rows = []
    for name in names:
        taken, memory = seen.of(name), seen.memory[name]
        rows.append(
            (
                name,
                f"{_median(one.load.rate for one in taken):,.0f}",
                f"{seen.ratio(name):.2f}",
                f"{_median(one.cpu_us for one in taken):.0f}",
                f"{_median(one.load.p50_ms for one in taken):.1f}",
                f"{_median(one.load.p99_ms for one in taken):.1f}",
                f"{memory.idle_mb:.0f} → {memory.after_mb:.0f}",
            )
        )
    table = _table(("server", "exchanges/s", "of the floor", "CPU µs each", "p50 ms", "p99 ms", "memory MB"), rows)
    per_round = _table(
        ("round", *names),
        [(str(number), *(_in_round(one, each[0]) for one in each)) for number, each in enumerate(seen.rounds, 1)],
    )
    met = [
        _met(f"{name}: {target} of the floor", seen.ratio(name) >= target) for name, target in EXCHANGE_TARGETS.items()
    ]
    return (
        f"## Exchanges, medians of {len(seen.rounds)} interleaved rounds\n\n{table}\n\n"
        f"An empty route of the floor server: {seen.empty.rate:,.0f}/s. One process each; CPU includes Redis's.\n\n"
        f"{per_round}\n\n" + "\n".join(met) + "\n"
    )


def uploads(seen: Uploads) -> str:
    """The upload benchmark."""
    over, over_at_once = seen.peak_mb - seen.idle_mb, seen.peak_at_once_mb - seen.idle_mb
    table = _table(
        ("upload", "straight s", "gateway s", "ratio", "broker's peak over idle"),
        [
            (
                f"{seen.megabytes} MB",
                f"{_median(seen.straight):.2f}",
                f"{_median(seen.gateway):.2f}",
                f"{seen.ratio:.2f}",
                f"{over:.1f} MB (idle {seen.idle_mb:.0f} MB)",
            ),
            (
                f"{AT_ONCE} of {seen.megabytes} MB at once",
                f"{seen.straight_at_once:.2f}",
                f"{seen.gateway_at_once:.2f}",
                f"{seen.gateway_at_once / seen.straight_at_once:.2f}",
                f"{over_at_once:.1f} MB",
            ),
        ],
    )
    per_round = _table(
        ("round", "straight s", "gateway s", "ratio"),
        [
            (str(number), f"{theirs:.2f}", f"{mine:.2f}", f"{mine / theirs:.2f}")
            for number, (theirs, mine) in enumerate(zip(seen.straight, seen.gateway, strict=True), 1)
        ],
    )
    met = [
        _met(f"at most {UPLOAD_RATIO} times as long as straight", seen.ratio <= UPLOAD_RATIO),
        _met(f"at most {UPLOAD_MEMORY_MB} MB over idle", over <= UPLOAD_MEMORY_MB),
    ]
    return (
        f"## Uploads, medians of {len(seen.straight)} interleaved rounds\n\n{table}\n\n"
        f"Registry: pypiserver on gunicorn. Processor time of the broker: {seen.cpu_seconds:.2f} s an upload.\n\n"
        f"{per_round}\n\n" + "\n".join(met) + "\n"
    )


def _in_round(one: Measured, floor: Measured) -> str:
    return f"{one.load.rate:,.0f} ({one.load.rate / floor.load.rate:.2f})"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _met(what: str, yes: bool) -> str:
    return f"- {what}: **{'met' if yes else 'not met'}**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

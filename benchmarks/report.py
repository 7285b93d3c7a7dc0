"""The figures as Markdown, and beside each target whether it was met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.exchange import Exchanges, Measured
from benchmarks.policies import Policies
from benchmarks.upload import Row, Uploads

EXCHANGE_TARGETS: Final = {"broker + SQLite": 0.4, "broker + Redis": 0.3}
"""At least, of the floor's exchanges a second."""
UPLOAD_RATIOS: Final = {(1, 200): 1.5}
"""At most, of the time straight to the registry: of so many at once, of so many MB."""
UPLOAD_MEMORY_MB: Final = {1: 30, 8: 64}
"""At most, over idle: for so many at once, whatever their size."""
RELOAD_MS: Final = 100
SAME: Final = 1.25
"""What two figures of one machine may differ by and still be called the same."""


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
    table = _table(
        ("upload", "straight s", "gateway s", "ratio", "of each round", "MB over idle", "CPU s each", "held to"),
        [
            (
                str(row.load),
                f"{_median(each.straight for each in row.rounds):.2f}",
                f"{_median(each.gateway for each in row.rounds):.2f}",
                f"{row.ratio:.2f}",
                " ".join(f"{each.ratio:.2f}" for each in row.rounds),
                f"{row.over_idle_mb:.1f}",
                f"{row.cpu_seconds:.2f}",
                _held_to(row),
            )
            for row in seen.rows
        ],
    )
    skipped = "".join(f"- {load}: **skipped**, {why}\n" for load, why in seen.skipped.items())
    return (
        f"## Uploads, medians of interleaved rounds\n\n{table}\n\n"
        f"Registry: pypiserver on gunicorn. Memory and CPU are the broker's; idle it had {seen.idle_mb:.0f} MB.\n"
        + (skipped and f"\n{skipped}")
    )


def _held_to(row: Row) -> str:
    bounds = []
    if (most := UPLOAD_RATIOS.get((row.load.at_once, row.load.megabytes))) is not None:
        bounds.append((f"{most} times straight", row.ratio <= most))
    if (most := UPLOAD_MEMORY_MB.get(row.load.at_once)) is not None:
        bounds.append((f"{most} MB", row.over_idle_mb <= most))
    return ", ".join(f"at most {what}: {_verdict(met)}" for what, met in bounds)


def policies(seen: Policies) -> str:
    """The benchmark of many organizations."""
    smallest, *_, many = seen.folders
    table = _table(
        ("organizations", "load s", "memory MB", "MB a thousand", "look ms", "reload ms", "decision µs"),
        [
            (
                f"{one.organizations:,}",
                f"{one.load_seconds:.2f}",
                f"{one.memory_mb:.0f}",
                f"{one.memory_mb / one.organizations * 1000:.1f}",
                f"{one.look_ms:.1f}",
                f"{one.reload_ms:.1f}",
                f"{one.decision_us:.1f}",
            )
            for one in seen.folders
        ],
    )
    kinds = zip(
        (f"{smallest.organizations:,}", f"{many.organizations:,}", f"{many.organizations:,}, a file changing"),
        zip(*seen.rounds, strict=True),
        strict=True,
    )
    latency = _table(
        ("organizations", "exchanges/s", "p50 ms", "p99 ms"),
        [
            (
                name,
                f"{_median(one.rate for one in taken):,.0f}",
                f"{_median(one.p50_ms for one in taken):.2f}",
                f"{_median(one.p99_ms for one in taken):.2f}",
            )
            for name, taken in kinds
        ],
    )
    dearer = _median(still.p50_ms / few.p50_ms for few, still, _ in seen.rounds)
    slower = _median(changing.p50_ms / still.p50_ms for _, still, changing in seen.rounds)
    slowest = _median(changing.p99_ms / still.p99_ms for _, still, changing in seen.rounds)
    met = [
        _met(f"a reload after one changed file within {RELOAD_MS} ms", many.reload_ms <= RELOAD_MS),
        _met(f"an exchange takes what it takes with few, within {SAME:.0%}", dearer <= SAME),
        _met(f"and beside reloads what it takes without, p50 and p99 within {SAME:.0%}", max(slower, slowest) <= SAME),
        _met(f"memory is linear, within {SAME:.0%}", seen.linear <= SAME),
    ]
    return (
        f"## Policies, ten publishers an organization\n\n{table}\n\n"
        f"{latency}\n\nMedians of {len(seen.rounds)} interleaved rounds. With many, p50 is {dearer:.2f} of what it is "
        f"with few. Beside reloads, p50 is {slower:.2f} and p99 {slowest:.2f} of what it is without. "
        f"{len(seen.reloads_ms)} reloads under load, 200 ms of settling included: "
        f"median {_median(seen.reloads_ms):.0f} ms, longest {max(seen.reloads_ms):.0f} ms. Memory of that broker after "
        f"all: {seen.memory_mb:.0f} MB.\n\n" + "\n".join(met) + "\n"
    )


def _in_round(one: Measured, floor: Measured) -> str:
    return f"{one.load.rate:,.0f} ({one.load.rate / floor.load.rate:.2f})"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _met(what: str, yes: bool) -> str:
    return f"- {what}: {_verdict(yes)}"


def _verdict(met: bool) -> str:
    return "**met**" if met else "**not met**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

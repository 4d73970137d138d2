"""What is measured: workloads, growth, rounds and their order. Data and pure functions; nothing here runs anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

Call = Literal["infer", "convert", "stream"]
"""`infer` is what a server's main row measures: ModelInfer where it speaks it. `convert` is our own method."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed loop: every connection keeps its calls in flight, each answered before the next is sent."""

    key: str
    title: str
    values: int
    connections: int
    in_flight: int
    """Calls in flight on all connections together."""
    call: Call = "infer"


@dataclass(frozen=True, slots=True)
class Open:
    """An open loop: calls fall due at a fixed rate, and time counts from when a call was due."""

    key: str
    title: str
    values: int
    calls_per_second: int
    connections: int = 4
    beside_values: int = 0
    """Values of the large calls, two at a time on one connection, that run beside; 0: none."""
    call: Call = "infer"


@dataclass(frozen=True, slots=True)
class Stream:
    """Bidirectional streams, four at a time, each of so many messages of so many values."""

    key: str
    title: str
    values: int
    messages: int
    streams: int = 4
    call: Call = "stream"


Workload = Closed | Open | Stream

ONE_CLIENT: Final = Closed("one_client", "1 value, one client in sequence", 1, 1, 1)
SMALL: Final = Closed("small", "1 value, 64 in flight over 4 connections", 1, 4, 64)
MANY_CLIENTS: Final = Closed("many_clients", "1 value, 256 in flight over 64 connections", 1, 64, 256)
ROWS_32: Final = Closed("rows_32", "32 values, 64 in flight over 4 connections", 32, 4, 64)
ROWS_1024: Final = Closed("rows_1024", "1,024 values, 64 in flight over 4 connections", 1024, 4, 64)
ROWS_65536: Final = Closed("rows_65536", "65,536 values, 64 in flight over 4 connections", 65_536, 4, 64)
CONVERT_SMALL: Final = Closed("convert_small", "`Convert`: " + SMALL.title, 1, 4, 64, "convert")
CONVERT_1024: Final = Closed("convert_1024", "`Convert`: " + ROWS_1024.title, 1024, 4, 64, "convert")
CONVERT_65536: Final = Closed("convert_65536", "`Convert`: " + ROWS_65536.title, 65_536, 4, 64, "convert")
OPEN_1000: Final = Open("open_1000", "1 value, open loop, 1,000 a second", 1, 1_000)
OPEN_10000: Final = Open("open_10000", "1 value, open loop, 10,000 a second", 1, 10_000)
MIXED: Final = Open("mixed", "1 value, open loop, 1,000 a second, beside calls of 65,536 values", 1, 1_000, 4, 65_536)
STREAM: Final = Stream("stream", "1 value a message, 4 streams of 1,000 messages", 1, 1_000)

CORE: Final = (ONE_CLIENT, SMALL, MANY_CLIENTS, ROWS_32, ROWS_1024, OPEN_1000, OPEN_10000, MIXED, STREAM, ROWS_65536)
OURS: Final = (*CORE[:-1], CONVERT_SMALL, CONVERT_1024, CONVERT_65536, ROWS_65536)
PLAIN: Final = (ONE_CLIENT, SMALL, MANY_CLIENTS, ROWS_32, ROWS_1024, OPEN_1000, ROWS_65536)
SHORT: Final = (ONE_CLIENT, SMALL, ROWS_1024, ROWS_65536)
JSON: Final = (ONE_CLIENT, SMALL, ROWS_1024)
"""Without the largest requests: as JSON, 64 of them in flight take a server tens of seconds."""
ECHO: Final = (ONE_CLIENT, SMALL, ROWS_32, ROWS_1024, ROWS_65536)


@dataclass(frozen=True, slots=True)
class Growth:
    """One way the work grows, by powers of ten, and what it is measured with."""

    key: str
    title: str
    axis: str
    steps: tuple[Closed, ...]


def _by_rows(steps: Sequence[int]) -> tuple[Closed, ...]:
    return tuple(Closed(f"grow_rows_{rows}", f"{rows} rows", rows, 4, 16) for rows in steps)


def _by_connections(steps: Sequence[int]) -> tuple[Closed, ...]:
    return tuple(Closed(f"grow_connections_{many}", f"{many} connections", 1, many, max(many, 64)) for many in steps)


def _by_load(steps: Sequence[int]) -> tuple[Closed, ...]:
    return tuple(Closed(f"grow_load_{many}", f"{many} in flight", 1, min(many, 10), many) for many in steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run: how often, how long, and how much of it."""

    name: str
    rounds: int
    seconds: float
    """Time of one measurement, after its warm-up."""
    warm_up_seconds: float
    servers: frozenset[str] | None
    """Keys of the servers to measure; None: all."""
    workloads: frozenset[str] | None
    """Keys of the workloads to measure; None: all."""
    growth: tuple[Growth, ...]
    growth_seconds: float
    models: tuple[int, ...]
    """Numbers of models in the repository to measure the cost of a call with."""
    spare_seconds: float
    """Time for taking measurements again that something else on the machine disturbed."""
    fits: int
    """How often each training run is timed."""

    def has(self, server: str) -> bool:
        """Whether a server takes part."""
        return self.servers is None or server in self.servers


def _growth(rows: Sequence[int], connections: Sequence[int], load: Sequence[int]) -> tuple[Growth, ...]:
    return (
        Growth("rows", "rows of a request", "rows a request", _by_rows(rows)),
        Growth("load", "load", "requests in flight", _by_load(load)),
        Growth("connections", "connections", "connections", _by_connections(connections)),
    )


FULL: Final = Plan(
    name="full",
    rounds=5,
    seconds=1.0,
    warm_up_seconds=0.25,
    servers=None,
    workloads=None,
    growth=_growth([1, 10, 100, 1_000, 10_000, 100_000, 1_000_000], [1, 10, 100, 1_000], [1, 10, 100, 1_000]),
    growth_seconds=0.7,
    models=(1, 10, 100),
    spare_seconds=90.0,
    fits=2,
)
QUICK: Final = Plan(
    name="quick",
    rounds=1,
    seconds=0.6,
    warm_up_seconds=0.2,
    servers=frozenset(
        {
            "quicksilver",
            "quicksilver_grpcio",
            "grpcio_threads",
            "triton_2",
            "triton_2_batching",
            "triton_python",
            "echo",
        }
    ),
    workloads=frozenset({"one_client", "small", "rows_1024", "open_10000", "convert_small", "rows_65536"}),
    growth=_growth([1, 1_000, 100_000], [1, 100], [1, 100]),
    growth_seconds=0.4,
    models=(1,),
    spare_seconds=10.0,
    fits=1,
)


def chosen(plan: Plan, workloads: Sequence[Workload]) -> list[Workload]:
    """Those of a server's workloads that the plan has, in order."""
    return [workload for workload in workloads if plan.workloads is None or workload.key in plan.workloads]


def interleaved(servers: Sequence[ItemT], rounds: int) -> list[tuple[int, ItemT]]:
    """Every server once a round, each round beginning with another one, so that no server always has the same place.

    What a slow drift of the machine does to one server, it then does to all.
    """
    count = len(servers)
    shifts = [round_index * count // max(rounds, 1) for round_index in range(rounds)]
    return [(index, servers[(place + shift) % count]) for index, shift in enumerate(shifts) for place in range(count)]

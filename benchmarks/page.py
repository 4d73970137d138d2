"""Writes docs/performance.md from the results of a run: every figure and every statement in it comes from them."""

import re
import signal
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import ALL, Server
from benchmarks.plan import CONVERT_1024, CONVERT_65536, CONVERT_SMALL, CORE, Closed, Open, Stream, Workload
from benchmarks.run import DISTURBED_CORES, TRIES
from benchmarks.summary import CPU, P50, P99, RATE, Spread, Verdict, onnxruntime_per_100k, spread, verdicts

_MIB: Final = 1 << 20
_TITLES: Final = {server.key: server.title for server in ALL} | {"onnxruntime": "ONNX Runtime alone"}
_SMALL: Final = "small"
NONE: Final = "–"
_PATH: Final = re.compile(r"(?<!\w)/[\w.+-]+(/[\w.+-]+)+")
_CRASH: Final = re.compile(r"(it ended with status -(\d+)): .*", re.DOTALL)

Results = Mapping[str, Any]


def write_page(results: Results, page: Path, figures: Mapping[str, str]) -> None:
    """Write the page; `figures` are the plots beside it, by file name, and what each shows."""
    sections = [
        _head(results),
        _requirements(results),
        _overview(results),
        *(_closed(results, load) for load in _loads(Closed)),
        _open_loops(results),
        _mixed(results),
        _streams(results),
        _limits(results),
        _models(results),
        _workers(results),
        _training(results),
        _plots(figures, page),
        _configurations(results),
        _method(results),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(section for section in sections if section) + "\n", "utf-8")


# Words and numbers ----------------------------------------------------------------------------------------------------


def significant(value: float) -> str:
    """A number with three significant digits, or all those before the point."""
    if value >= 100:  # noqa: PLR2004 - three digits are before the point
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def ranged(value: Spread | None, scale: float = 1.0) -> str:
    """A median, and the range of the rounds where there were several."""
    if value is None:
        return NONE
    median, low, high = (significant(number * scale) for number in value)
    return median if low == high else f"{median} ({low}–{high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _samples(results: Results, server: str, workload: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = results["samples"].get(server, {}).get(workload, ())
    return found


def _measured(results: Results, workload: str) -> list[Server]:
    return [server for server in ALL if _samples(results, server.key, workload)]


def _loads(kind: type[Closed | Open | Stream]) -> list[Workload]:
    return [load for load in (*CORE, CONVERT_SMALL, CONVERT_1024, CONVERT_65536) if isinstance(load, kind)]


# Sections -------------------------------------------------------------------------------------------------------------


def _head(results: Results) -> str:
    machine = results["machine"]
    versions = machine["versions"].get("quicksilver", {})
    busy = ", ".join(f"{cores:.2f}" for cores in results["busy_cores"])
    foreign = _foreign(results)
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "quicksilver-serving")
    return f"""# Performance

Written by `make bench` on {machine["date"]}; nothing in it was written by hand.

- Machine: {machine["cores"]} cores of an {machine["processor"]} (virtual), {machine["memory_gib"]} GiB of memory, \
{machine["system"]}, Linux {machine["kernel"]}, Python {machine["python"]}.
- Every server was pinned to one core, the load to another, one server at a time. Rounds over all servers, \
each beginning with another one: {results["rounds"]}. Figures are medians; in \
brackets the least and the greatest of the rounds.
- Quicksilver: revision {machine["revision"]}, {named}. Everybody served one model, a tanh MLP of 8 hidden units with \
one input and one output, on the CPU; nothing was measured on CUDA.
- Cores busy with anything else, before the run and after it: {busy}. {foreign}
- Load: h2load {machine["h2load"]} for closed loops and streams, our own generator for open loops: see the end."""


def _foreign(results: Results) -> str:
    """How much of the machine something else took while it was measured on, and how unevenly."""
    by_server = {
        server: [sample["foreign_cores"] for samples in by_workload.values() for sample in samples]
        for server, by_workload in results["samples"].items()
    }
    taken = [cores for of_one in by_server.values() for cores in of_one]
    if not taken:
        return ""
    medians = {server: statistics.median(of_one) for server, of_one in by_server.items()}
    least, most = min(medians, key=lambda key: medians[key]), max(medians, key=lambda key: medians[key])
    return (
        f"During the measurements something else took {statistics.median(taken):.2f} cores in the middle one and "
        f"{max(taken):.2f} in the worst; by server, the medians go from {medians[least]:.2f} ({_TITLES[least]}) to "
        f"{medians[most]:.2f} ({_TITLES[most]}). What took it is no server's fault, and did not fall on all alike."
    )


def _requirements(results: Results) -> str:
    found = verdicts(results)
    counts = ", ".join(
        f"{sum(verdict.word == word for verdict in found)} {word}" for word in ("met", "missed", "not measured")
    )
    rows = [_requirement(verdict) for verdict in found]
    head = ["what must hold", "ours", "theirs", "compared with", "ratio", "bound", ""]
    return f"""## What must hold

`ModelInfer` against `ModelInfer`, the same bytes; of Triton and of plain grpcio the configuration that did best in the
very figure. CPU is in CPU-seconds for 100,000 requests, times are in microseconds. {counts.capitalize()}.

{table(head, rows)}

Bounds on long runs under mixed load and on rolling restarts are tests, not measurements, and no part of this run."""


def _requirement(verdict: Verdict) -> list[str]:
    requirement = verdict.requirement
    scale = 1e6 if requirement.metric in {P50, P99} else 1.0
    ours, theirs = (NONE if value is None else significant(value * scale) for value in (verdict.ours, verdict.theirs))
    ratio = NONE if verdict.ratio is None else significant(verdict.ratio)
    sign = "≥" if requirement.at_least else "≤"
    against = _TITLES.get(verdict.against, verdict.against)
    return [requirement.text, ours, theirs, against, ratio, f"{sign} {requirement.bound:g}", f"**{verdict.word}**"]


def _overview(results: Results) -> str:
    rows = [_overview_row(results, server) for server in ALL if results["starts"].get(server.key)]
    head = ["server", "requests/s", "CPU-s per 100,000", "peak memory, MiB", "start-up, s", "installed, MiB"]
    return f"""## All servers: one value a request, 64 in flight over 4 connections

Peak memory is that of all processes of a server over all its workloads, memory they share counted in each. Start-up is
the time from starting the command to its first right answer. Installed is the size of the packages it needs, without
Python itself.

{table(head, rows)}"""


def _overview_row(results: Results, server: Server) -> list[str]:
    samples = _samples(results, server.key, _SMALL)
    starts = results["starts"][server.key]
    installed = results["machine"]["installed_bytes"].get(server.environment, 0)
    return [
        server.title,
        ranged(spread(samples, RATE)),
        ranged(spread(samples, CPU)),
        ranged(spread(starts, "peak_bytes"), 1 / _MIB),
        ranged(spread(starts, "start_seconds")),
        f"{installed / _MIB:,.0f}" if installed else NONE,
    ]


def _closed(results: Results, load: Workload) -> str:
    servers = _measured(results, load.key)
    if not servers:
        return ""
    rows = [_closed_row(server, _samples(results, server.key, load.key)) for server in servers]
    head = ["server", "requests/s", "values/s", "p50, µs", "p99, µs", "CPU-s per 100,000", "errors"]
    return f"### {load.title[0].upper()}{load.title[1:]}\n\n{table(head, rows)}"


def _closed_row(server: Server, samples: Sequence[Mapping[str, Any]]) -> list[str]:
    errors = sum(sample.get("errors", 0) + len(sample.get("wrong", ())) for sample in samples)
    return [
        server.title,
        ranged(spread(samples, RATE)),
        ranged(spread(samples, "values_per_second")),
        ranged(spread(samples, P50), 1e6),
        ranged(spread(samples, P99), 1e6),
        ranged(spread(samples, CPU)),
        str(errors),
    ]


def _open_loops(results: Results) -> str:
    rows = []
    for load in _loads(Open):
        if isinstance(load, Open) and not load.beside_values:
            for server in _measured(results, load.key):
                samples = _samples(results, server.key, load.key)
                rows.append([f"{load.calls_per_second:,}", server.title, *_tail(samples), _failed(samples)])
    if not rows:
        return ""
    head = ["calls a second", "server", "p50, µs", "p99, µs", "p99.9, µs", "not answered"]
    return f"""### One value a request, at fixed rates (open loop)

Time counts from when a call was due, so that whatever delays it, on either side, is in it.

{table(head, rows)}"""


def _tail(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    return [ranged(spread(samples, name), 1e6) for name in (P50, P99, "p999_seconds")]


def _failed(samples: Sequence[Mapping[str, Any]]) -> str:
    return str(sum(sample["errors"] for sample in samples))


def _mixed(results: Results) -> str:
    rows = []
    for server in _measured(results, "mixed"):
        samples = _samples(results, server.key, "mixed")
        rows.append([server.title, *_tail(samples), ranged(spread(samples, "beside_per_second")), _failed(samples)])
    if not rows:
        return ""
    head = ["server", "small: p50, µs", "p99, µs", "p99.9, µs", "large calls/s", "small not answered"]
    return f"""### Small and large mixed

1,000 calls of one value a second, open loop, while calls of 65,536 values, two in flight, come as fast as they are
answered.

{table(head, rows)}"""


def _streams(results: Results) -> str:
    rows = []
    for server in _measured(results, "stream"):
        samples = _samples(results, server.key, "stream")
        rows.append([server.title, ranged(spread(samples, RATE)), ranged(spread(samples, CPU)), _failed(samples)])
    if not rows:
        return ""
    head = ["server", "messages/s", "CPU-s per 100,000 messages", "streams with missing answers"]
    return f"""### Streaming: four streams of 1,000 messages of one value

`ConvertStream` on Quicksilver, `ModelStreamInfer` on Triton.

{table(head, rows)}"""


def _limits(results: Results) -> str:
    limits: Sequence[Mapping[str, Any]] = results["limits"]
    rows = []
    for load in (load for load in CORE if isinstance(load, Closed) and load.connections == 4):  # noqa: PLR2004 - the load of the table
        alone = onnxruntime_per_100k(limits, load.values)
        ours = spread(_samples(results, "quicksilver", load.key), CPU)
        echo = spread(_samples(results, "echo", load.key), CPU)
        if alone is not None and ours is not None:
            cpp = spread(_samples(results, "cpp_echo", load.key), CPU)
            limits_of_load = (alone, echo and echo.median, cpp and cpp.median)
            distances = [significant(ours.median / limit) if limit else NONE for limit in limits_of_load]
            rows.append([f"{load.values:,}", significant(alone), ranged(echo), ranged(cpp), ranged(ours), *distances])
    copies = [limit["copy_bytes_per_second"] / 1e9 for limit in limits]
    servers = ["ONNX Runtime alone", "echo on our front", "echo on C++ gRPC", "Quicksilver"]
    head = ["values", *servers, "to ONNX Runtime", "to our echo", "to C++'s echo"]
    return f"""## The limits beside them

CPU-seconds for 100,000 requests, 64 in flight. ONNX Runtime alone runs each request's rows by itself, in a loop, in one
thread; a server that joins small requests can cost less than that. The echoes give the same bytes back, with no model:
on our own front, and on gRPC for C++. The last columns are the distances, as ratios.

{table(head, rows)}

Memory: NumPy copies {statistics.median(copies):.1f} GB/s on one core."""


def _models(results: Results) -> str:
    rows = [
        [count, significant(sample[RATE]), significant(sample[CPU]), significant(sample["start_seconds"])]
        for count, sample in results["models"].items()
    ]
    if not rows:
        return ""
    head = ["models in the repository", "requests/s", "CPU-s per 100,000", "start-up, s"]
    return f"## Growth with models: Quicksilver, one value, 64 in flight\n\n{table(head, rows)}"


def _workers(results: Results) -> str:
    rows = []
    for load in (load for load in CORE if load.key in results["workers"].get("1", {})):
        found = [spread(results["workers"].get(count, {}).get(load.key, ()), RATE) for count in ("1", "2")]
        one, two = found
        gain = significant(two.median / one.median) if one and two else NONE
        rows.append([f"{load.values:,}", ranged(one), ranged(two), gain])
    if not rows:
        return ""
    head = ["values", "1 worker: requests/s", "2 workers: requests/s", "ratio"]
    return f"""## Growth with workers: 64 in flight, server and load sharing all cores

The load generator takes its part of the same two cores, the larger the smaller the requests, so that the second worker
has less than a core to itself. More than two cores were not measured.

{table(head, rows)}"""


def _training(results: Results) -> str:
    training = results["training"]
    closed = training["closed_form_seconds"]
    rows = []
    for kind in (kind for kind in training if isinstance(training[kind], dict)):
        fit, floor, epochs = (training[kind][name] for name in ("fit_seconds", "floor_seconds", "epochs"))
        per_epoch = [significant(seconds / epochs * 1e6) for seconds in (fit, floor)]
        rows.append([kind, f"{epochs:,}", significant(fit), *per_epoch, significant(fit / floor)])
    head = ["model", "epochs", "time to fit, s", "an epoch, µs", "PyTorch's floor, µs", "ratio"]
    return f"""## Training

The built-in data, nine rows, one thread. The floor is the same epochs with nothing around them. The closed form (least
squares, NumPy) takes {significant(closed * 1e6)} µs: where a line is all that is wanted, it is the way.

{table(head, rows)}"""


def _plots(figures: Mapping[str, str], page: Path) -> str:
    if not figures:
        return ""
    pictures = "\n\n".join(f"![{title}]({page.stem}/{name}.png)" for name, title in figures.items())
    return f"## Plots\n\n{pictures}"


def _configurations(results: Results) -> str:
    lines = []
    for server in ALL:
        if server.key not in results["samples"]:
            continue
        named = results["machine"]["versions"].get(server.environment, {})
        versions = ", ".join(f"{name} {version}" for name, version in named.items())
        rounds = "" if server.rounds is None else f" Rounds: {min(server.rounds, results['rounds'])}."
        lines.append(f"- **{server.title}**: {server.configuration}.{f' {versions}.' if versions else ''}{rounds}")
    skipped = [f"- **{_TITLES[key]}** was skipped: {reason}." for key, reason in results["skipped"].items()]
    failed = [
        f"- **{_TITLES[key]}**: {_one_line(failure)}"
        for key, failures in results["failures"].items()
        for failure in dict.fromkeys(failures)
    ]
    failures = ["", "What failed, and is missing above:", "", *failed] if failed else []
    return "\n".join(["## Configurations", "", *lines, *skipped, *failures])


def _one_line(text: str) -> str:
    """The start of a message, without the paths of the machine it was written on, and without a crash's addresses."""
    return " ".join(_PATH.sub("…", _CRASH.sub(_crash, text)).split())[:200]


def _crash(found: re.Match[str]) -> str:
    """That a signal ended a server, and which."""
    number = int(found[2])
    name = signal.Signals(number).name if number in set(signal.Signals) else "a signal"
    return f"{found[1]} ({name})"


def _method(results: Results) -> str:
    return f"""## How it is measured

- Each measurement lasts about {results["seconds"]:g} s after a warm-up. Before it, a client checks an answer's values \
against ONNX Runtime's own with the same file, and its grpc-status; while a closed loop runs, that client goes on \
asking every 50 ms. h2load knows nothing of grpc-status, but counts bytes: a call that failed has no message, so \
missing bytes are counted as errors. The open loop's generator reads the status of every call. A round with an error \
is left out of the figures, and its errors are in the table.
- A measurement during which something else took more than {DISTURBED_CORES:g} of a core is taken again, up to {TRIES} \
times, and the least disturbed one counts, until the run's allowance of time for that is spent: what comes early has \
more of it.
- CPU is user and system time of all processes of a server, from /proc: on a shared machine it is steadier than time. \
It does not depend on how fast the load generator is; requests a second, where a server needs less than a core, do.
- The open loop is not h2load's `--rps`: that measures from when a request was sent, and sends none while a \
connection has its fill in flight, which leaves out what a slow answer delays. Ours sends every call when it is due. \
It is written in Python, whose own time for a call, some tens of microseconds, is in every server's figures alike.
- Peers speak `ModelInfer` with the same bytes, raw FP32; those that have no gRPC get the same numbers as JSON over \
HTTP/1.1, one request at a time on a connection."""

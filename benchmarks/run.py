"""A whole run: every server in turn, in interleaved rounds, then what is measured of ours alone. Returns plain data."""

import http.client
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks import machine, wire
from benchmarks.checker import describe, wait_until_right
from benchmarks.h2load import OutputError
from benchmarks.measure import LoadError, Sample, Target, measure, measure_mixed
from benchmarks.peers import ALL, QUICKSILVER, Server, Setup, missing, quicksilver
from benchmarks.plan import ROWS_1024, ROWS_65536, SMALL, Growth, Open, Plan, Workload, chosen, interleaved
from benchmarks.process import ServerFailedError, ServerProcess
from benchmarks.wire import WrongAnswerError

SERVER_CORES: Final = "1"
LOAD_CORES: Final = "0"
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - load generators write their logs to memory, where it can be had
GROWERS: Final = ("quicksilver", "triton_2_batching")
DISTURBED_CORES: Final = 0.2
"""More than this much of a core taken by anything else, and a measurement is taken again."""
TRIES: Final = 3
_EXPECTED: Final = (
    ServerFailedError, LoadError, OutputError, WrongAnswerError, grpc.RpcError, OSError, http.client.HTTPException,
)  # fmt: skip
"""What a server, or the load on it, may do wrong without ending the run."""

Results = dict[str, Any]


class TrainingFailedError(Exception):
    """The model that everybody serves could not be trained; the message is the command's."""


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - a run takes long, and this is its terminal


class Runner:
    """Runs plans on one set of environments and models. `repository` holds the model that everybody serves."""

    def __init__(self, environments: Path, repository: Path, plan: Plan) -> None:
        self._environments = environments
        self._repository = repository
        self._plan = plan
        self._spare_seconds = plan.spare_seconds

    def servers(self, only: Sequence[str]) -> tuple[list[Server], dict[str, str]]:
        """Those that can be run, of those named (none: all), and why the others cannot."""
        skipped = {}
        runnable = []
        for server in ALL:
            left_out = server.key not in only if only else not self._plan.has(server.key)
            reason = "it was left out of this run" if left_out else missing(server, self._environments)
            if reason:
                skipped[server.key] = reason
                say(f"skipping {server.title}: {reason}")
            else:
                runnable.append(server)
        return runnable, skipped

    def rounds(self, servers: Sequence[Server], results: Results) -> None:
        """Measure every workload of every server, once a round.

        Puts into the results, as it goes: samples by server and workload, what starting cost, and what failed.
        """
        results.update(samples={}, starts={}, failures={})
        for round_index, server in interleaved(servers, self._plan.rounds):
            if server.rounds is not None and round_index >= server.rounds:
                continue
            say(f"round {round_index + 1} of {self._plan.rounds}: {server.title}")
            self._visit(server, results)

    def growth(self, servers: Sequence[Server]) -> Results:
        """How the cost of a request grows with rows, load and connections: samples by growth, server and step."""
        results: Results = {growth.key: {} for growth in self._plan.growth}
        for server in (server for server in servers if server.key in GROWERS):
            say(f"growth: {server.title}")
            try:
                with self._running(server) as (target, _):
                    for growth in self._plan.growth:
                        results[growth.key][server.key] = self._grow(server, target, growth)
            except _EXPECTED as error:
                say(f"  {describe(error)}")
        return results

    def models(self, servers: Sequence[Server]) -> Results:
        """What a call costs our server as it holds more and more models: samples by number."""
        results: Results = {}
        if QUICKSILVER not in servers:
            return results
        for count in self._plan.models:
            say(f"growth: {QUICKSILVER.title}, {count} models")
            with tempfile.TemporaryDirectory() as copy:
                repository = _many_models(self._repository, Path(copy), count)
                try:
                    with self._running(QUICKSILVER, repository) as (target, start):
                        sample = self._one(QUICKSILVER, target, SMALL, self._plan.growth_seconds)
                except _EXPECTED as error:
                    say(f"  {describe(error)}")
                else:
                    results[str(count)] = {**sample, "start_seconds": start}
        return results

    def workers(self, servers: Sequence[Server]) -> Results:
        """Throughput of our server with one and two worker processes, where it shares all cores with the load."""
        results: Results = {}
        if QUICKSILVER not in servers:
            return results
        cores = f"{SERVER_CORES},{LOAD_CORES}"
        for count in (1, 2):
            say(f"workers: {QUICKSILVER.title} with {count}")
            server = replace(QUICKSILVER, launch=quicksilver("http2", "--workers", str(count)))
            try:
                with self._running(server, cores=cores) as (target, _):
                    free = replace(target, load_cores=cores)
                    samples = {
                        load.key: [self._one(server, free, load, self._plan.seconds) for _ in range(self._plan.rounds)]
                        for load in (SMALL, ROWS_1024, ROWS_65536)
                    }
            except _EXPECTED as error:
                say(f"  {describe(error)}")
            else:
                results[str(count)] = samples
        return results

    def _visit(self, server: Server, results: Results) -> None:
        failures = results["failures"].setdefault(server.key, [])
        try:
            with self._running(server) as (target, start):
                for workload in chosen(self._plan, server.workloads):
                    try:
                        sample = self._one(server, target, workload, self._plan.seconds)
                    except _EXPECTED as error:
                        say(f"  {workload.key}: {describe(error)}")
                        failures.append(f"{workload.title}: {describe(error)}")
                        target.process.check_alive()
                        continue
                    say(f"  {workload.key}: {_brief(sample)}")
                    results["samples"].setdefault(server.key, {}).setdefault(workload.key, []).append(sample)
                peak = target.process.peak_bytes()
        except _EXPECTED as error:
            say(f"  {describe(error)}")
            failures.append(describe(error))
            return
        results["starts"].setdefault(server.key, []).append({"start_seconds": start, "peak_bytes": peak})

    def _one(self, server: Server, target: Target, workload: Workload, seconds: float) -> Sample:
        """Measure; where the machine was busy with something else, again, and keep what was least disturbed."""
        samples = [self._once(server, target, workload, seconds)]
        while samples[-1]["foreign_cores"] > DISTURBED_CORES and len(samples) < TRIES and self._spare_seconds > 0:
            begun = time.monotonic()
            samples.append(self._once(server, target, workload, seconds))
            self._spare_seconds -= time.monotonic() - begun
        return min(samples, key=lambda sample: sample["foreign_cores"])

    def _once(self, server: Server, target: Target, workload: Workload, seconds: float) -> Sample:
        foreign = machine.Foreign(target.process)
        sample = self._measure(server, target, workload, seconds)
        return {**sample, "foreign_cores": foreign.cores()}

    def _measure(self, server: Server, target: Target, workload: Workload, seconds: float) -> Sample:
        make = server.exchanges[workload.call]
        exchange = make(self._model_file, workload.values)
        if isinstance(workload, Open) and workload.beside_values:
            return measure_mixed(target, exchange, make(self._model_file, workload.beside_values), workload, seconds)
        return measure(target, exchange, workload, seconds, self._plan.warm_up_seconds)

    def _grow(self, server: Server, target: Target, growth: Growth) -> Results:
        steps: Results = {}
        for step in growth.steps:
            try:
                steps[step.key.rpartition("_")[2]] = self._one(server, target, step, self._plan.growth_seconds)
            except _EXPECTED as error:
                say(f"  {step.key}: {describe(error)}")
                target.process.check_alive()
        return steps

    @property
    def _model_file(self) -> Path:
        return self._repository / wire.MODEL / "1" / "model.onnx"

    @contextmanager
    def _setup(self, repository: Path | None = None) -> Iterator[Setup]:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
            yield Setup(self._environments, repository or self._repository, Path(scratch))

    @contextmanager
    def _running(
        self, server: Server, repository: Path | None = None, cores: str = SERVER_CORES
    ) -> Iterator[tuple[Target, float]]:
        """Start a server, and give it with the seconds until its first right answer."""
        with self._setup(repository) as setup:
            launch = server.launch(setup)
            begun = time.perf_counter()
            with ServerProcess(
                launch.command,
                cores=cores,
                log=setup.scratch / "server.log",
                environment={"ORT_DISABLE_TELEMETRY": "1", **launch.environment},
                directory=launch.directory,
            ) as process:
                exchange = server.exchanges["infer"](self._model_file, 1)
                wait_until_right(launch.address, exchange, process, server.start_seconds)
                started = time.perf_counter() - begun
                yield Target(launch.address, process, setup.scratch, LOAD_CORES), started


def _many_models(source: Path, copy: Path, count: int) -> Path:
    """A repository of so many models: the benchmark's own, and copies of it under other names."""
    for index in range(count):
        name = wire.MODEL if index == 0 else f"{wire.MODEL}_{index}"
        shutil.copytree(source / wire.MODEL, copy / name)
    return copy


def train_model(repository: Path) -> None:
    """Publish the model that everybody serves, with the product's own command."""
    command = ["train", wire.MODEL, "--publish", str(repository), "--name", wire.MODEL, "--unless-published"]
    quicksilver = Path(machine.PYTHON).with_name("quicksilver")
    done = subprocess.run([quicksilver, *command], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise TrainingFailedError(done.stderr.strip()[-500:])


def _brief(sample: Sample) -> str:
    """A measurement on one line."""
    words = []
    if "requests_per_second" in sample:
        words.append(f"{sample['requests_per_second']:,.0f}/s")
    if "cpu_seconds_per_100k" in sample:
        words.append(f"{sample['cpu_seconds_per_100k']:.2f} CPU-s per 100,000")
    timed = [name for name in ("p50_seconds", "p99_seconds") if sample.get(name) is not None]
    words.extend(f"{name[:3]} {sample[name] * 1e6:,.0f} µs" for name in timed)
    if sample.get("errors"):
        words.append(f"{sample['errors']} errors")
    if sample.get("wrong"):
        words.append(f"wrong: {sample['wrong'][0]}")
    return ", ".join(words)

"""`quicksilver promote`, run as the command that it is, on a real repository and a real store of observations."""

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quicksilver
from proto.observation import Observation
from proto.observations import Columns, ObservationStore
from proto.repository import Repository
from proto.traffic import CanaryTraffic
from service.engine import Engine
from service.promote import Comparison, Judge, Outcome
from service.promotion import Rule
from tests.e2e.processes import ENVIRONMENT
from tests.service.artefacts import describe, exact_celsius, make_artefact, make_fragile
from tests.service.open_inference.graphs import two_by_two
from tests.waiting import until

Run = Callable[..., tuple[int, str, str]]
Observe = Callable[..., None]


@pytest.fixture
def tried(repository: Repository) -> Repository:
    """`linear` 1 is stable and right; 2, five degrees warmer, is the canary and takes a share."""
    repository.set_label("linear", "canary", 2)
    repository.set_canary_traffic("linear", CanaryTraffic(share=0.5))
    return repository


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of a store."""
    return f"sqlite:///{tmp_path / 'observations.sqlite'}"


@pytest.fixture
def run(repository: Repository, store: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives its exit code, and what it said on stdout and stderr."""

    def call(*words: str, name: str = "linear") -> tuple[int, str, str]:
        where = ["--repository", str(repository.root), "--store", store, "--device", "cpu"]
        code = quicksilver.main(["promote", name, *where, *words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def observe(store: str) -> Observe:
    """Stores observations of a thermometer that is so many degrees off the law; at once, or at some time."""
    chance = np.random.default_rng(20_261_122)

    def add(
        rows: int,
        offset_celsius: float,
        *,
        sources: int = 2,
        at_seconds: float | None = None,
        noise_celsius: float = 1.0,
    ) -> None:
        began = time.time() if at_seconds is None else at_seconds
        with ObservationStore.open(store) as opened:
            known = opened.stats().observations
            readings = chance.uniform(-40, 212, rows)
            opened.add(
                [
                    Observation(
                        id=str(known + row),
                        fahrenheit=float(reading),
                        celsius=exact_celsius(float(reading)) + offset_celsius + float(chance.normal(0, noise_celsius)),
                        observed_at_seconds=began + row * 1e-6,
                        source=f"thermometer {row % sources}",
                    )
                    for row, reading in enumerate(readings)
                ]
            )

    return add


def test_a_canary_that_is_better_becomes_stable(tried: Repository, run: Run, observe: Observe) -> None:
    """The thermometer has drifted by five degrees, which the canary learned: it is promoted, and its traffic ends."""
    observe(200, 5.0)
    code, said, _ = run()
    assert code == 0
    assert "linear: canary 2 against stable 1: 200 observations since" in said
    assert "smaller by" in said
    assert said.endswith("better\nlinear: stable is version 2, promoted\n")
    labels = tried.label_history("linear")
    assert dict(labels.current) == {"stable": 2}
    assert not labels.traffic
    assert labels.moves.promotions == 1


def test_a_canary_that_is_worse_is_no_canary_any_more(tried: Repository, run: Run, observe: Observe) -> None:
    """Nothing but its label and its traffic goes: the version stays."""
    observe(200, 0.0)
    code, said, _ = run()
    assert code == 3
    assert said.endswith("not better\nlinear: version 2 is no canary any more, since it is not better\n")
    assert tried.labels("linear") == {"stable": 1}
    assert not tried.label_history("linear").traffic
    assert tried.versions("linear") == [1, 2]


@pytest.mark.parametrize("case", ["no rows", "few rows", "one source", "equals", "too old", "no canary"])
def test_what_is_not_decided_changes_nothing(tried: Repository, run: Run, observe: Observe, case: str) -> None:
    """However often one looks."""
    if case == "no canary":
        tried.remove_label("linear", "canary")
    rows, offset = {"no rows": (0, 5.0), "few rows": (29, 5.0), "equals": (200, 2.5)}.get(case, (200, 5.0))
    observe(rows, offset, sources=1 if case == "one source" else 2, at_seconds=1000.0 if case == "too old" else None)
    before = tried.label_history("linear")
    for _ in range(3):
        code, _, complained = run()
        assert (code, complained) == (4, "")
    assert tried.label_history("linear") == before


@pytest.mark.usefixtures("tried")
def test_observations_count_that_are_newer_than_both_versions(run: Run, observe: Observe) -> None:
    """What could have been in the training data of one of them proves nothing of it."""
    observe(100, 5.0, at_seconds=1000.0)
    assert run()[0] == 4
    observe(40, 0.0)
    _, said, _ = run("--json")
    assert json.loads(said)["comparisons"][0]["evidence"]["rows"] == 40


@pytest.mark.usefixtures("tried")
def test_what_comes_late_changes_no_block_that_was_full(run: Run, observe: Observe) -> None:
    """Observed before all others and stored after them: late ones fill the block that was open, and begin new ones."""
    now = time.time()
    observe(150, 5.0, at_seconds=now + 100, noise_celsius=0.0)  # seven blocks, and half of one
    before = json.loads(run("--json", "--rate", "1e-9")[1])["comparisons"][0]["evidence"]
    assert (before["rows"], before["candidate_mean_celsius"]) == (140, pytest.approx(0.0, abs=1e-4))
    observe(25, 2.0, at_seconds=now + 50, noise_celsius=0.0)  # three degrees off for the canary
    after = json.loads(run("--json", "--rate", "1e-9")[1])["comparisons"][0]["evidence"]
    assert (after["rows"], after["candidate_mean_celsius"]) == (160, pytest.approx(10 * 3 / 160, abs=1e-4))


@pytest.mark.usefixtures("tried")
def test_more_observations_than_are_read_at_a_time_are_one_test(
    run: Run, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in parts that are no multiple of a block, they come to the same."""
    observe(333, 5.0)
    whole = json.loads(run("--json", "--rate", "1e-12")[1])["comparisons"]
    monkeypatch.setattr("proto.observations.BATCH_ROWS", 7)
    in_parts = json.loads(run("--json", "--rate", "1e-12")[1])["comparisons"]
    assert whole[0]["evidence"]["rows"] == 320
    assert in_parts == [{**whole[0], "evidence": pytest.approx(whole[0]["evidence"])}]


def test_observations_that_a_version_was_fitted_to_do_not_judge_it(
    repository: Repository, run: Run, observe: Observe
) -> None:
    """Also where its file looks older than they are."""
    until = time.time() + 1000.0
    fitted = dataclasses.replace(describe(), observed_until_seconds=until)
    version = repository.publish("linear", make_artefact(fitted, offset_celsius=5.0))
    repository.set_label("linear", "canary", version)
    observe(400, 5.0, at_seconds=until - 500.0)
    observe(1, 5.0, at_seconds=until)
    assert run()[0] == 4
    observe(400, 5.0, at_seconds=until + 1.0)
    _, said, _ = run("--json")
    assert json.loads(said)["comparisons"][0]["evidence"]["rows"] == 400


def test_a_stable_version_that_turned_worse_goes_back(tried: Repository, run: Run, observe: Observe) -> None:
    """It is judged by what was observed since it became stable, not by what had made it so."""
    observe(400, 5.0)
    assert run()[0] == 0
    assert run()[0] == 4, "nothing speaks against it yet, and what speaks for it is no longer asked"
    observe(200, 0.0)
    code, said, _ = run()
    assert code == 5
    assert said.endswith("linear: stable is version 1 again, since it is better\n")
    labels = tried.label_history("linear")
    assert dict(labels.current) == {"stable": 1}
    assert (labels.moves.promotions, labels.moves.rollbacks) == (1, 1)
    assert run()[0] == 4, "there is nothing further back, and no canary"


def test_an_error_above_its_bound_goes_back_where_that_is_less(tried: Repository, run: Run, observe: Observe) -> None:
    """A bound is an alarm of its own; but nobody is helped by a version whose error is as great."""
    tried.promote_canary("linear", 2, 1)
    observe(240, 12.0)  # both are off by more than the cap counts: neither is better
    code, said, _ = run("--error-bound", "3")
    assert code == 4
    assert "the mean error of stable is above 3 °C, and that of version 1 is no smaller" in said
    observe(20, 2.0, noise_celsius=0.0)  # between both, a little nearer to the one before
    code, said, _ = run("--error-bound", "3")
    assert code == 5
    assert "stable is version 1 again, since the mean error is above 3 °C" in said


def test_a_reading_that_a_version_refuses_counts_as_its_greatest_error(
    tried: Repository, run: Run, observe: Observe, store: str
) -> None:
    """The command does not fail for it, and what else the version answers decides."""
    version = tried.publish("linear", make_fragile(300.0, offset_celsius=5.0))
    tried.set_label("linear", "canary", version)
    observe(400, 5.0)
    with ObservationStore.open(store) as opened:
        opened.add([Observation(f"hot{row}", 310.0, 154.4, time.time() + row, f"s{row % 2}") for row in range(20)])
    _, said, _ = run("--json", "--rate", "1e-30")
    evidence = json.loads(said)["comparisons"][0]["evidence"]
    assert evidence["rows"] == 420
    assert evidence["candidate_mean_celsius"] == pytest.approx((400 * 0.8 + 20 * 5.0) / 420, abs=0.1)
    assert run()[0] == 0


def test_a_version_that_cannot_be_run_is_a_failure_in_one_line(
    tried: Repository, run: Run, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ONNX Runtime raises: it may be the device's fault, and decides nothing."""
    observe(200, 5.0)
    runs = Engine.run

    def fail(engine: Engine, tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len(tensors[0]) == 200:
            raise RuntimeError("the device is gone")
        return runs(engine, tensors)

    monkeypatch.setattr(Engine, "run", fail)
    code, said, complained = run()
    assert (code, said) == (1, "")
    assert "could not be run: the device is gone" in complained
    assert tried.labels("linear") == {"stable": 1, "canary": 2}


def test_what_was_seen_is_told_in_json(tried: Repository, run: Run, observe: Observe) -> None:
    """Every figure by which it was decided, in one line; a mean of no rows is null."""
    observe(0, 0.0)
    _, said, _ = run("--json")
    nothing = json.loads(said)
    assert nothing["outcome"] == "not decided"
    assert nothing["comparisons"][0]["evidence"]["mean_celsius"] is None
    observe(200, 5.0)
    _, said, _ = run("--json")
    told = json.loads(said)
    assert said.count("\n") == 1
    assert (told["model"], told["outcome"]) == ("linear", "promoted")
    (comparison,) = told["comparisons"]
    assert (comparison["candidate"], comparison["present"], comparison["role"]) == (2, 1, "canary")
    evidence = comparison["evidence"]
    assert (evidence["rows"], evidence["sources"], evidence["verdict"]) == (200, 2, "better")
    assert 0 < evidence["gain_lower_celsius"] < evidence["gain_celsius"] < evidence["gain_upper_celsius"]
    assert tried.labels("linear") == {"stable": 2}


def test_a_margin_asks_for_more(tried: Repository, run: Run, observe: Observe) -> None:
    """A canary that is better by less than the margin is refused."""
    observe(400, 5.0)
    assert run("--margin", "4.5")[0] == 3
    assert tried.labels("linear") == {"stable": 1}


@pytest.mark.parametrize(
    "case", ["broken", "no model", "no store", "store a directory", "corrupt labels", "no converter", "gone"]
)
def test_what_cannot_be_judged_is_a_failure_in_one_line(
    tried: Repository, run: Run, observe: Observe, store: str, case: str
) -> None:
    """Exit code 1, and nothing moves."""
    observe(100, 5.0)
    labels = tried.root / "linear" / "labels.json"
    before = labels.read_text()
    if case == "broken":
        tried.model_path("linear", 2).write_bytes(b"broken")
    elif case == "no store":
        Path(store.removeprefix("sqlite:///")).unlink()
    elif case == "store a directory":
        file = Path(store.removeprefix("sqlite:///"))
        file.unlink()
        file.mkdir()
    elif case == "corrupt labels":
        labels.write_text(before := "{")
    elif case == "no converter":
        tried.model_path("linear", 2).write_bytes(two_by_two())
    elif case == "gone":
        tried.model_path("linear", 2).unlink()
    code, said, complained = run(name="absent" if case == "no model" else "linear")
    assert (code, said) == (1, "")
    assert complained.startswith("quicksilver promote: ")
    assert complained.count("\n") == 1
    assert labels.read_text() == before
    assert case != "no store" or ("there is no store" in complained and not Path(store[10:]).exists())


# Again and again ------------------------------------------------------------------------------------------------------


def judge_of(repository: Repository, rate: float = 0.05) -> Judge:
    """One who looks at `linear` again and again."""
    options = argparse.Namespace(device="cpu", rule=Rule(rate=rate), error_bound=None, since=0.0)
    return Judge(repository, "linear", options)


def figures(comparison: Comparison) -> dict[str, float]:
    """What was measured."""
    return {name: value for name, value in asdict(comparison.evidence).items() if name != "verdict"}


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the observations that were read for a promotion, as they are read."""
    read: list[str] = []
    arrivals = ObservationStore.arrivals

    def reading(self: ObservationStore, since_seconds: float | None = None, *, after: int = 0) -> Iterator[Columns]:
        for columns in arrivals(self, since_seconds, after=after):
            read.extend(columns.id)
            yield columns

    monkeypatch.setattr(ObservationStore, "arrivals", reading)
    return read


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 150), st.sampled_from([0.0, 5.0]), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 1000),
)
def test_who_goes_on_decides_as_who_reads_all_anew(
    tried: Repository, tmp_path: Path, commits: list[tuple[int, float, bool]], seed: int
) -> None:
    """Look by look, on two copies of one repository: the same outcome, labels and evidence, whatever comes."""
    chance = np.random.default_rng(seed)
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    going_on, anew = (Repository(shutil.copytree(tried.root, place / copy)) for copy in ("going on", "anew"))
    judge = judge_of(going_on)
    with ObservationStore.open(f"sqlite:///{place / 'store'}") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("proto.observations.BATCH_ROWS", 37)
        for number, (rows, offset, late) in enumerate(commits):
            began = time.time() + (500 if late else 1000)  # what comes late counts too
            store.add(
                [
                    Observation(
                        f"{number}-{row}", reading, exact_celsius(reading) + offset, began + row * 1e-7, f"s{row % 2}"
                    )
                    for row, reading in enumerate(chance.uniform(-40, 212, rows).tolist())
                ]
            )
            seen, again = judge.look(store), judge_of(anew).look(store)
            assert (seen.outcome, seen.notes) == (again.outcome, again.notes)
            assert going_on.labels("linear") == anew.labels("linear")
            for one, other in zip(seen.comparisons, again.comparisons, strict=True):
                assert one.evidence.verdict is other.evidence.verdict
                assert figures(one) == pytest.approx(figures(other), rel=1e-4, abs=1e-4, nan_ok=True)


def test_a_look_reads_what_is_new_alone(tried: Repository, observe: Observe, store: str, read_rows: list[str]) -> None:
    """Each observation is read once; those that came late too, and nothing where nothing came."""
    judge = judge_of(tried, rate=1e-12)
    looked: list[int] = []
    for rows, seconds in ((50, 100.0), (0, 0.0), (25, 50.0), (7, 200.0)):
        observe(rows, 5.0, at_seconds=time.time() + seconds)
        with ObservationStore.open(store) as opened:
            looked.append(judge.look(opened).comparisons[0].evidence.rows)
    assert looked == [40, 40, 60, 80]
    assert read_rows == [str(row) for row in range(82)]


def test_a_store_that_is_another_is_read_from_its_beginning(
    tried: Repository, observe: Observe, store: str, read_rows: list[str], tmp_path: Path
) -> None:
    """Somebody put a store in its place, or took the latest observations out: what was known of them counts no more."""
    judge = judge_of(tried, rate=1e-12)
    observe(100, 5.0)
    with ObservationStore.open(store) as opened:
        assert judge.look(opened).comparisons[0].evidence.rows == 100
    with ObservationStore.open(f"sqlite:///{tmp_path / 'other'}") as other:
        other.add([Observation(f"n{row}", 50.0, 15.0, time.time() + 100, f"s{row % 2}") for row in range(120)])
        del read_rows[:]
        assert judge.look(other).comparisons[0].evidence.rows == 120
        assert len(read_rows) == 120


# What people do meanwhile ---------------------------------------------------------------------------------------------


def move_stable_and_back(repository: Repository) -> None:
    """Every label names in the end what it named before."""
    now = repository.labels("linear")["stable"]
    repository.set_label("linear", "stable", 3)
    repository.roll_back("linear", "stable", expected=now)


MOVES: Final[dict[str, Callable[[Repository], None]]] = {
    "stable and back": move_stable_and_back,
    "stable": lambda repository: repository.set_label("linear", "stable", 3),
    "canary": lambda repository: repository.set_label("linear", "canary", 3),
}


@pytest.mark.parametrize("case", [*itertools.product(["promotion", "rejection", "rollback"], MOVES)], ids="-".join)
def test_a_label_that_a_person_moves_during_a_look_stays_where_it_was_put(
    tried: Repository,
    run: Run,
    observe: Observe,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, str],
) -> None:
    """The look read the labels before, and all observations; what it concludes is of labels that are no more."""
    deciding, move = case
    tried.publish("linear", make_artefact(describe()))
    if deciding == "rollback":
        tried.set_label("linear", "stable", 2)
        tried.remove_label("linear", "canary")
    observe(200, 5.0 if deciding == "promotion" else 0.0)
    arrivals = ObservationStore.arrivals

    def interrupted(self: ObservationStore, since: float | None = None, *, after: int = 0) -> Iterator[Columns]:
        yield from arrivals(self, since, after=after)
        if not moved:
            MOVES[move](tried)
            moved.append(tried.label_history("linear"))

    moved: list[object] = []
    monkeypatch.setattr(ObservationStore, "arrivals", interrupted)
    code, _, complained = run()
    assert (code, len(moved)) == (1, 1)
    assert complained.startswith("quicksilver promote: the labels of 'linear' were moved meanwhile: ")
    assert tried.label_history("linear") == moved[0]


def test_traffic_that_a_person_sets_during_a_look_is_no_move(
    tried: Repository, run: Run, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where `stable` and `canary` stand is what was judged."""
    observe(200, 5.0)
    load = Judge._load_anew  # noqa: SLF001 - the last step before the labels move

    def loading(self: Judge, version: int) -> None:
        tried.set_canary_traffic("linear", CanaryTraffic(share=0.7))
        tried.set_label("linear", "mine", 1)
        load(self, version)

    monkeypatch.setattr(Judge, "_load_anew", loading)
    assert run()[0] == 0
    assert tried.labels("linear") == {"stable": 2, "mine": 1}


@pytest.mark.parametrize("case", ["broken", "no converter", "gone"])
def test_a_version_before_that_no_longer_loads_does_not_end_the_trial_of_a_canary(
    tried: Repository, run: Run, observe: Observe, case: str
) -> None:
    """Stable cannot go back, which is said; the canary is judged against stable all the same."""
    tried.set_label("linear", "stable", 2)
    tried.set_label("linear", "canary", tried.publish("linear", make_artefact(describe(), offset_celsius=10.0)))
    observe(20, 10.0)
    if case == "gone":
        shutil.rmtree(tried.model_path("linear", 1).parent)
    else:
        tried.model_path("linear", 1).write_bytes(b"broken" if case == "broken" else two_by_two())
    code, said, complained = run()
    assert "canary 3 against stable 2" in said
    if case == "gone":
        assert (code, complained) == (4, "")
        assert "stable cannot be rolled back: the versions before it were removed" in said
    else:
        assert code == 1
        assert complained.startswith("quicksilver promote: linear: stable cannot be judged, and is not rolled back: ")
        assert complained.count("\n") == 1
    observe(400, 10.0)
    assert run()[0] == 0
    assert tried.labels("linear") == {"stable": 3}


@pytest.mark.parametrize("deciding", ["promotion", "rollback"])
def test_a_version_that_broke_during_its_trial_does_not_become_stable(
    tried: Repository, observe: Observe, store: str, deciding: str
) -> None:
    """One who looks again and again holds it in memory; before stable names it, it is loaded as servers will."""
    target = 2 if deciding == "promotion" else 1
    if deciding == "rollback":
        tried.promote_canary("linear", 2, 1)
    judge = judge_of(tried)
    observe(20, 0.0 if deciding == "rollback" else 5.0)
    with ObservationStore.open(store) as opened:
        assert judge.look(opened).failures == []
    status = tried.model_path("linear", target).stat()
    tried.model_path("linear", target).write_bytes(b"broken")
    os.utime(tried.model_path("linear", target), ns=(status.st_atime_ns, status.st_mtime_ns))
    before = tried.label_history("linear")
    observe(400, 0.0 if deciding == "rollback" else 5.0)
    with ObservationStore.open(store) as opened:
        seen = judge.look(opened)
    assert seen.outcome is Outcome.WAITING
    assert [f"linear/{target} does not verify" in failure for failure in seen.failures] == [True]
    assert tried.label_history("linear") == before


@pytest.mark.usefixtures("tried")
def test_a_watch_waits_for_a_store_that_is_not_there_yet(
    repository: Repository, store: str, observe: Observe, tmp_path: Path
) -> None:
    """Looks fail until somebody makes the store; then the canary is judged. SIGTERM ends the watch, and no fault."""
    command = [sys.executable, "-m", "quicksilver", "promote", "linear", "--repository", str(repository.root)]
    command += ["--store", store, "--device", "cpu", "--watch", "--interval", "0.1"]
    with (tmp_path / "said").open("w") as out:
        watch = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert watch.stderr is not None
    with watch.stderr:
        try:
            assert "there is no store" in watch.stderr.readline()
            observe(400, 5.0)

            def promoted() -> bool:
                assert watch.poll() is None, "the watch ended"
                return repository.labels("linear")["stable"] == 2

            until(promoted, "the canary to be promoted")
            watch.terminate()
            assert watch.wait(60) == 0
        finally:
            watch.kill()
            watch.wait()


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "0"),
        ("--rate", "1"),
        ("--error-cap", "nan"),
        ("--margin", "5"),
        ("--error-bound", "5"),
        ("--least-rows", "0"),
        ("--interval", "0"),
        ("--interval", "nan"),
        ("--share", "1"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    """Exit code 2, before anything is looked at."""
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2


def test_a_store_must_be_named(
    repository: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the flag or by the variable that the server takes it from."""
    monkeypatch.delenv("QUICKSILVER_OBSERVATIONS", raising=False)
    with pytest.raises(SystemExit):
        quicksilver.main(["promote", "linear", "--repository", str(repository.root)])
    assert "--store or QUICKSILVER_OBSERVATIONS" in capsys.readouterr().err
    code = quicksilver.main(["promote", "linear", "--repository", str(repository.root), "--store", "nothing:///x"])
    assert code == 2


def test_a_store_may_be_named_as_retrain_names_it(
    tried: Repository, store: str, observe: Observe, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--observations` is `--store`."""
    observe(200, 5.0)
    where = ["--repository", str(tried.root), "--observations", store, "--device", "cpu"]
    assert quicksilver.main(["promote", "linear", *where]) == 0, capsys.readouterr().err
    assert tried.labels("linear")["stable"] == 2

"""`quicksilver retrain`: a drifting thermometer gets a better converter, and nothing worse ever takes its place.

The jobs are the real command on a real store and a real repository; what they accept was served by a real process.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from proto.observations import Observation, ObservationStore
from proto.repository import MODEL_FILE, Repository
from tests.e2e.processes import ENVIRONMENT, serving
from tests.service.artefacts import describe, make_artefact
from tests.thermometer import DAY_SECONDS, Thermometer, observe
from tests.training.crash_publish import accepted as accepted_verdict
from tests.training.crash_publish import plan_in
from tests.training.pages_read import Page
from training import champion, cli, job, retrain, verdict
from training.drift import DriftRules
from training.parity import Engine
from training.publish import read_artefact

STRIDE = 3
"""A job is killed at every third of its steps; another run of the tests has others."""
QUICK = ("--kinds", "linear", "--seeds", "1", "--epochs", "200")
DAYS = (0.0, 20.0)
STEADY = Thermometer(gain_per_day=0.0, offset_per_day_fahrenheit=0.0)


class Place:
    """A directory with a repository, whose `linear` follows the exact law, a store of observations, and reports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = Repository(root / "models")
        self.repository.publish("linear", make_artefact())
        self.reports = root / "reports" / "linear"
        self.url = f"sqlite:///{root}/observations.db"
        self.start_seconds = time.time() - DAYS[1] * DAY_SECONDS

    def add(self, observations: Sequence[Observation]) -> None:
        """Store observations."""
        with ObservationStore.open(self.url) as store:
            store.add(observations)

    def observe(self, thermometer: Thermometer, rows: int = 400, **options: Any) -> None:  # noqa: ANN401 - those of `observe`
        """Store observations of a thermometer over all days."""
        self.add(observe(thermometer, DAYS, rows, start_seconds=self.start_seconds, **options))

    def words(self, *options: str) -> list[str]:
        """The command line."""
        places = ["--repository", str(self.repository.root), "--reports", str(self.root / "reports")]
        told = ["--metrics-file", str(self.root / "job.prom")]
        return ["retrain", "linear", "--observations", self.url, *places, *told, *options]

    def retrain(self, *options: str) -> int:
        """Run the command here, and return its exit code."""
        return cli.main(self.words(*options))

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Run the command in a process of its own."""
        command = [sys.executable, "-m", "quicksilver", *self.words(*options)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=self.root
        )

    def told(self) -> list[str]:
        """What the last job said became of it, in the terms of Prometheus."""
        lines = (self.root / "job.prom").read_text().splitlines()
        return [line for line in lines if line.startswith("quicksilver_training_verdict") and line.endswith(" 1.0")]

    def timestamp(self, file: str, what: str) -> float:
        """A time that a file for Prometheus tells of the model, in Unix time."""
        series = f'quicksilver_training_{what}_timestamp_seconds{{model="linear"}} '
        (line,) = [line for line in (self.root / file).read_text().splitlines() if line.startswith(series)]
        return float(line.removeprefix(series))

    def report(self) -> tuple[Path, dict[str, Any]]:
        """The one report that was written, and its verdict."""
        (path,) = [path for path in self.reports.iterdir() if not path.name.startswith(".")]
        return path, json.loads((path / verdict.JSON_FILE).read_text())

    def hidden(self) -> set[str]:
        """What lies among the reports that is none."""
        return {path.name for path in self.reports.glob(".*")}


def said(stream: IO[str], text: str) -> bool:
    """Read lines until one holds the text; whether one did."""
    return any(text in line for line in stream)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh one."""
    return Place(tmp_path)


# What is accepted -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A thermometer drifted, jumped in the middle, and was observed; a challenger was accepted. Not to be changed."""
    place = Place(tmp_path_factory.mktemp("accepted"))
    place.observe(Thermometer(jump_day=8.0, jump_fahrenheit=6.0))
    assert place.retrain("--seeds", "2", "--epochs", "250") == verdict.ACCEPTED
    return place


def test_drifting_thermometer_gets_a_new_version_on_trial(accepted: Place) -> None:
    """It is published, labelled canary, and stable stays where it was; nothing is left elsewhere."""
    assert accepted.repository.versions("linear") == [1, 2]
    assert accepted.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert accepted.hidden() == {".lock"}
    assert [path.name for path in accepted.reports.iterdir()] == [".lock"]
    assert accepted.told() == ['quicksilver_training_verdict{model="linear",verdict="accepted"} 1.0']


def test_verdict_stands_beside_the_version(accepted: Place) -> None:
    """As JSON with every figure, and as a page that refers to nothing outside itself."""
    directory = accepted.repository.model_path("linear", 2).parent
    assert {path.name for path in directory.iterdir()} == {MODEL_FILE, verdict.JSON_FILE, verdict.PAGE_FILE}
    found = json.loads((directory / verdict.JSON_FILE).read_text())
    assert (found["schema_version"], found["outcome"], found["label"]) == (1, "accepted", "canary")
    assert [check["name"] for check in found["checks"]] == [
        "parity and golden vectors",
        "absolute bound",
        "better than the champion",
        "worse for no source",
        "served by a real process",
    ]
    assert all(check["passed"] for check in found["checks"])
    assert {(each["kind"], each["recent"]) for each in found["candidates"]} == {
        (kind, recent) for kind in ("linear", "mlp") for recent in (1.0, 0.5, 0.25)
    }
    assert found["challenger"]["fit"] == found["candidates"][0]
    page = Page((directory / verdict.PAGE_FILE).read_text())
    assert page.outside_references() == []
    assert "The challenger takes part" in page.text
    assert len(page.images()) == 2


def test_held_out_rows_are_newer_than_all_that_either_was_trained_on(accepted: Place) -> None:
    """The file says until when it was observed, and the rows that judged it begin after that, from several sources."""
    directory = accepted.repository.model_path("linear", 2).parent
    parts = json.loads((directory / verdict.JSON_FILE).read_text())["observations"]["parts"]
    artefact = read_artefact((directory / MODEL_FILE).read_bytes())
    assert artefact is not None
    assert artefact.observed_until_seconds == parts["validation"]["until_seconds"]
    assert parts["training"]["until_seconds"] < parts["validation"]["since_seconds"]
    assert parts["validation"]["until_seconds"] < parts["held_out"]["since_seconds"]
    assert len(parts["held_out"]["sources"]) == 3


def test_accepted_version_is_the_better_one(accepted: Place) -> None:
    """On readings that the thermometer shows today, its answers are near the truth, and the champion's are not."""
    celsius = np.linspace(0.0, 25.0, 50)
    today = Thermometer(jump_day=8.0, jump_fahrenheit=6.0).show(celsius, np.full(50, DAYS[1]))
    old = champion.read_champion(accepted.repository, "linear")
    assert old is not None
    directory = accepted.repository.model_path("linear", 2)
    new = champion.answer(Engine(directory.read_bytes()), today)
    assert np.abs(new - celsius).mean() < 1.5
    assert np.abs(old.answer(today) - celsius).mean() > 4.0


# What is not ----------------------------------------------------------------------------------------------------------


def test_a_poisoned_batch_is_rejected(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand wrong truths from one source change nothing: the challenger is no better, and stays outside."""
    place.observe(STEADY, 400)
    place.add(
        observe(
            STEADY,
            (16.0, 20.0),
            1000,
            start_seconds=place.start_seconds,
            sources=("mallory",),
            error_celsius=20.0,
            seed=1,
        )
    )
    before = place.repository.model_path("linear", 1).read_bytes()
    assert place.retrain(*QUICK) == verdict.REJECTED
    path, found = place.report()
    assert found["observations"]["by_source"]["mallory"]["read"] == 1000
    assert found["observations"]["by_source"]["mallory"]["used"] < 20
    assert [check["name"] for check in found["checks"] if not check["passed"]] == ["better than the champion"]
    assert found["challenger"]["sha256"] != found["champion"]["sha256"]
    assert (path / MODEL_FILE).stat().st_size == found["challenger"]["size_bytes"]
    assert place.repository.versions("linear") == [1]
    assert place.repository.labels("linear") == {"stable": 1}
    assert place.repository.model_path("linear", 1).read_bytes() == before
    assert "linear: rejected" in capsys.readouterr().out
    assert place.told() == ['quicksilver_training_verdict{model="linear",verdict="rejected"} 1.0']


def test_one_of_two_sources_that_is_wrong_is_not_believed(place: Place) -> None:
    """Where nobody can say which of two is right, a challenger that is worse for one of them does not pass."""
    place.observe(STEADY, 400, sources=("honest",))
    place.observe(STEADY, 400, sources=("mallory",), error_celsius=3.0, seed=1)
    assert place.retrain(*QUICK) == verdict.REJECTED
    _, found = place.report()
    assert "worse for no source" in [check["name"] for check in found["checks"] if not check["passed"]]
    assert place.repository.versions("linear") == [1]


@pytest.mark.parametrize(
    ("rows", "sources", "says"),
    [
        (100, ("attic", "cellar"), "100 usable observations"),
        (400, ("attic",), "1 sources"),
        (0, ("attic",), "0 usable"),
    ],
)
def test_too_little_data_is_told_and_nothing_fitted(
    place: Place, rows: int, sources: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few observations, or from one source alone, have an exit code of their own, and a report."""
    place.observe(STEADY, rows, sources=sources)
    assert place.retrain() == verdict.NOT_ENOUGH_DATA
    _, found = place.report()
    assert says in " ".join(found["reasons"])
    assert found["candidates"] == []
    assert place.told() == ['quicksilver_training_verdict{model="linear",verdict="not_enough_data"} 1.0']
    assert "epoch" not in capsys.readouterr().err


def test_observations_that_a_champion_was_fitted_to_do_not_judge_it(place: Place) -> None:
    """After a champion that knows nearly all there is, too little is left that is newer."""
    place.observe(STEADY, 400)
    until = place.start_seconds + 19.0 * DAY_SECONDS
    known = dataclasses.replace(describe(), observed_until_seconds=until)
    place.repository.set_label("linear", "stable", place.repository.publish("linear", make_artefact(known)))
    assert place.retrain() == verdict.NOT_ENOUGH_DATA
    _, found = place.report()
    assert found["champion"]["observed_until_seconds"] == until
    assert found["observations"]["parts"]["held_out"]["rows"] == 19
    assert "are newer than all that is fitted to" in found["reasons"][0]


def test_what_goes_wrong_is_told_in_one_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that is not there, a champion of another kind, a threshold that means nothing: each has its words."""
    words = place.words()
    assert cli.main([*words, "--observations", "sqlite:////nowhere/at/all.db"]) == verdict.FAILED
    assert "there is no store: /nowhere/at/all.db is missing" in capsys.readouterr().err
    assert place.retrain() == verdict.FAILED
    assert not (place.root / "observations.db").exists()
    capsys.readouterr()
    assert place.told() == ['quicksilver_training_verdict{model="linear",verdict="failed"} 1.0']
    assert cli.main([*words, "--significance", "0.2"]) == verdict.MISUSED
    assert "0.041" in capsys.readouterr().err
    place.repository.set_label("linear", "stable", place.repository.publish("linear", b"no model"))
    assert place.retrain() == verdict.FAILED
    assert "the champion, linear/2, cannot be judged against" in capsys.readouterr().err


def test_an_accepted_challenger_goes_through_a_server(place: Place) -> None:
    """With --to the server publishes it with its verdict, and labels it. What fails is tried again."""
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    gone = options.parse_args([*place.words("--to", "127.0.0.1:1", "--timeout", "1")[1:]])
    verdict_in = accepted_verdict(retrain.plan_of(gone))
    model = make_artefact(offset_celsius=1.0)
    current = champion.read_champion(place.repository, "linear")
    with serving(place.repository.root) as server:
        plan = retrain.plan_of(options.parse_args([*place.words("--to", server.address)[1:]]))
        halfway = dataclasses.replace(plan, give_label=retrain.plan_of(gone).give_label)
        with job.locked(plan):
            made = job.publish_accepted(halfway, verdict_in, model, current)
        assert made.version == 2
        assert made.remark is not None
        assert "UNAVAILABLE" in made.remark
        assert place.repository.labels("linear") == {"stable": 1}
        with job.locked(plan):
            assert place.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert made.report == place.repository.model_path("linear", 2).with_name(verdict.PAGE_FILE)
    assert made.report.is_file()
    assert place.hidden() == {".lock"}


# Jobs that meet, jobs that die ----------------------------------------------------------------------------------------


def test_a_second_job_says_that_one_is_at_it_and_a_killed_one_keeps_nobody_out(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """While one fits, another ends at once with a code of its own; when the first is killed, the next job works."""
    place.observe(STEADY, 400)
    first = place.start("--epochs", "1000000")
    assert first.stdout is not None
    assert first.stderr is not None
    with first.stdout, first.stderr:
        assert said(first.stderr, "epoch 1 of")
        assert place.retrain(*QUICK) == verdict.BUSY
        assert "another job retrains 'linear'" in capsys.readouterr().err
        first.kill()
        assert first.wait() == -signal.SIGKILL
    assert place.repository.versions("linear") == [1]
    assert place.retrain(*QUICK) == verdict.REJECTED
    assert place.hidden() == {".lock"}


@pytest.mark.timeout(400)  # a process a step
def test_publishing_killed_at_any_step_leaves_nothing_half_done(place: Place, tmp_path: Path) -> None:
    """Afterwards the version is there with its verdict, or not at all; and the next job gives it its label."""
    (place.root / "challenger.onnx").write_bytes(make_artefact(offset_celsius=1.0))
    template, output = tmp_path / "template", tmp_path / "killed"
    template.mkdir()
    for name in ("models", "challenger.onnx"):
        (place.root / name).rename(template / name)
    program = Path(__file__).with_name("crash_publish.py")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(program.parents[2])}
    first = random.randint(1, STRIDE)  # noqa: S311 - a moment, not a secret
    command = [sys.executable, str(program), str(template), str(output), str(first), str(STRIDE)]
    subprocess.run(command, check=True, timeout=350, env=environment)
    roots = sorted(output.iterdir(), key=lambda root: int(root.name))
    assert len(roots) > 60, "the job was killed all along its way"
    published = []
    for root in roots:
        plan = plan_in(root)
        with job.locked(plan):
            pass
        versions, labels = plan.repository.versions("linear"), plan.repository.labels("linear")
        published.append(versions == [1, 2])
        assert versions == ([1, 2] if published[-1] else [1])
        assert labels == ({"stable": 1, "canary": 2} if published[-1] else {"stable": 1})
        assert {path.name for path in plan.directory.glob(".*")} == {".lock"}
        if published[-1]:
            beside = plan.repository.model_path("linear", 2).parent
            assert {path.name for path in beside.iterdir()} == {MODEL_FILE, verdict.JSON_FILE, verdict.PAGE_FILE}
    assert published == sorted(published)
    assert True in published[:-1]


# The schedule ---------------------------------------------------------------------------------------------------------


def test_schedule_goes_on_until_it_is_told_to_end(place: Place) -> None:
    """Where nothing drifted a round does nothing and says so; SIGTERM ends the wait for the next one."""
    place.observe(STEADY, 400)
    process = place.start("--every", "1h", "--if-drift")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline() == "linear: nothing to do: no drift\n"
        assert said(process.stderr, "the round ended with 0")
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert place.hidden() == {".lock"}


def test_a_schedule_tells_of_every_look(place: Place) -> None:
    """A look that finds nothing to do is told of and claims no job; one after a job is as old as the job."""
    began = time.time()
    place.observe(STEADY, 400)
    assert place.retrain("--if-drift") == verdict.ACCEPTED
    assert began <= place.timestamp("job.look.prom", "last_look") <= time.time()
    assert not (place.root / "job.prom").exists()
    assert place.retrain("--if-drift", "--observations", f"sqlite:///{place.root}/nowhere/no.db") == verdict.FAILED
    assert place.timestamp("job.look.prom", "last_look") == place.timestamp("job.prom", "last_run")


def test_without_a_schedule_nobody_waits_for_a_look(place: Place) -> None:
    """A job that somebody started by hand is told of, and no look."""
    place.observe(STEADY, 100)
    assert place.retrain() == verdict.NOT_ENOUGH_DATA
    assert (place.root / "job.prom").exists()
    assert not (place.root / "job.look.prom").exists()


def test_drift_is_found_and_a_version_on_trial_waited_for(place: Place) -> None:
    """A jump is drift; while a challenger is on trial, there is nothing to do."""
    place.observe(Thermometer(jump_day=0.0, jump_fahrenheit=10.0))
    plan = dataclasses.replace(plan_in(place.root), observations=place.url)
    wanted = job.look(plan, DriftRules(), time.time())
    assert wanted.is_wanted
    assert "errors have grown" in wanted.reason
    place.repository.set_label("linear", "canary", place.repository.publish("linear", make_artefact()))
    wanted = job.look(plan, DriftRules(), time.time())
    assert not wanted.is_wanted
    assert "version 2 is on trial" in wanted.reason


def test_a_model_without_a_champion_wants_one(tmp_path: Path) -> None:
    """A name with no version yet is no drift, and is trained all the same."""
    assert job.look(plan_in(tmp_path), DriftRules(), time.time()).is_wanted

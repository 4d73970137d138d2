"""`quicksilver retrain`: a drifting thermometer gets a better converter, and nothing worse ever takes its place.

The jobs are the real command on a real store and a real repository; what they accept was served by a real process.
"""

import argparse
import contextlib
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from proto.repository import LABELS_FILE, MODEL_FILE, RepositoryError
from tests.e2e.processes import ENVIRONMENT, serving
from tests.service.artefacts import describe, make_artefact
from tests.thermometer import DAY_SECONDS, Thermometer, observe
from tests.training.crash_publish import accepted as accepted_verdict
from tests.training.crash_publish import plan_in
from tests.training.pages_read import Page
from tests.training.place import DAYS, QUICK, STEADY, Place, said
from training import champion, cli, job, retrain, verdict
from training.acceptance import publish_accepted
from training.drift import DriftRules
from training.errors import ChampionError
from training.fit import Progress
from training.job_lock import locked
from training.parity import Engine
from training.progress import shown
from training.publish import read_artefact
from training.retrain_options import bounds_of, drift_rules_of
from training.wanted import look

DOCUMENTED = Path(__file__).parents[2] / "docs" / "retraining.md"


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
        "the sources agree",
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
    for option in ("--significance", "--drift-significance"):
        assert cli.main([*words, option, "0.2"]) == verdict.MISUSED
        assert "0.041" in capsys.readouterr().err
    place.repository.set_label("linear", "stable", place.repository.publish("linear", b"no model"))
    assert place.retrain() == verdict.FAILED
    assert "the champion, linear/2, cannot be judged against" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", [("--every", "1h"), ("--if-drift",)], ids=["every", "if-drift"])
def test_a_schedule_promotes_nothing_by_itself(
    place: Place, schedule: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A test at one level, repeated, would promote by chance: the options together are refused, and why is said."""
    place.observe(STEADY, 400)
    assert place.retrain("--promote", *schedule) == verdict.MISUSED
    assert "quicksilver promote --watch" in capsys.readouterr().err
    assert not place.reports.exists()


def test_each_test_has_a_level_of_its_own() -> None:
    """`--significance` is the gate's, `--drift-significance` that of drift."""
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    asked = options.parse_args(["linear", "--significance", "0.01", "--drift-significance", "0.04"])
    assert bounds_of(asked).significance == 0.01
    assert drift_rules_of(asked).significance == 0.04


def test_the_repository_is_the_one_of_the_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """`QUICKSILVER_REPOSITORY` names it, as for a server; a flag goes before, and without either it is `models`."""

    def asked(*words: str) -> Path:
        options = argparse.ArgumentParser()
        retrain.add_arguments(options)
        repository: Path = options.parse_args(["linear", *words]).repository
        return repository

    monkeypatch.delenv("QUICKSILVER_REPOSITORY", raising=False)
    assert asked() == Path("models")
    monkeypatch.setenv("QUICKSILVER_REPOSITORY", "elsewhere")
    assert asked() == Path("elsewhere")
    assert asked("--repository", "here") == Path("here")


def test_more_rows_than_may_be_kept_are_told(place: Place) -> None:
    """The verdict counts those that were left out for it with those that were read."""
    place.observe(STEADY, 900)
    assert place.retrain("--most", "300", *QUICK) == verdict.REJECTED
    _, found = place.report()
    assert found["rules"]["most_rows"] == 300
    assert found["observations"]["read"] == 900
    assert 200 <= found["observations"]["used"] <= 300
    parts = found["observations"]["parts"]
    days = (parts["held_out"]["until_seconds"] - parts["training"]["since_seconds"]) / DAY_SECONDS
    assert days > 0.95 * (DAYS[1] - DAYS[0])


def test_an_accepted_challenger_goes_through_a_server(place: Place) -> None:
    """With --to the server publishes it with its verdict, and labels it. What fails is tried again."""
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    gone = options.parse_args([*place.words("--to", "127.0.0.1:1", "--timeout", "1")[1:]])
    model = make_artefact(offset_celsius=1.0)
    verdict_in = accepted_verdict(retrain.plan_of(gone), model)
    current = champion.read_champion(place.repository, "linear")
    with serving(place.repository.root) as server:
        plan = retrain.plan_of(options.parse_args([*place.words("--to", server.address)[1:]]))
        halfway = dataclasses.replace(plan, give_label=retrain.plan_of(gone).give_label)
        with locked(plan):
            made = publish_accepted(halfway, verdict_in, model, current, plan.repository.labels_state("linear"))
        assert made.version == 2
        assert made.remark is not None
        assert "UNAVAILABLE" in made.remark
        assert place.repository.labels("linear") == {"stable": 1}
        with locked(plan):
            assert place.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert made.report == place.repository.model_path("linear", 2).with_name(verdict.PAGE_FILE)
    assert made.report.is_file()
    assert place.hidden() == {".lock"}


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


def documented() -> list[str]:
    """The commands at the top of docs/retraining.md."""
    (block, *_) = re.findall(r"^```text\n(.*?)^```$", DOCUMENTED.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line.startswith("quicksilver ")]


def test_the_documented_commands_work(place: Place) -> None:
    """As they stand, where a steady thermometer was observed: the one is rejected, the other goes on until SIGTERM."""
    place.observe(STEADY, 400)
    once, schedule = (shlex.split(line)[1:] for line in documented())
    ran = subprocess.run(
        [sys.executable, "-m", "quicksilver", *once, *QUICK],
        cwd=place.root,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == verdict.REJECTED, ran.stderr
    with subprocess.Popen(
        [sys.executable, "-m", "quicksilver", *schedule],
        cwd=place.root,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "linear: nothing to do: no drift\n"
        assert said(process.stderr, "the round ended with 0")
        process.terminate()
        assert process.wait(timeout=60) == 0


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
    wanted = look(plan, DriftRules(), time.time())
    assert wanted.is_wanted
    assert "errors have grown" in wanted.reason
    place.repository.set_label("linear", "canary", place.repository.publish("linear", make_artefact()))
    for rules in (DriftRules(), None):
        wanted = look(plan, rules, time.time())
        assert not wanted.is_wanted
        assert "version 2 is on trial" in wanted.reason
        assert wanted.overdue is None
    place.repository.set_label("linear", "stable", 2)
    assert look(plan, None, time.time()).is_wanted, "without --if-drift every round is wanted but for a trial"


def test_a_model_without_a_champion_wants_one(tmp_path: Path) -> None:
    """A name with no version yet is no drift, and is trained all the same."""
    assert look(plan_in(tmp_path), DriftRules(), time.time()).is_wanted


# A trial that nothing decides -----------------------------------------------------------------------------------------


def put_on_trial(place: Place, ago_seconds: float) -> None:
    """Label a second version `canary`, so long ago."""
    place.repository.set_label("linear", "canary", place.repository.publish("linear", make_artefact()))
    path = place.repository.root / "linear" / LABELS_FILE
    content = json.loads(path.read_text())
    assert content["canary_since_seconds"] == pytest.approx(time.time(), abs=600)
    path.write_text(json.dumps(content | {"canary_since_seconds": time.time() - ago_seconds}))


@pytest.mark.parametrize("schedule", [("--every", "1h"), ("--if-drift",)], ids=["every", "if-drift"])
def test_a_trial_is_waited_for_and_that_is_no_failure(
    place: Place, schedule: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A round of a schedule does nothing, says why and for how long, and ends with 0; without one it is made."""
    place.observe(STEADY, 400)
    put_on_trial(place, 13 * DAY_SECONDS)
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    assert retrain.one_round(options.parse_args(place.words(*schedule)[1:])) == verdict.ACCEPTED
    said_of_it = "version 2 is on trial as 'canary' for 13 days, and waited for up to 14 days"
    assert f"linear: nothing to do: {said_of_it}" in capsys.readouterr().out
    assert place.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert not (place.root / "job.prom").exists()
    assert 'quicksilver_training_trial_expired{model="linear"} 0.0' in (place.root / "job.look.prom").read_text()
    assert place.retrain(*QUICK) == verdict.REJECTED


@pytest.mark.parametrize("ago_days", [15, -100], ids=["old", "ahead"])
def test_a_trial_that_nothing_decides_is_ended_and_retraining_goes_on(
    place: Place, ago_days: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its label goes, which is said, told and stands in the verdict; the same round is made."""
    place.observe(Thermometer(jump_day=0.0, jump_fahrenheit=10.0))
    put_on_trial(place, ago_days * DAY_SECONDS)
    assert place.retrain("--if-drift", "--bound", "0.001", *QUICK) == verdict.REJECTED
    printed = capsys.readouterr()
    assert "it is ended, and the version is labelled 'canary' no more" in printed.err
    assert "drift: " in printed.out
    assert place.repository.labels("linear") == {"stable": 1}
    path, found = place.report()
    assert found["ended_trial"]["version"] == 2
    assert found["ended_trial"]["reason"] in printed.out
    assert "Before it: version 2" in Page((path / verdict.PAGE_FILE).read_text()).text
    assert 'quicksilver_training_trial_expired{model="linear"} 1.0' in (place.root / "job.look.prom").read_text()
    assert place.retrain("--if-drift", "--bound", "0.001", *QUICK) == verdict.REJECTED
    assert 'quicksilver_training_trial_expired{model="linear"} 0.0' in (place.root / "job.look.prom").read_text()


def test_how_long_a_trial_is_waited_for_is_an_option(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A round that then finds no drift still tells that it ended a trial."""
    place.observe(STEADY, 400)
    put_on_trial(place, 2 * DAY_SECONDS)
    assert place.retrain("--if-drift", "--trial-patience", "36h") == verdict.ACCEPTED
    assert "nothing to do: no drift" in capsys.readouterr().out
    assert place.repository.labels("linear") == {"stable": 1}
    assert 'quicksilver_training_trial_expired{model="linear"} 1.0' in (place.root / "job.look.prom").read_text()


def test_an_overdue_trial_whose_labels_changed_since_is_left_alone(place: Place) -> None:
    """Somebody gave the label anew between the look and its end: nothing is taken away."""
    put_on_trial(place, 15 * DAY_SECONDS)
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    plan = retrain.plan_of(options.parse_args(place.words()[1:]))
    state = plan.repository.labels_state("linear")
    assert look(plan, None, time.time()).overdue is not None
    plan.repository.set_label("linear", "canary", 1)
    plan.repository.set_label("linear", "canary", 2)
    with pytest.raises(RepositoryError, match="were changed meanwhile"):
        plan.end_trial(2, state)
    assert plan.repository.labels("linear") == {"stable": 1, "canary": 2}


def test_an_overdue_trial_is_ended_through_a_server(place: Place) -> None:
    """With --to the server takes the label away; it is not asked where labels changed since."""
    put_on_trial(place, 15 * DAY_SECONDS)
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    with serving(place.repository.root) as server:
        plan = retrain.plan_of(options.parse_args([*place.words("--to", server.address)[1:]]))
        with pytest.raises(RepositoryError, match="were changed meanwhile"):
            plan.end_trial(2, "another state")
        assert place.repository.labels("linear") == {"stable": 1, "canary": 2}
        plan.end_trial(2, plan.repository.labels_state("linear"))
    assert place.repository.labels("linear") == {"stable": 1}


def test_a_label_that_is_given_while_a_job_fits_is_not_overruled(place: Place) -> None:
    """The job ends without a verdict, and publishes nothing."""
    place.observe(Thermometer(jump_day=8.0, jump_fahrenheit=6.0))
    second = place.repository.publish("linear", make_artefact())
    options = argparse.ArgumentParser()
    retrain.add_arguments(options)
    plan = retrain.plan_of(options.parse_args(place.words(*QUICK)[1:]))

    def decide(title: str, epochs: int) -> contextlib.AbstractContextManager[Progress]:
        if "canary" not in place.repository.labels("linear"):
            place.repository.set_label("linear", "canary", second)
        return shown(title, epochs)

    with locked(plan), pytest.raises(ChampionError, match="labels of 'linear' were changed"):
        job.run_round(plan, time.time(), decide, plan.repository.labels_state("linear"))
    assert place.repository.versions("linear") == [1, 2]
    assert place.repository.labels("linear") == {"stable": 1, "canary": 2}


def test_a_repository_that_is_not_there_is_told_and_not_made(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped path leaves nothing behind; a directory that somebody made takes a first version."""
    place.observe(STEADY, 100)
    mistyped = place.root / "elsewhere"
    assert place.retrain("--repository", str(mistyped)) == verdict.FAILED
    assert f"{mistyped}: there is no model repository" in capsys.readouterr().err
    assert not mistyped.exists()
    assert not place.reports.exists()
    mistyped.mkdir()
    assert place.retrain("--repository", str(mistyped)) == verdict.NOT_ENOUGH_DATA

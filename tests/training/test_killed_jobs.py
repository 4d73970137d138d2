"""Jobs that meet and jobs that die: one works on a model at a time, and none leaves anything half-done.

Each is killed by SIGKILL, at one step after the other of what it does in the file system.
"""

import contextlib
import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proto.repository import CANARY, LABELS_FILE, MODEL_FILE
from tests.e2e.processes import ENVIRONMENT
from tests.service.artefacts import make_artefact
from tests.training.crash_publish import KEPT, accepted, plan_in
from tests.training.place import QUICK, STEADY, Place, said
from training import verdict
from training.acceptance import publish_accepted
from training.champion import current_version, read_champion
from training.errors import ChampionError
from training.job_lock import locked
from training.plan import Plan
from training.verdict_files import reports

STRIDES = {"publish": 4, "finish": 9, "report": 5}
"""A job is killed at every so many-th of its steps; another run of the tests has others."""


@contextlib.contextmanager
def running(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed at the end, whatever came of the test."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(400)  # six jobs, one after the other
def test_a_second_job_says_that_one_is_at_it_and_a_killed_one_keeps_nobody_out(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """While one fits, another ends at once with a code of its own; when the first is killed, the next job works."""
    place.observe(STEADY, 400)
    with running(place.start("--epochs", "1000000")) as first:
        assert first.stderr is not None
        assert said(first.stderr, "epoch 1 of")
        assert place.retrain(*QUICK) == verdict.BUSY
        assert "another job retrains 'linear' in " in capsys.readouterr().err
        assert place.retrain(*QUICK, "--reports", str(place.root / "other")) == verdict.BUSY
        assert "another job retrains 'linear' in " in capsys.readouterr().err
        (place.root / "others").mkdir()
        assert place.retrain(*QUICK, "--repository", str(place.root / "others")) == verdict.BUSY
        assert "another job retrains 'linear' with the reports in " in capsys.readouterr().err
    assert first.returncode == -signal.SIGKILL
    assert place.repository.versions("linear") == [1]
    assert place.retrain(*QUICK) == verdict.REJECTED
    assert place.hidden() == {".lock"}


def killed(place: Place, operation: str, output: Path) -> list[Path]:
    """Directories in which a job was killed at one step after the other of an operation (see `crash_publish`)."""
    template = output.with_name("template")
    template.mkdir()
    (template / "challenger.onnx").write_bytes(make_artefact(offset_celsius=1.0))
    (place.root / "models").rename(template / "models")
    program = Path(__file__).with_name("crash_publish.py")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(program.parents[2])}
    first = random.randint(1, STRIDES[operation])  # noqa: S311 - a moment, not a secret
    words = [operation, str(template), str(output), str(first), str(STRIDES[operation])]
    subprocess.run([sys.executable, str(program), *words], check=True, timeout=350, env=environment)
    return sorted(output.iterdir(), key=lambda root: int(root.name))


def next_job(root: Path) -> tuple[Plan, str | None]:
    """What the next job does at its beginning, with reports of its own: nothing that it needs lies among the others."""
    plan = dataclasses.replace(plan_in(root), reports=root / "other")
    with locked(plan) as remark:
        return plan, remark


def assert_tidy(plan: Plan) -> None:
    """Nothing is left of what was to be done, and each published version has its verdict."""
    assert {path.name for path in plan.intent_path.parent.iterdir()} == {plan.lock_path.name}
    assert {path.name for path in plan.directory.glob(".*")} == {".lock"}
    if 2 in plan.repository.versions("linear"):
        beside = plan.repository.model_path("linear", 2).parent
        assert {path.name for path in beside.iterdir()} == {MODEL_FILE, verdict.JSON_FILE, verdict.PAGE_FILE}


@pytest.mark.timeout(400)  # a process a step
def test_publishing_killed_at_any_step_leaves_nothing_half_done(place: Place, tmp_path: Path) -> None:
    """The version is there with its verdict, or not at all; the next job labels it, but never against a decision.

    Where the killed job had given the label, and the version was rejected on trial before the next job came, it is not
    put on trial again.
    """
    roots = killed(place, "publish", tmp_path / "killed")
    assert len(roots) > 45, "the job was killed all along its way"
    published, labelled = [], []
    for root in roots:
        repository = plan_in(root).repository
        published.append(repository.versions("linear") == [1, 2])
        labelled.append(CANARY in repository.labels("linear"))
        is_rejected = labelled[-1] and sum(labelled) % 2 == 1
        if is_rejected:
            repository.remove_label("linear", CANARY, expected=2)
        next_job(root)
        expected = {"stable": 1, "canary": 2} if published[-1] and not is_rejected else {"stable": 1}
        assert repository.labels("linear") == expected
        assert repository.versions("linear") == ([1, 2] if published[-1] else [1])
        shutil.rmtree(root / "other")
        with locked(plan_in(root)):
            pass
        assert_tidy(plan_in(root))
    assert published == sorted(published)
    assert labelled == sorted(labelled)
    assert published.count(True) > labelled.count(True) > 1, "killed before the label, and after it"


@pytest.mark.timeout(400)  # a process a step
def test_finishing_killed_at_any_step_is_finished_by_the_next(place: Place, tmp_path: Path) -> None:
    """A job that labels what another one published may die of it too."""
    roots = killed(place, "finish", tmp_path / "killed")
    assert len(roots) > 5, "the job was killed all along its way"
    for root in roots:
        with locked(plan_in(root)) as remark:
            assert remark is None
        assert plan_in(root).repository.labels("linear") == {"stable": 1, "canary": 2}
        assert_tidy(plan_in(root))


@pytest.mark.timeout(400)  # a process a step
def test_reports_appear_and_go_as_a_whole(place: Place, tmp_path: Path) -> None:
    """Killed at any step, whatever can be seen among the reports has all of its files."""
    roots = killed(place, "report", tmp_path / "killed")
    assert len(roots) > 10, "the job was killed all along its way"
    for root in roots:
        plan = plan_in(root)
        shown = [path for path in plan.directory.iterdir() if not path.name.startswith(".")]
        assert KEPT <= len(shown) <= KEPT + 1
        for path in shown:
            assert {verdict.JSON_FILE, verdict.PAGE_FILE} <= {file.name for file in path.iterdir()}
        with locked(plan):
            assert len(reports(plan.directory)) == len(shown)
        assert_tidy(plan)


def test_a_version_of_the_same_file_that_was_decided_on_before_is_not_labelled(place: Place) -> None:
    """A job that dies before it publishes leaves the label to nobody, also where an older version is the same file."""
    plan = plan_in(place.root)
    model = make_artefact(offset_celsius=1.0)
    place.repository.publish("linear", model)

    def die(_model: bytes, _beside: object) -> int:
        raise ChampionError("killed")

    champion = read_champion(place.repository, "linear")
    state = place.repository.labels_state("linear")
    with pytest.raises(ChampionError, match="killed"), locked(plan):
        publish_accepted(dataclasses.replace(plan, deliver=die), accepted(plan, model), model, champion, state)
    assert plan.intent_path.exists()
    assert next_job(place.root)[1] is None
    assert place.repository.labels("linear") == {"stable": 1}
    assert not plan.intent_path.exists()


def test_a_champion_without_a_label_stays_the_champion(place: Place) -> None:
    """Where the newest version answers for want of labels, a version on trial must not take its place, nor nobody."""
    (place.repository.root / "linear" / LABELS_FILE).unlink()
    plan = plan_in(place.root)
    champion = read_champion(place.repository, "linear")
    model = make_artefact(offset_celsius=1.0)
    with locked(plan):
        made = publish_accepted(plan, accepted(plan, model), model, champion, plan.repository.labels_state("linear"))
    assert made.remark is None
    assert place.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert current_version(place.repository, "linear") == 1


def test_what_is_no_intent_is_told(place: Place) -> None:
    """Somebody wrote where only jobs write: the job says which file, and does nothing."""
    plan = plan_in(place.root)
    plan.intent_path.parent.mkdir()
    for content in ("{", json.dumps({"label": "canary"}), "[]"):
        plan.intent_path.write_text(content)
        with pytest.raises(ChampionError, match=r"intent\.json does not say"), locked(plan):
            pass

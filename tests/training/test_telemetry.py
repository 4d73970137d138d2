"""What training jobs tell of themselves: to a real Pushgateway, and in files."""

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.environments import free_port
from tests.operations.debian import unpacked
from tests.waiting import answers, until
from training.cli import main
from training.errors import TelemetryError
from training.telemetry import FAMILIES, JobMetrics, Look, Verdict, check_places, deliver, deliver_look

ACCEPTED = JobMetrics("mlp", 12.5, 1_800_000_000.0, "accepted", 2.1, 2.4, 5000)
LAST_LOOK = "quicksilver_training_last_look_timestamp_seconds"
TRIAL_EXPIRED = "quicksilver_training_trial_expired"
QUICK = ["--epochs", "60"]

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """The training families of an exposition: name and labels, those of the Pushgateway left out."""
    return {
        (sample.name, *(value for key, value in sample.labels.items() if key not in {"job", "instance"})): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name in FAMILIES
    }


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """A real Pushgateway, Debian's."""
    program = unpacked("prometheus-pushgateway") / "usr/bin/prometheus-pushgateway"
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen([program, f"--web.listen-address={address}", "--log.level=error"]) as process:

        def ready() -> bool:
            assert process.poll() is None, "the Pushgateway ended"
            return answers(f"http://{address}/-/ready")

        until(ready, "the Pushgateway")
        yield f"http://{address}"
        process.terminate()


def kept(gateway: str) -> Samples:
    """What a Pushgateway exposes."""
    with urlopen(f"{gateway}/metrics", timeout=10) as response:  # noqa: S310 - our own process
        return samples(response.read().decode())


def test_a_job_is_told_whole() -> None:
    """Every family the module names is told of a job that knows everything, and the verdict stands alone at 1."""
    assert {name for name, *_ in told(ACCEPTED)} == {*FAMILIES} - {LAST_LOOK, TRIAL_EXPIRED}
    assert told(ACCEPTED)["quicksilver_training_loss", "mlp", "validation"] == 2.4
    verdicts = {
        verdict: told(ACCEPTED)["quicksilver_training_verdict", "mlp", verdict] for verdict in get_args(Verdict)
    }
    assert verdicts == {"accepted": 1, "rejected": 0, "not_enough_data": 0, "failed": 0}


def told(job: JobMetrics) -> Samples:
    """What a registry of a job holds."""
    from prometheus_client import generate_latest  # noqa: PLC0415 - beside its one use

    from training.telemetry import registry_of  # noqa: PLC0415 - as above

    return samples(generate_latest(registry_of(job)).decode())


def test_what_is_not_known_is_not_told() -> None:
    """A job that failed has no losses; one that no gate looked at has no verdict."""
    assert {name for name, *_ in told(JobMetrics("mlp", 1.0, 2.0, "failed"))} == {
        "quicksilver_training_duration_seconds",
        "quicksilver_training_last_run_timestamp_seconds",
        "quicksilver_training_verdict",
    }
    assert "quicksilver_training_verdict" not in {name for name, *_ in told(JobMetrics("mlp", 1.0, 2.0))}


def test_a_pushgateway_keeps_the_last_job_of_each_model(gateway: str) -> None:
    """A later job takes the place of an earlier one of its model, whole, and leaves other models alone."""
    deliver(ACCEPTED, push_to=gateway)
    deliver(JobMetrics("linear", 3.0, 1_800_000_001.0, "rejected", 2.8, 3.9, 3000), push_to=gateway)
    assert kept(gateway)["quicksilver_training_loss", "mlp", "train"] == 2.1
    deliver(JobMetrics("mlp", 0.5, 1_800_000_002.0, "failed"), push_to=gateway)
    after = kept(gateway)
    assert ("quicksilver_training_loss", "mlp", "train") not in after
    assert after["quicksilver_training_verdict", "mlp", "failed"] == 1
    assert after["quicksilver_training_verdict", "mlp", "accepted"] == 0
    assert after["quicksilver_training_verdict", "linear", "rejected"] == 1


def test_a_look_leaves_the_last_job_as_it_was(gateway: str, tmp_path: Path) -> None:
    """A round that found nothing to do adds when it looked, at both places, and takes nothing away."""
    file = tmp_path / "training.prom"
    job = dataclasses.replace(ACCEPTED, model="looked at")
    deliver(job, push_to=gateway, file=file)
    before = {key: value for key, value in kept(gateway).items() if "looked at" in key}
    deliver_look(Look("looked at", 1_800_003_600.0, trial_expired=True), push_to=gateway, file=file)
    after = {key: value for key, value in kept(gateway).items() if "looked at" in key}
    assert before == told(job) == samples(file.read_text())
    look = {(LAST_LOOK, "looked at"): 1_800_003_600.0, (TRIAL_EXPIRED, "looked at"): 1.0}
    assert after == before | look
    assert samples((tmp_path / "training.look.prom").read_text()) == look


def test_train_pushes_and_writes(gateway: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run with both flags leaves the same figures at both places, and those that it printed."""
    file = tmp_path / "training.prom"
    words = ["train", "linear", *QUICK, "--publish", str(tmp_path / "models"), "--name", "thermometer"]
    assert main([*words, "--push-to", gateway, "--metrics-file", str(file)]) == 0
    ours = {key: value for key, value in kept(gateway).items() if "thermometer" in key}
    assert ours == samples(file.read_text())
    assert ours["quicksilver_training_epochs", "thermometer"] == 60
    assert (
        f"training loss    {ours['quicksilver_training_loss', 'thermometer', 'train']:.4f}" in capsys.readouterr().out
    )
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".prom"] == [file.name]


def test_a_failed_job_is_told_as_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fit that diverges is told with its verdict, and ends as it does without."""
    file = tmp_path / "training.prom"
    assert main(["train", "linear", "--learning-rate", "10", "--metrics-file", str(file)]) == 1
    assert "diverged" in capsys.readouterr().err
    assert samples(file.read_text())["quicksilver_training_verdict", "linear", "failed"] == 1


def test_a_delivery_that_fails_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens the model is published all the same, and standard error names the Pushgateway."""
    nobody = f"http://127.0.0.1:{free_port()}"
    words = ["train", "linear", *QUICK, "--publish", str(tmp_path / "models")]
    assert main([*words, "--push-to", nobody]) == 0
    captured = capsys.readouterr()
    assert "published linear/1" in captured.out
    assert f"the Pushgateway at {nobody} does not take the job's metrics" in captured.err


def test_every_place_is_tried(tmp_path: Path) -> None:
    """A Pushgateway that is not there keeps the file from nothing, and the error names what failed."""
    file = tmp_path / "job.prom"
    with pytest.raises(TelemetryError, match="Pushgateway at"):
        deliver(ACCEPTED, push_to=f"http://127.0.0.1:{free_port()}", file=file)
    assert samples(file.read_text()) == told(ACCEPTED)
    with pytest.raises(TelemetryError, match="nowhere"):
        deliver(ACCEPTED, file=tmp_path / "nowhere" / "job.prom")


@pytest.mark.parametrize(
    ("push_to", "file", "complaint"),
    [
        ("localhost:9091", None, "as http://HOST:PORT, not as 'localhost:9091'"),
        ("http://", None, "as http://HOST:PORT"),
        (None, Path("training.txt"), "end in .prom"),
    ],
)
def test_places_that_are_none(push_to: str | None, file: Path | None, complaint: str) -> None:
    """They are refused before anything is fitted, and the message says what is wanted."""
    with pytest.raises(TelemetryError, match=complaint):
        check_places(push_to, file)


def test_train_refuses_a_place_before_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and nothing is published."""
    models = tmp_path / "models"
    assert main(["train", "linear", "--publish", str(models), "--push-to", "here"]) == 1
    assert "http://HOST:PORT" in capsys.readouterr().err
    assert not models.exists()

"""What a training job tells of itself when it ends: pushed to a Pushgateway, or left in a file for node-exporter.

Jobs end before Prometheus could scrape them, so that others have to keep what they say. Nothing here changes what
became of the job: whoever delivers decides what a delivery that failed means.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args
from urllib.parse import urlsplit

from training.errors import TelemetryError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

Verdict = Literal["accepted", "rejected", "not_enough_data", "failed"]
"""What became of the model: the gate's word, or that the job did not come to its end."""

JOB: Final = "quicksilver_training"
"""The job under which a Pushgateway keeps what is pushed, grouped by model."""
FILE_SUFFIX: Final = ".prom"
LOOK_SUFFIX: Final = ".look.prom"
"""In the place of `FILE_SUFFIX`: the file of looks, beside that of jobs, which they leave as it is."""
_SCHEMES: Final = ("http", "https")
_TIMEOUT_SECONDS: Final = 10.0
_LAST_LOOK: Final = "quicksilver_training_last_look_timestamp_seconds"
_TRIAL_EXPIRED: Final = "quicksilver_training_trial_expired"
_OF_LOOKS: Final = {_LAST_LOOK, _TRIAL_EXPIRED}

FAMILIES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "quicksilver_training_loss": ("Loss of the fitted model, in °C².", ("model", "split")),
    "quicksilver_training_duration_seconds": ("How long the last job took.", ("model",)),
    "quicksilver_training_epochs": ("Epochs of the last fit.", ("model",)),
    "quicksilver_training_last_run_timestamp_seconds": ("When the last job ended.", ("model",)),
    "quicksilver_training_last_look_timestamp_seconds": (
        "When a schedule last ended a round, or found that none was wanted.",
        ("model",),
    ),
    "quicksilver_training_trial_expired": (
        "1 where the last look of a schedule ended a trial that nothing had decided for too long, else 0.",
        ("model",),
    ),
    "quicksilver_training_verdict": ("1 for what became of the last job, 0 for the rest.", ("model", "verdict")),
}
"""Every family, all of them gauges: its text and its labels."""


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """What is told of one job. What is None was not known, and is not told."""

    model: str
    duration_seconds: float
    ended_timestamp_seconds: float
    """When it ended, in Unix time."""
    verdict: Verdict | None = None
    """None where no gate looked at the model, and the job came to its end."""
    training_loss: float | None = None
    """Mean squared error over the training rows, in °C²."""
    validation_loss: float | None = None
    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What is told of a round of a schedule, whether a job came of it or not."""

    model: str
    looked_timestamp_seconds: float
    """In Unix time: the job's end where there was a job. Later than the last job's, the look found nothing to do."""
    trial_expired: bool = False
    """Whether it ended a trial that nothing had decided for too long."""


def deliver(job: JobMetrics, push_to: str | None = None, file: Path | None = None) -> None:
    """Tell of a job at every place that is named.

    A push takes the place of what was pushed of the model before; the file is replaced in one step.

    Raises:
        TelemetryError: a place is none, or does not take it. What comes after it is tried all the same.
    """
    from prometheus_client import push_to_gateway  # noqa: PLC0415 - a job that tells nobody needs none of it

    _deliver(job.model, registry_of(job), push_to_gateway, push_to, file)


def deliver_look(look: Look, push_to: str | None = None, file: Path | None = None) -> None:
    """Tell of a look at every place that is named, and leave what is told of the last job as it is.

    To be called after `deliver` where there was a job, since its push takes the place of the look too.

    Raises:
        TelemetryError: as `deliver`.
    """
    from prometheus_client import pushadd_to_gateway  # noqa: PLC0415 - as above

    beside = None if file is None else file.with_suffix(LOOK_SUFFIX)
    _deliver(look.model, registry_of_look(look), pushadd_to_gateway, push_to, beside)


def _deliver(
    model: str, registry: "CollectorRegistry", push: Callable[..., None], push_to: str | None, file: Path | None
) -> None:
    problems = []
    if push_to is not None:
        problems += _push(model, registry, push, push_to)
    if file is not None:
        problems += _write(registry, file)
    if problems:
        raise TelemetryError("; ".join(problems))


def check_places(push_to: str | None, file: Path | None) -> None:
    """Raise TelemetryError where a place can be known to be none before anything is delivered."""
    if push_to is not None:
        parts = urlsplit(push_to)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise TelemetryError(f"a Pushgateway is named as http://HOST:PORT, not as {push_to!r}")
    if file is not None and file.suffix != FILE_SUFFIX:
        raise TelemetryError(f"{file}: node-exporter reads files that end in {FILE_SUFFIX} alone")


def registry_of(job: JobMetrics) -> "CollectorRegistry":
    """Write a job in Prometheus' terms."""
    registry, gauges = _gauges({*FAMILIES} - _OF_LOOKS)
    for split, loss in (("train", job.training_loss), ("validation", job.validation_loss)):
        if loss is not None:
            gauges["quicksilver_training_loss"].labels(job.model, split).set(loss)
    for name, value in (("duration", job.duration_seconds), ("last_run_timestamp", job.ended_timestamp_seconds)):
        gauges[f"quicksilver_training_{name}_seconds"].labels(job.model).set(value)
    if job.epochs is not None:
        gauges["quicksilver_training_epochs"].labels(job.model).set(job.epochs)
    if job.verdict is not None:
        for verdict in get_args(Verdict):
            gauges["quicksilver_training_verdict"].labels(job.model, verdict).set(verdict == job.verdict)
    return registry


def registry_of_look(look: Look) -> "CollectorRegistry":
    """Write a look in Prometheus' terms."""
    registry, gauges = _gauges(_OF_LOOKS)
    gauges[_LAST_LOOK].labels(look.model).set(look.looked_timestamp_seconds)
    gauges[_TRIAL_EXPIRED].labels(look.model).set(look.trial_expired)
    return registry


def _gauges(names: Collection[str]) -> "tuple[CollectorRegistry, dict[str, Gauge]]":
    from prometheus_client import CollectorRegistry, Gauge  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    wanted = {name: family for name, family in FAMILIES.items() if name in names}
    return registry, {name: Gauge(name, text, labels, registry=registry) for name, (text, labels) in wanted.items()}


def _push(model: str, registry: "CollectorRegistry", push: Callable[..., None], push_to: str) -> list[str]:
    check_places(push_to, None)
    try:
        push(push_to, JOB, registry, {"model": model}, timeout=_TIMEOUT_SECONDS)
    except (OSError, ValueError) as error:  # whatever HTTP comes to: its errors are OSErrors
        return [f"the Pushgateway at {push_to} does not take the job's metrics: {error}"]
    return []


def _write(registry: "CollectorRegistry", file: Path) -> list[str]:
    from prometheus_client import write_to_textfile  # noqa: PLC0415 - as above

    check_places(None, file)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        return [f"{file}: {error.strerror or error}"]
    return []

"""What is asked of the models, and what they answer: arrays and options, whatever API they came through."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from proto.artefact import ABSOLUTE_ZERO_FAHRENHEIT
from service.engine import Tensor, TensorSpec
from service.errors import InvalidRequestError, UnsupportedError
from service.models import Choice, LoadedVersion

ABSOLUTE_ZERO: Final = np.float32(ABSOLUTE_ZERO_FAHRENHEIT)


class OnExtrapolation(IntEnum):
    """What to do about rows outside the training domain; the numbers are those of the API's enum."""

    FLAG = 1
    REJECT = 2
    IGNORE = 3


class Query(Protocol):
    """A decoded request."""

    model: str
    """Name of the model; empty for the default one."""
    choice: Choice
    """Version, label, or None for what is stable."""
    fahrenheit: bool
    """Whether the rows are temperatures, to be refused where physics has none."""
    on_extrapolation: OnExtrapolation

    @property
    def identity(self) -> bytes:
        """What the caller knows the request by; empty for nothing."""

    def of(self, body: bytes) -> "Query":
        """The same as it is one request's, where requests with ids of their own share it."""

    def bind(self, version: LoadedVersion) -> tuple[Tensor, ...]:
        """Return one array for each input of the model, rows along axis 0.

        Raises:
            ServiceError: the model has other inputs, or cannot give what is asked for.
        """


@dataclass(slots=True)
class Answer:
    """What a model made of the rows of one query."""

    version: LoadedVersion
    outputs: list[Tensor]
    """One array for each output of the model, this query's rows along axis 0."""
    outside: NDArray[np.bool_] | None
    """Which rows lie outside the training domain: None where the model does not state it."""
    inside: bool
    """Whether it is known that no row lies outside, so that nobody need look at `outside`."""

    def part(self, rows: slice) -> "Answer":
        """The same for some of the rows."""
        outside = None if self.outside is None else self.outside[rows]
        return Answer(self.version, [output[rows] for output in self.outputs], outside, self.inside)


@dataclass(slots=True)
class ConvertQuery:
    """Temperatures to convert: float32 `[N]`, in degrees Fahrenheit."""

    model: str
    choice: Choice
    rows: NDArray[np.float32]
    interval: bool = False
    on_extrapolation: OnExtrapolation = OnExtrapolation.FLAG
    request_id: str = ""
    """What the caller knows the request by; empty where it has no id."""
    fahrenheit: bool = True

    @property
    def identity(self) -> bytes:
        """What the caller knows the request by; empty for nothing."""
        return self.request_id.encode()

    def of(self, _body: bytes) -> "ConvertQuery":
        """The same: only requests without an id share one."""
        return self

    def bind(self, version: LoadedVersion) -> tuple[Tensor, ...]:
        """Return the rows as `[N, 1]`, where the model takes and gives one float32 a row."""
        if not version.converts:
            raise UnsupportedError(
                f"{version} is no converter from one temperature to one: "
                f"it takes {_describe(version.engine.inputs)} and gives {_describe(version.engine.outputs)}"
            )
        if version.artefact is None and (self.interval or self.on_extrapolation is OnExtrapolation.REJECT):
            wanted = "a prediction interval" if self.interval else "a training domain"
            raise UnsupportedError(f"{version} does not state {wanted}: its file carries no Quicksilver metadata")
        if self.interval and version.interval is None:
            raise UnsupportedError(f"{version} does not state a prediction interval")
        return (self.rows.reshape(-1, 1),)


def interval_bounds(answer: Answer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lower and upper bounds of an answer in °C, float32 `[N]` each; NaN outside the training domain.

    Raises:
        UnsupportedError: the model's file states no prediction interval.
    """
    stated = answer.version.interval
    if stated is None or answer.outside is None:
        raise UnsupportedError(f"{answer.version} does not state a prediction interval")
    celsius: NDArray[np.float32] = answer.outputs[0].reshape(-1)
    half_width = np.where(answer.outside, np.float32(np.nan), np.float32(stated.half_width_celsius))
    return celsius - half_width, celsius + half_width


def check_temperatures(rows: NDArray[np.float32]) -> None:
    """Check temperatures in °F, float32 `[N]`.

    Raises:
        InvalidRequestError: one is NaN, infinite, or below absolute zero; it names the first.
    """
    wrong = np.flatnonzero(~possible(rows))
    if not wrong.size:
        return
    index = int(wrong[0])
    value = float(rows[index])
    reason = (
        f"{value:.9g} is below absolute zero ({ABSOLUTE_ZERO_FAHRENHEIT} °F)" if np.isfinite(value)
        else f"{value} is not a temperature"
    )  # fmt: skip
    raise InvalidRequestError(f"fahrenheit[{index}]", reason)


def possible(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which temperatures in °F exist: finite, and not below absolute zero, compared in float32."""
    mask: NDArray[np.bool_] = (rows >= ABSOLUTE_ZERO) & (rows < np.inf)
    return mask


def _describe(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.onnx_type} {_shape(spec)}" for spec in specs) or "nothing"


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in spec.shape) + "]"

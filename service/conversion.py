"""Arrays ↔ messages of the product's own API, for its clients: any shape in, a Conversion out. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from proto.observation import Observation
from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import ConverterError, InvalidRequestError
from service.status import Code
from service.wire import packed_floats

OnExtrapolation = Literal["flag", "reject", "ignore"]

_ON_EXTRAPOLATION: Final[dict[OnExtrapolation, api.OnExtrapolation.ValueType]] = {
    "flag": api.ON_EXTRAPOLATION_FLAG,
    "reject": api.ON_EXTRAPOLATION_REJECT,
    "ignore": api.ON_EXTRAPOLATION_IGNORE,
}
_FAHRENHEIT: Final = api.ConvertRequest.FAHRENHEIT_FIELD_NUMBER
_MAX_VERSION: Final = 2**63 - 1

_ROW: Final = re.compile(r"^(?P<before>fahrenheit\[|row )(?P<row>\d+)")
"""How the server begins what it says of one row: `fahrenheit[3]: …` or `row 3, …`."""

_OBSERVATION: Final = re.compile(r"^observations\[(\d+)\]")


@dataclass(frozen=True, eq=False)
class Conversion:
    """The answer to one conversion; every array has the shape of what was asked."""

    model: str
    version: int
    """The version that answered: the same for all rows."""
    celsius: NDArray[np.float32]
    outside: NDArray[np.bool_] | None
    """Which rows lie outside the training domain; None where the model does not state it or nobody looked."""
    lower: NDArray[np.float32] | None = None
    """Lower bounds of the prediction interval in °C, NaN outside the training domain; None where not asked for."""
    upper: NDArray[np.float32] | None = None
    """Upper bounds in °C, likewise."""
    coverage: float | None = None
    """The probability that the interval holds the true temperature; None where not asked for."""


@dataclass(frozen=True)
class Choice:
    """Which model and version answers: a version by its number or its label; by neither, the stable one."""

    model: str = ""
    """Empty: the server's default model."""
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where no request could carry the choice."""
        if self.version is not None and self.label is not None:
            raise ValueError("name a version or a label, not both")
        if self.version is not None and not 1 <= self.version <= _MAX_VERSION:
            raise ValueError(f"version: {self.version} is not a whole number from 1")

    def or_default(self, default: "Choice") -> "Choice":
        """Complete what a call says. Where it names a model, a version or a label, no default version joins it."""
        if self == Choice():
            return default
        return Choice(self.model or default.model, self.version, self.label)

    def fill(self, request: api.ConvertRequest | api.GetModelRequest) -> None:
        """Write the choice into a request."""
        request.model = self.model
        if self.version is not None:
            request.version = self.version
        elif self.label is not None:
            request.label = self.label


@dataclass(frozen=True)
class Options:
    """What a conversion asks for beside its temperatures."""

    interval: bool = False
    on_extrapolation: OnExtrapolation = "flag"
    request_id: str = ""
    """What observations of the truth can name the request by."""

    def __post_init__(self) -> None:
        """Raise ValueError for an option that does not exist."""
        if self.on_extrapolation not in _ON_EXTRAPOLATION:
            known = ", ".join(get_args(OnExtrapolation))
            raise ValueError(f"on_extrapolation is one of {known}, not {self.on_extrapolation!r}")


def temperatures(fahrenheit: ArrayLike) -> NDArray[np.float32]:
    """Return temperatures in °F as float32, in the shape they came in: a number, or any nesting of numbers.

    Raises:
        TypeError: they are not real numbers: text, booleans and complex numbers are none.
        ValueError: the nesting is ragged.
        InvalidRequestError: one is finite and float32 cannot hold it.
    """
    given = np.asarray(fahrenheit)
    if given.dtype.kind == "O":  # Decimal, Fraction, whole numbers beyond 64 bits
        given = given.astype(np.float64)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"temperatures must be real numbers, not {given.dtype}")
    with np.errstate(over="ignore"):
        rows = given.astype(np.float32, order="C", copy=False)
    overflown = np.isinf(rows)
    if overflown.any() and (overflown & np.isfinite(given)).any():
        index = int(np.flatnonzero(overflown & np.isfinite(given))[0])
        field = f"fahrenheit[{_place(index, rows.shape)}]"
        reason = f"{float(given.flat[index]):g} is beyond float32"
        raise InvalidRequestError(Code.INVALID_ARGUMENT, f"{field}: {reason}", {field: reason})
    return rows


def encode_request(choice: Choice, options: Options, rows: NDArray[np.float32]) -> bytes:
    """Serialise a ConvertRequest for rows `[N]`."""
    request = api.ConvertRequest(
        interval=options.interval, on_extrapolation=_ON_EXTRAPOLATION[options.on_extrapolation]
    )
    choice.fill(request)
    identity = api.ConvertRequest(request_id=options.request_id).SerializeToString()  # last, where servers look for it
    return b"".join([request.SerializeToString(), *packed_floats(_FAHRENHEIT, rows), identity])


def encode_report(observations: Sequence[Observation]) -> bytes:
    """Serialise a ReportObservationsRequest."""
    messages = [
        api.Observation(
            id=observation.id,
            fahrenheit=observation.fahrenheit,
            celsius=observation.celsius,
            observed_at_seconds=observation.observed_at_seconds,
            source=observation.source,
            request_id=observation.request_id or "",
            row=observation.row or 0,
        )
        for observation in observations
    ]
    return api.ReportObservationsRequest(observations=messages).SerializeToString()


def join_answers(answers: Sequence[api.ConvertResponse], options: Options, shape: tuple[int, ...]) -> Conversion:
    """Put the answers to consecutive parts of the rows together, in the shape of what was asked."""
    first = answers[0]

    def joined(parts: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        return np.concatenate([np.array(part, dtype=np.float32) for part in parts]).reshape(shape)

    return Conversion(
        model=first.model,
        version=first.version,
        celsius=joined([answer.celsius for answer in answers]),
        outside=_outside(answers, shape),
        lower=joined([answer.interval.celsius_lower for answer in answers]) if options.interval else None,
        upper=joined([answer.interval.celsius_upper for answer in answers]) if options.interval else None,
        coverage=first.interval.coverage if options.interval else None,
    )


def _outside(answers: Sequence[api.ConvertResponse], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    if answers[0].domain_status in {api.DOMAIN_STATUS_UNSPECIFIED, api.DOMAIN_STATUS_UNKNOWN}:
        return None
    flags = [np.zeros(len(answer.celsius), dtype=np.bool_) for answer in answers]
    for part, answer in zip(flags, answers, strict=True):
        part[np.array(answer.extrapolated_rows, dtype=np.int64)] = True
    return np.concatenate(flags).reshape(shape)


def at_callers_index(error: ConverterError, start: int, shape: tuple[int, ...]) -> ConverterError:
    """Let an error about a row of one request, whose rows begin at `start`, name the index in what the caller gave."""

    def renamed(text: str) -> str:
        match = _ROW.match(text)
        if match is None:
            return text
        place = _place(start + int(match["row"]), shape)
        if match["before"] == "row " and len(shape) > 1:
            place = f"[{place}]"
        return match["before"] + place + text[match.end() :]

    violations = {renamed(field): description for field, description in error.violations.items()}
    return type(error)(error.code, renamed(error.message), violations)


def at_callers_observation(error: ConverterError, start: int) -> ConverterError:
    """Let an error about an observation of one request, which begins at `start`, name the caller's index."""

    def renamed(text: str) -> str:
        return _OBSERVATION.sub(lambda match: f"observations[{start + int(match[1])}]", text)

    violations = {renamed(field): description for field, description in error.violations.items()}
    return type(error)(error.code, renamed(error.message), violations)


def _place(index: int, shape: tuple[int, ...]) -> str:
    """The index of a row as the caller counts: `3`, or `1, 0` where the rows lie in two dimensions."""
    return ", ".join(str(part) for part in np.unravel_index(index, shape or (1,)))

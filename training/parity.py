"""The proof that an exported file answers as the fitted model does: PyTorch against ONNX Runtime, input by input."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from proto.artefact import ABSOLUTE_ZERO_FAHRENHEIT, OUTPUT_NAME, GoldenVectors, input_name
from proto.runtime import onnxruntime
from training.dataset import FAHRENHEIT
from training.errors import ExportError
from training.fit import Fitted
from training.metrics import WIDE_RANGE_FAHRENHEIT
from training.models import Converter

ABSOLUTE_TOLERANCE_CELSIUS: Final = 1e-5
RELATIVE_TOLERANCE: Final = 1e-6

BATCHES: Final = (0, 1, 2, 1000)
REACH: Final = 4.0
"""How far beyond the training range inputs are compared: so many times its width on either side."""

_QUIET: Final = 4  # of ONNX Runtime's severities, from 0, verbose, to 4, fatal: its errors are raised as well


@dataclass(frozen=True, slots=True)
class Parity:
    """How well the two agree, and how exact the model is itself in float32, both in °C and over all inputs compared."""

    max_difference: float
    max_rounding: float


class Engine:
    """One ONNX file in an ONNX Runtime session of its own, on the CPU: float32 [B, N_in] to float32 [B] in °C.

    A file that ONNX Runtime cannot load, or a graph that cannot be run on such rows, is an ExportError.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ExportError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error

    def answer(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers in °C, one a row."""
        name = input_name(features.shape[1])
        try:
            answers: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {name: features})[0]
        except Exception as error:  # as above; ValueError for an input of another name
            raise ExportError(
                f"the graph does not take {name!r} {features.shape} to {OUTPUT_NAME!r}: {one_line(error)}"
            ) from error
        if answers.shape != (len(features), 1):
            raise ExportError(f"the model gave {answers.shape} for {features.shape}")
        return answers[:, 0]


def prove(fitted: Fitted, model: bytes) -> Parity:
    """Compare an exported file with the model it came from, over the training range and beyond, for each batch size.

    Raises:
        ExportError: somewhere they differ by more than `allowed`; the message names the input.
    """
    engine = Engine(model)
    inside = [_inputs(*fitted.training_range, rows) for rows in BATCHES]
    beyond = [_inputs(*wide_range(fitted), rows) for rows in BATCHES]
    rounding = max(_rounding(fitted.model, features) for features in inside)
    differences = [_difference(fitted.model, engine, features, rounding) for features in inside + beyond]
    return Parity(max(differences), max(_rounding(fitted.model, features) for features in inside + beyond))


def allowed(answers: NDArray[np.float64], rounding: float) -> NDArray[np.float64]:
    """The difference in °C that is allowed at each answer [B] in °C: 1e-5 + 1e-6 · |answer|.

    Where a model's own arithmetic in float32 is coarser than that (a fit to readings that span thousands of degrees),
    no two engines can agree so well, whatever they do; then twice its largest rounding error over the training range is
    allowed, once for each engine.
    """
    return np.maximum(ABSOLUTE_TOLERANCE_CELSIUS + RELATIVE_TOLERANCE * np.abs(answers), 2.0 * rounding)


def one_line(error: Exception) -> str:
    """What an exception of ONNX or of ONNX Runtime says, without its line breaks."""
    return " ".join(str(error).split())


def check_golden(model: bytes, golden: GoldenVectors) -> None:
    """Raise ExportError unless a model file can be run, and answers its own golden vectors within their tolerance."""
    answers = Engine(model).answer(np.array(golden.inputs, dtype=np.float32))
    if mismatch := golden.mismatch(answers.tolist()):
        raise ExportError(f"the model does not answer as its own metadata says: {mismatch}")


def wide_range(fitted: Fitted) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The range beyond, [N_in] each: `REACH` widths on either side, and for °F never less than -40 … 220."""
    low, high = fitted.training_range
    width = high - low
    low, high = low - REACH * width, high + REACH * width
    if FAHRENHEIT in fitted.dataset.columns:
        place = fitted.dataset.columns.index(FAHRENHEIT)
        low[place] = max(ABSOLUTE_ZERO_FAHRENHEIT, min(low[place], WIDE_RANGE_FAHRENHEIT[0]))
        high[place] = max(high[place], WIDE_RANGE_FAHRENHEIT[1])
    return low, high


def _inputs(low: NDArray[np.float64], high: NDArray[np.float64], rows: int) -> NDArray[np.float32]:
    """Inputs [rows, N_in] between two corners: evenly spaced in one column, drawn under a fixed seed in several."""
    if len(low) == 1:
        return np.linspace(low, high, rows).astype(np.float32)
    return np.random.default_rng(0).uniform(low, high, (rows, len(low))).astype(np.float32)


def _difference(model: Converter, engine: Engine, features: NDArray[np.float32], rounding: float) -> float:
    expected = model.predict(features)
    difference = np.abs(engine.answer(features) - expected)
    excess = difference - allowed(expected, rounding)
    if not np.all(excess <= 0):  # NaN fails
        worst = int(np.argmax(excess))
        raise ExportError(
            f"the exported model differs from the fitted one by {difference[worst]:.3g} °C at input "
            f"{features[worst].tolist()}, where {allowed(expected, rounding)[worst]:.3g} °C is allowed"
        )
    return float(difference.max(initial=0.0))


def _rounding(model: Converter, features: NDArray[np.float32]) -> float:
    """Largest difference in °C between a model's answers in float32 and those of the same parameters in float64."""
    exact = model.in_double()
    with torch.no_grad():
        answers = exact(torch.tensor(features, dtype=torch.float64))[:, 0].numpy()
    return float(np.abs(model.predict(features) - answers).max(initial=0.0))

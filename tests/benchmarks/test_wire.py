"""Requests, and the check of answers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import wire
from proto.inference.v2 import open_inference_pb2 as open_inference
from proto.repository import Repository
from tests.service.artefacts import make_artefact


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The exact converter, published."""
    Repository(tmp_path).publish(wire.MODEL, make_artefact())
    return tmp_path / wire.MODEL / "1" / "model.onnx"


def infer_answer(celsius: wire.Rows) -> bytes:
    """A ModelInferResponse with these rows."""
    return open_inference.ModelInferResponse(raw_output_contents=[celsius.tobytes()]).SerializeToString()


def test_a_frame_is_a_message_with_its_prefix() -> None:
    """A frame says that it is not compressed, how long the message is, and holds it."""
    assert wire.framed(b"abc") == b"\0\0\0\0\3abc"


def test_the_right_answer_passes_and_a_wrong_one_does_not(model_file: Path) -> None:
    """What ONNX Runtime answers passes; one value off, or one too few, is named."""
    exchange = wire.infer(model_file, 4)
    right = (wire.readings(4) - 32) * 5 / 9
    exchange.check(infer_answer(right.astype(np.float32)))
    wrong = right.astype(np.float32)
    wrong[2] += 0.01
    with pytest.raises(wire.WrongAnswerError, match=r"0\.01 °C off"):
        exchange.check(infer_answer(wrong))
    with pytest.raises(wire.WrongAnswerError, match="3 values came, not 4"):
        exchange.check(infer_answer(wrong[:3]))


def test_not_a_number_is_wrong(model_file: Path) -> None:
    """An answer of NaN does not pass for a small error."""
    exchange = wire.infer(model_file, 1)
    with pytest.raises(wire.WrongAnswerError):
        exchange.check(infer_answer(np.full(1, np.nan, np.float32)))

"""Sessions: right answers, and the truth about the device."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.engine import DeviceError, Engine, EngineError, EngineOptions, TensorSpec, available_devices
from tests.service.artefacts import make_artefact, make_plain, make_thief

CPU = EngineOptions(device="cpu")
CUDA_MISSING = "cuda" not in available_devices()


def test_a_run_answers_any_number_of_rows() -> None:
    """No row, one, and many come back in order."""
    engine = Engine(make_plain(weight=2.0, bias=1.0), CPU)
    for rows in (0, 1, 2, 1000):
        values = np.arange(rows, dtype=np.float32).reshape(-1, 1)
        (answers,) = engine.run([values])
        assert answers.dtype == np.float32
        np.testing.assert_array_equal(answers, values * 2 + 1)


def test_inputs_and_outputs_are_described() -> None:
    """Names, types and shapes come from the file; a free dimension is None."""
    engine = Engine(make_plain(), CPU)
    assert engine.inputs == (TensorSpec("fahrenheit", np.float32, (None, 1), "tensor(float)"),)
    assert engine.outputs == (TensorSpec("celsius", np.float32, (None, 1), "tensor(float)"),)


def test_the_metadata_comes_through() -> None:
    """What stands in the file can be read without the onnx package."""
    assert Engine(make_plain(), CPU).metadata == {}
    assert Engine(make_artefact(), CPU).metadata["quicksilver.schema_version"] == "1"


@pytest.mark.parametrize("content", [b"", b"not a model", make_plain()[:60]])
def test_a_file_that_is_no_model_is_named_as_such(content: bytes) -> None:
    """Whatever ONNX Runtime raises comes out as one error."""
    with pytest.raises(EngineError, match="ONNX Runtime cannot load the file"):
        Engine(content, CPU)


@pytest.mark.parametrize("where", ["secret.bin", "./secret.bin", "../{0}/secret.bin", "{1}/secret.bin"])
@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_a_model_reads_no_file_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, place: str
) -> None:
    """Weights outside of the file are refused, wherever in the graph they stand, and however they are found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"secret")
    with pytest.raises(EngineError):
        Engine(make_thief(where.format(tmp_path.name, tmp_path), len(b"secret"), place), CPU)


def test_the_device_is_read_back_from_the_session() -> None:
    """`auto` says what it took, and it is one that can be had."""
    assert Engine(make_plain(), CPU).device == "cpu"
    assert Engine(make_plain(), EngineOptions(device="auto")).device in available_devices()


@pytest.mark.skipif(not CUDA_MISSING, reason="the installed ONNX Runtime was built for CUDA: it can be had")
def test_cuda_is_refused_where_it_cannot_be_had() -> None:
    """A device that was asked for by name is never replaced silently."""
    with pytest.raises(DeviceError, match=r"'cuda' cannot be had.*extra 'gpu'"):
        Engine(make_plain(), EngineOptions(device="cuda"))


@pytest.mark.skipif(CUDA_MISSING, reason="no CUDA: the installed ONNX Runtime was built for the CPU alone")
def test_cuda_answers_as_the_cpu_does() -> None:
    """Float32 means float32 there too."""
    values = np.linspace(-100, 300, 1000, dtype=np.float32).reshape(-1, 1)
    on_cuda, on_cpu = (Engine(make_plain(), EngineOptions(device=device)) for device in ("cuda", "cpu"))
    assert on_cuda.device == "cuda"
    np.testing.assert_allclose(on_cuda.run([values])[0], on_cpu.run([values])[0], rtol=1e-6, atol=1e-5)


def test_telemetry_is_off_before_onnx_runtime_is_imported() -> None:
    """Even where the environment says otherwise, nothing is reported home."""
    code = "import proto.runtime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "1"

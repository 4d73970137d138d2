"""ONNX Runtime sessions: arrays in, arrays out, on a device that is named truthfully."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from proto.runtime import onnxruntime
from service.device import Device

Tensor = NDArray[Any]

_PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DEVICES: Final = {provider: device for device, provider in _PROVIDERS.items()}

_InvalidArgument: Final = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
_MESSAGE_MARK: Final = " : INVALID_ARGUMENT : "
_BFLOAT16_ELEMENT: Final = 16
"""bfloat16 as ONNX numbers it in `TensorProto.DataType`."""
_BFLOAT16: Final = "tensor(bfloat16)"

_DTYPES: Final[dict[str, type[np.generic]]] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
    _BFLOAT16: np.uint16,  # NumPy has no such type: the 16 bits as they are
}


_EXTERNAL_DATA_KEY: Final = "session.model_external_initializers_file_folder_path"
_NOWHERE: Final = "/dev/null"
"""A path that is never a directory, so that nothing is ever found below it."""


class EngineError(Exception):
    """A model file cannot be made into a session."""


class DeviceError(EngineError):
    """The device that was asked for cannot be had; the message says what can."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How sessions are made."""

    device: Device = "auto"
    intra_op_threads: int = 1
    """Threads that share one run; 0 lets ONNX Runtime take one a core."""
    inter_op_threads: int = 1
    """Threads that run independent branches of a graph; 0 lets ONNX Runtime choose."""
    spinning: bool = False
    """Whether idle threads spin for a moment before they sleep: lower latency, more CPU."""
    large_run_threads: int = 1
    """Threads of a second session on the CPU, for the runs that are measured to be faster there; 0: one a core;
    1: there is none."""
    max_shared_rows: int = 1 << 15
    """Rows up to which several calls may share a run."""

    def rivals(self) -> "dict[str, EngineOptions]":
        """Other ways of running a model that may be the faster ones for large runs, by name, the larger ones last."""
        found = {}
        if self.device != "cuda" and self.large_run_threads not in {1, self.intra_op_threads}:
            threads = self.large_run_threads or "all"
            found[f"cpu, {threads} threads"] = replace(self, device="cpu", intra_op_threads=self.large_run_threads)
        if self.device == "auto" and "cuda" in available_devices():
            found["cuda"] = replace(self, device="cuda")
        return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph. A dimension of None is free; `dtype` is None for what is no tensor of numbers.

    No dimensions at all: a single element, or a shape that the graph leaves open altogether.
    """

    name: str
    dtype: type[np.generic] | None
    shape: tuple[int | None, ...]
    onnx_type: str
    """The type as ONNX Runtime calls it, such as `tensor(float)`."""


def available_devices() -> list[str]:
    """Devices that the installed ONNX Runtime was built for. Whether one works shows only when a session is made."""
    return [_DEVICES[provider] for provider in onnxruntime.get_available_providers() if provider in _DEVICES]


def check_device(device: Device) -> None:
    """Raise DeviceError where the installed ONNX Runtime was not built for a device that is asked for by name."""
    available = available_devices()
    if device != "auto" and device not in available:
        raise DeviceError(
            f"device {device!r} cannot be had: the installed ONNX Runtime was built for {', '.join(available)}"
            + ("; the extra 'gpu' brings one that was built for cuda" if device == "cuda" else "")
        )


class Graph(Protocol):
    """One model that can be run, by one session or several. `run` may be called from several threads."""

    inputs: "tuple[TensorSpec, ...]"
    outputs: "tuple[TensorSpec, ...]"
    metadata: dict[str, str]
    device: str

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the graph once: see `Engine.run`."""


class InputsRefusedError(Exception):
    """ONNX Runtime says that the arrays do not fit the graph; the message is its own."""


class Engine:
    """One model file as an ONNX Runtime session.

    `run` may be called from several threads. `device` is read back from the session after it was made, since ONNX
    Runtime falls back to the CPU without a word.
    """

    def __init__(self, model: bytes, options: EngineOptions) -> None:
        self._session = _open_session(model, options)
        self.device: str = _DEVICES[self._session.get_providers()[0]]
        if options.device not in {"auto", self.device}:
            raise DeviceError(
                f"device {options.device!r} cannot be used here: ONNX Runtime fell back to {self.device!r}"
            )
        self.inputs = tuple(_spec(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_spec(argument) for argument in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._input_names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]
        self._run_options = onnxruntime.RunOptions()
        """The same for all runs, which only read it: making one takes as long as a tenth of a run of few rows."""
        self._has_bfloat16 = any(spec.onnx_type == _BFLOAT16 for spec in (*self.inputs, *self.outputs))

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the graph once: one array an input, in the order of `inputs`; one array an output comes back.

        Raises:
            InputsRefusedError: the arrays do not fit the graph.
            Exception: whatever else ONNX Runtime raises where a run fails.
        """
        try:
            return self._run_with_bfloat16(tensors) if self._has_bfloat16 else self._run_plain(tensors)
        except _InvalidArgument as error:
            raise InputsRefusedError(str(error).rpartition(_MESSAGE_MARK)[2]) from error

    def _run_plain(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = self._session.run(
            self._output_names, dict(zip(self._input_names, tensors, strict=True)), self._run_options
        )
        return outputs

    def _run_with_bfloat16(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run with ONNX Runtime's own values, since those alone hold bfloat16; outputs come back in main memory."""
        binding = self._session.io_binding()
        for spec, tensor in zip(self.inputs, tensors, strict=True):
            binding.bind_ortvalue_input(spec.name, _to_value(spec, tensor))
        for name in self._output_names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return [_from_value(value) for value in binding.get_outputs()]


def _to_value(spec: TensorSpec, tensor: Tensor) -> Any:  # noqa: ANN401 - onnxruntime publishes no types
    if spec.onnx_type != _BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(tensor)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(tensor, _BFLOAT16_ELEMENT)


def _from_value(value: Any) -> Tensor:  # noqa: ANN401 - onnxruntime publishes no types
    if value.data_type() != _BFLOAT16:
        array: Tensor = value.numpy()
        return array
    # NumPy cannot be handed the value: its bytes are copied from where ONNX Runtime says that they are.
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, np.uint16).reshape(value.shape())


def _open_session(model: bytes, options: EngineOptions) -> Any:  # noqa: ANN401 - onnxruntime publishes no types
    try:
        return onnxruntime.InferenceSession(model, _session_options(options), providers=_providers(options.device))
    except DeviceError:
        raise
    except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
        raise EngineError(f"ONNX Runtime cannot load the file: {error}") from error


def _session_options(options: EngineOptions) -> Any:  # noqa: ANN401 - onnxruntime publishes no types
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_threads
    session_options.inter_op_num_threads = options.inter_op_threads
    session_options.enable_mem_pattern = False  # it keeps a plan for every batch size it ever saw
    # An arena of its own would keep what its model once took, and lend nothing to what other models' calls take.
    session_options.enable_cpu_mem_arena = False
    session_options.log_severity_level = 3  # errors; what it warns of (a fallback) is checked and told by us
    # Weights outside of the file would be looked for in the working directory, or above it: a model could read any
    # file of this machine into its answers.
    session_options.add_session_config_entry(_EXTERNAL_DATA_KEY, _NOWHERE)
    for pool in ("intra_op", "inter_op"):
        session_options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(options.spinning)))
    return session_options


def _providers(device: Device) -> list[Any]:
    check_device(device)
    providers: list[Any] = []
    if device in {"cuda", "auto"} and "cuda" in available_devices():
        onnxruntime.preload_dlls()  # CUDA's libraries, where pip installed them
        providers.append((_PROVIDERS["cuda"], {"use_tf32": "0"}))  # float32 means float32
    # Even for "cuda": graph parts without a CUDA kernel run here.
    providers.append(_PROVIDERS["cpu"])
    return providers


def _spec(argument: Any) -> TensorSpec:  # noqa: ANN401 - onnxruntime publishes no types
    shape = tuple(size if isinstance(size, int) else None for size in argument.shape)
    return TensorSpec(argument.name, _DTYPES.get(argument.type), shape, argument.type)

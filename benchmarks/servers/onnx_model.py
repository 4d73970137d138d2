"""The model as every Python peer holds it: one ONNX Runtime session of one thread, float32 `[N, 1]` in and out."""

import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime  # noqa: TID251 - these scripts run in environments that know nothing of this project


class OnnxModel:
    """Answers rows of °F with rows of °C. Safe to call from many threads."""

    def __init__(self, path: str | Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, fahrenheit: np.ndarray) -> np.ndarray:
        """Convert float32 `[N, 1]`."""
        return self._session.run(["celsius"], {"fahrenheit": fahrenheit})[0]

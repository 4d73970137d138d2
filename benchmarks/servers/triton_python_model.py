"""The model for Triton's Python backend: requests that Triton batched are joined, run once, and taken apart again."""

import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as triton

sys.path.insert(0, str(Path(__file__).parent))
from onnx_model import OnnxModel


class TritonPythonModel:
    """What the backend makes one of for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model that lies beside this file."""
        self._model = OnnxModel(Path(args["model_repository"]) / args["model_version"] / "model.onnx")

    def execute(self, requests: list) -> list:
        """Answer requests in order."""
        rows = [triton.get_input_tensor_by_name(request, "fahrenheit").as_numpy() for request in requests]
        celsius = self._model(rows[0] if len(rows) == 1 else np.concatenate(rows))
        ends = np.cumsum([len(part) for part in rows])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor("celsius", np.ascontiguousarray(part))])
            for part in np.split(celsius, ends)
        ]

"""The model as a BentoML service with adaptive batching, behind HTTP; `bentoml serve bentoml_service:Converter`."""

import os

import bentoml
import numpy as np
from onnx_model import OnnxModel


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
class Converter:
    """Answers {"fahrenheit": [[...]]}, rows of one temperature each, with rows of one temperature each."""

    def __init__(self) -> None:
        self._onnx = OnnxModel(os.environ["BENCHMARK_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=65536, max_latency_ms=1000)
    def convert(self, fahrenheit: np.ndarray) -> np.ndarray:
        """Convert rows."""
        return self._onnx(np.ascontiguousarray(fahrenheit, np.float32))

"""LitServe with the model behind HTTP, batched as its documentation advises. MODEL PORT."""

import sys

import litserve
import numpy as np
from onnx_model import OnnxModel


class Converter(litserve.LitAPI):
    """Answers {"fahrenheit": [...]} with {"celsius": [...]}."""

    def __init__(self, path: str) -> None:
        super().__init__(max_batch_size=64, batch_timeout=0.001)
        self._path = path

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model, in the worker."""
        self._onnx = OnnxModel(self._path)

    def decode_request(self, request: dict[str, list[float]]) -> np.ndarray:
        """Read the rows."""
        return np.array(request["fahrenheit"], np.float32).reshape(-1, 1)

    def batch(self, inputs: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        """Join requests of any length."""
        return np.concatenate(inputs), [len(part) for part in inputs]

    def predict(self, batch: tuple[np.ndarray, list[int]]) -> tuple[np.ndarray, list[int]]:
        """Run them once."""
        rows, lengths = batch
        return self._onnx(rows), lengths

    def unbatch(self, output: tuple[np.ndarray, list[int]]) -> list[np.ndarray]:
        """Give each request its rows back."""
        celsius, lengths = output
        return np.split(celsius, np.cumsum(lengths)[:-1])

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """Write the rows."""
        return {"celsius": output.ravel().tolist()}


if __name__ == "__main__":
    _, path, port = sys.argv
    server = litserve.LitServer(Converter(path), accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=60)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning", num_api_servers=1)

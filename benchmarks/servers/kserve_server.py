"""KServe's ModelServer with the model behind gRPC and HTTP. MODEL GRPC_PORT HTTP_PORT."""

import sys

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from onnx_model import OnnxModel


class Converter(Model):
    """Answers the one tensor of a request."""

    def __init__(self, path: str) -> None:
        super().__init__("mlp")
        self._onnx = OnnxModel(path)
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None, **_: object) -> InferResponse:  # noqa: ARG002 - KServe's signature
        """Answer one request."""
        celsius = self._onnx(payload.inputs[0].as_numpy())
        output = InferOutput("celsius", list(celsius.shape), "FP32")
        output.set_data_from_numpy(celsius)
        return InferResponse(payload.id, "mlp", [output], use_binary_outputs=True)


if __name__ == "__main__":
    _, path, grpc_port, http_port = sys.argv
    ModelServer(grpc_port=int(grpc_port), http_port=int(http_port), workers=1).start([Converter(path)])

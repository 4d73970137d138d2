"""Ray Serve's gRPC ingress in front of one replica of the model. MODEL PORT HTTP_PORT."""

import signal
import sys

import numpy as np
import ray
from inference.v2 import open_inference_pb2 as pb
from onnx_model import OnnxModel
from ray import serve
from ray.serve.config import gRPCOptions

SERVICER = "inference.v2.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


@serve.deployment(max_ongoing_requests=1000)
class Converter:
    """Answers the one raw FP32 tensor of a request."""

    def __init__(self, path: str) -> None:
        self._onnx = OnnxModel(path)

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:  # noqa: N802 - the method's name
        """Answer one request."""
        celsius = self._onnx(np.frombuffer(request.raw_input_contents[0], "<f4").reshape(request.inputs[0].shape))
        response = pb.ModelInferResponse(model_name=request.model_name, raw_output_contents=[celsius.tobytes()])
        response.outputs.add(name="celsius", datatype="FP32", shape=celsius.shape)
        return response


if __name__ == "__main__":
    _, path, port, http_port = sys.argv
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(
        http_options={"port": int(http_port)},
        grpc_options=gRPCOptions(port=int(port), grpc_servicer_functions=[SERVICER]),
    )
    serve.run(Converter.bind(path))
    signal.pause()

"""What one writes first: grpcio with generated stubs, one ONNX Runtime run a request. MODEL PORT threads|asyncio."""

import asyncio
import sys
from concurrent import futures

import grpc
import numpy as np
from inference.v2 import open_inference_pb2 as pb
from inference.v2 import open_inference_pb2_grpc as stubs
from onnx_model import OnnxModel

THREADS = 10  # as in gRPC's own examples
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def answer(model: OnnxModel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    """Run the model on a request's one raw FP32 tensor."""
    fahrenheit = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(request.inputs[0].shape)
    celsius = model(fahrenheit)
    response = pb.ModelInferResponse(
        model_name=request.model_name, model_version="1", id=request.id, raw_output_contents=[celsius.tobytes()]
    )
    response.outputs.add(name="celsius", datatype="FP32", shape=celsius.shape)
    return response


class Threaded(stubs.GRPCInferenceServiceServicer):
    """The service on a thread pool."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:  # noqa: ARG002, N802 - the stub's signature
        """Answer one request."""
        return answer(self._model, request)


class Asynchronous(stubs.GRPCInferenceServiceServicer):
    """The service on asyncio."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    async def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:  # noqa: ARG002, N802 - the stub's signature
        """Answer one request."""
        return answer(self._model, request)


def serve_threads(model: OnnxModel, address: str) -> None:
    """Serve until the process is killed."""
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=OPTIONS)
    stubs.add_GRPCInferenceServiceServicer_to_server(Threaded(model), server)
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


async def serve_asyncio(model: OnnxModel, address: str) -> None:
    """Serve until the process is killed."""
    server = grpc.aio.server(options=OPTIONS)
    stubs.add_GRPCInferenceServiceServicer_to_server(Asynchronous(model), server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    _, path, port, kind = sys.argv
    if kind == "asyncio":
        asyncio.run(serve_asyncio(OnnxModel(path), f"127.0.0.1:{port}"))
    else:
        serve_threads(OnnxModel(path), f"127.0.0.1:{port}")

"""gRPC server reflection for any front, so that grpcurl and its like need no .proto files.

The answers come from grpcio-reflection's own servicer, which knows no transport either: it turns an iterator of
requests into an iterator of answers. v1 and v1alpha differ in their names alone; their messages are alike on the wire.
"""

from collections.abc import Sequence
from typing import Final

from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha import reflection_pb2 as pb

from service.calls import Inlet, Method, Outlet, StreamMethod, Submit
from service.codec import parse

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def methods(services: Sequence[str]) -> list[Method]:
    """Return the reflection methods, which list the services named and themselves."""
    servicer = reflection.ReflectionServicer([*services, SERVICES[1]])

    def open_stream(outlet: Outlet, _submit: Submit) -> Inlet:
        return _Reflection(servicer, outlet)

    return [
        StreamMethod(f"/{service}/ServerReflectionInfo", client_streams=True, server_streams=True, open=open_stream)
        for service in SERVICES
    ]


class _Reflection(Inlet):
    busy = False

    def __init__(self, servicer: reflection.ReflectionServicer, outlet: Outlet) -> None:
        self._servicer = servicer
        self._outlet = outlet

    def receive(self, message: bytes) -> None:
        request = parse(pb.ServerReflectionRequest, message)
        for response in self._servicer.ServerReflectionInfo(iter([request]), None):
            self._outlet.send(response.SerializeToString())

    def half_close(self) -> None:
        self._outlet.close()

    def cancel(self) -> None:
        """Nothing waits."""

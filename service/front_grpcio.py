"""The reference front, on grpcio's thread-based server.

It is `grpc.server` and not `grpc.aio`: one request with a path that is not UTF-8 ends the latter's main loop.
Each call holds a thread while it waits for its answer, so the pool bounds how many calls can share a batch.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from service.address import AddressError
from service.calls import Method, Tracer
from service.config import Tls
from service.grpcio_call import CallObserver
from service.grpcio_handlers import Handlers
from service.runner import Runner


@dataclass(frozen=True, slots=True)
class GrpcioOptions:
    """Bounds of the front."""

    address: str = "127.0.0.1:50051"
    """`HOST:PORT` or `unix:PATH`; port 0 takes a free one."""
    threads: int = 64
    """Calls that are worked on at once. Half of them may be streams, which keep their thread as long as they last."""
    max_concurrent_calls: int = 1024
    """Calls that are worked on or wait for a thread; further ones are refused with RESOURCE_EXHAUSTED."""
    max_message_bytes: int = 8 << 20
    """Bytes of one message from a client; a larger one is refused with RESOURCE_EXHAUSTED."""
    tls: Tls | None = None
    """Certificates, read once, when the front starts; None speaks no TLS."""


class GrpcioFront:
    """Serves methods over gRPC. `start` and `stop` are called once each."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        runner: Runner,
        observer: CallObserver,
        options: GrpcioOptions,
        tracer: Tracer | None = None,
    ) -> None:
        self._runner = runner
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="grpcio")
        self._server = grpc.server(
            self._pool,
            handlers=[Handlers(methods, runner, observer, tracer, max_streams=max(1, options.threads // 2))],
            options=[
                ("grpc.max_receive_message_length", options.max_message_bytes),
                ("grpc.max_send_message_length", -1),  # what may be asked for may be answered
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a port shared with a stranger
            ],
            maximum_concurrent_rpcs=options.max_concurrent_calls,
        )

    def start(self) -> str:
        """Listen, and return the address with its real port.

        Raises:
            AddressError: the address is in use, or is none.
        """
        address = self._options.address
        try:
            port = self._add_port(address)
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {address}: it must be HOST:PORT or unix:PATH, and not in use"
            ) from error
        self._runner.start()
        self._server.start()
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def _add_port(self, address: str) -> int:
        tls = self._options.tls
        if tls is None:
            return self._server.add_insecure_port(address)
        try:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            authorities = tls.client_authorities.read_bytes() if tls.client_authorities else None
        except OSError as error:
            raise AddressError(f"cannot use {error.filename} for TLS: {error.strerror}") from error
        credentials = grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)
        return self._server.add_secure_port(address, credentials)

    def stop(self, drain_seconds: float) -> bool:
        """Refuse new calls, let those in flight finish, and tell whether all did within the time given."""
        stopped = self._server.stop(drain_seconds)
        finished = stopped.wait(drain_seconds)
        stopped.wait()
        self._runner.stop()
        self._pool.shutdown()
        return finished

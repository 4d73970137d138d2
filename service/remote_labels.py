"""The commands that move labels on a running server: `quicksilver models label | unlabel | rollback … --server`."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import grpc

from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import error_from
from service.connection import Connection, read_token

_PATH: Final = "/quicksilver.v1.ConverterService/SetLabel"

SetLabel: TypeAlias = "grpc.UnaryUnaryMultiCallable[api.SetLabelRequest, api.SetLabelResponse]"


class Labels:
    """Moves labels on a server. What was asked for is never asked for again by itself: a rollback would go too far."""

    def __init__(self, channel: grpc.Channel, address: str, timeout_seconds: float, token: str | None) -> None:
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._call: SetLabel = channel.unary_unary(
            _PATH,
            request_serializer=api.SetLabelRequest.SerializeToString,
            response_deserializer=api.SetLabelResponse.FromString,
        )

    def set(self, request: api.SetLabelRequest) -> int:
        """Ask for a change, and return the version that the label names then; 0 for none.

        Raises:
            ConverterError: the server cannot be reached, or refuses; the subclass says in which way.
        """
        try:
            return self._call(request, timeout=self._timeout_seconds, metadata=self._metadata).version
        except grpc.RpcError as error:
            raise error_from(error, self._address) from error


@contextmanager
def labels(options: argparse.Namespace) -> Iterator[Labels]:
    """Connect as the command line says.

    Raises:
        ConnectionOptionsError: a file it names cannot be used.
    """
    connection = Connection.of(options)
    token = None if options.token_file is None else read_token(options.token_file)
    with connection.channel() as channel:
        yield Labels(channel, connection.address, options.timeout, token)


def run(options: argparse.Namespace) -> Iterator[str]:
    """Do what was asked, one label after the other, and yield the line that says so after each.

    Raises:
        ConverterError: the server refused; what was told before was done.
        ConnectionOptionsError: as `labels`.
    """
    with labels(options) as remote:
        if options.action == "label":
            for label, version in options.assignments:
                remote.set(api.SetLabelRequest(model=options.name, label=label, version=version))
                yield f"{options.name}: {label} is version {version}"
        elif options.action == "unlabel":
            remote.set(api.SetLabelRequest(model=options.name, label=options.label, none=True))
            yield f"{options.name}: there is no {options.label} any more"
        else:
            version = remote.set(api.SetLabelRequest(model=options.name, label=options.label, previous=True))
            yield f"{options.name}: {options.label} is version {version} again"

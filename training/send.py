"""Sends model files to a running server, and moves its labels. Alone in training it needs grpc; imported when used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from proto.inference.v2 import open_inference_pb2 as pb
from proto.quicksilver.v1 import converter_pb2 as api
from proto.upload import LOAD_METHOD, VERSIONS_KEY, file_key
from training.errors import PublishError

_CONFIG: Final = "config"
_SET_LABEL_METHOD: Final = "/quicksilver.v1.ConverterService/SetLabel"


@dataclass(frozen=True, slots=True)
class Destination:
    """A server, and what it wants to see before it lets itself be changed. Paths are of PEM files, and of the token."""

    address: str
    timeout_seconds: float = 60.0
    token_file: Path | None = None
    tls_authorities: Path | None = None
    """Who signs the server's certificate; None for a server without TLS."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def send(
    destination: Destination,
    name: str,
    model: bytes,
    version: int | None = None,
    *,
    beside: Mapping[str, bytes] | None = None,
) -> int:
    """Have a server publish a model file, and return the version: the next one where none is given.

    `beside` holds a verdict's files by name, which the server puts beside it. Returns once it has verified the model,
    written it to its repository, and loaded it.

    Raises:
        PublishError: the server cannot be reached, or refuses, its reason standing in the message; or what the token
            file holds is no token.
        OSError: a file of the destination cannot be read.
    """
    request = pb.RepositoryModelLoadRequest(model_name=name)
    request.parameters[file_key(version)].bytes_param = model
    for file, content in (beside or {}).items():
        request.parameters[file_key(version, file)].bytes_param = content
    request.parameters[_CONFIG].string_param = "{}"  # other servers of the protocol take no files without it
    with _channel(destination) as channel:
        load: grpc.UnaryUnaryMultiCallable[bytes, pb.RepositoryModelLoadResponse] = channel.unary_unary(
            LOAD_METHOD, response_deserializer=pb.RepositoryModelLoadResponse.FromString
        )
        try:
            _, call = load.with_call(
                request.SerializeToString(), timeout=destination.timeout_seconds, metadata=_metadata(destination)
            )
        except grpc.RpcError as error:
            raise PublishError(f"{destination.address}: {error.code().name}: {error.details()}") from error
        return _published(destination, call, version)


def set_label(destination: Destination, name: str, label: str, version: int | None) -> None:
    """Have a server let a label name a version, or none, which takes it away; returns once it follows it.

    Raises:
        PublishError: the server cannot be reached, or refuses; or what the token file holds is no token.
        OSError: a file of the destination cannot be read.
    """
    request = api.SetLabelRequest(model=name, label=label)
    if version is None:
        request.none = True
    else:
        request.version = version
    with _channel(destination) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, api.SetLabelResponse] = channel.unary_unary(
            _SET_LABEL_METHOD, response_deserializer=api.SetLabelResponse.FromString
        )
        try:
            call(request.SerializeToString(), timeout=destination.timeout_seconds, metadata=_metadata(destination))
        except grpc.RpcError as error:
            raise PublishError(f"{destination.address}: {error.code().name}: {error.details()}") from error


def _published(destination: Destination, call: grpc.Call, version: int | None) -> int:
    trailing = dict(call.trailing_metadata() or ())
    text = str(trailing.get(VERSIONS_KEY, version or ""))
    if not text.isdigit():
        raise PublishError(f"{destination.address} took the file, but does not say under which version")
    return int(text)


def _channel(destination: Destination) -> grpc.Channel:
    if destination.tls_authorities is None:
        return grpc.insecure_channel(destination.address)
    return grpc.secure_channel(
        destination.address,
        grpc.ssl_channel_credentials(
            destination.tls_authorities.read_bytes(),
            None if destination.tls_key is None else destination.tls_key.read_bytes(),
            None if destination.tls_certificate is None else destination.tls_certificate.read_bytes(),
        ),
    )


def _metadata(destination: Destination) -> tuple[tuple[str, str], ...]:
    if destination.token_file is None:
        return ()
    try:
        token = destination.token_file.read_text("ascii").strip()
    except UnicodeDecodeError as error:
        raise PublishError(f"{destination.token_file}: a token is ASCII, unlike the byte at {error.start}") from error
    return (("authorization", f"Bearer {token}"),)

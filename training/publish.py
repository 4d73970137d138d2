"""The command `quicksilver publish`, and what `train` does at its end: a model file becomes a version of a name."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from proto.artefact import Artefact, ArtefactError, NotAnArtefactError, from_metadata
from proto.repository import Repository, check_name
from training.arguments import whole
from training.errors import PublishError
from training.export import check
from training.parity import Engine, check_golden
from training.publish_options import add_connection

if TYPE_CHECKING:
    from training.send import Destination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE.onnx", help="the model file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--repository", type=Path, metavar="DIR", help="the model repository")
    where.add_argument("--to", metavar="HOST:PORT", help="a running server, which puts it into its repository")
    parser.add_argument("--name", required=True, metavar="NAME", help="the name it is served under")
    parser.add_argument(
        "--version", type=whole(1), metavar="N", help="the version's number (default: the one that comes next)"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="publish an ONNX model that carries no Quicksilver metadata (it is served without interval and domain)",
    )
    add_connection(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish the file, and return the exit code."""
    try:
        model = arguments.file.read_bytes()
    except OSError as error:
        raise PublishError(f"{arguments.file}: {error.strerror}") from error
    if arguments.to is None:
        repository, where = Repository(arguments.repository), f"{arguments.repository}/"
        version = publish(repository, arguments.name, model, arguments.version, plain=arguments.plain)
    else:
        check_name(arguments.name)
        check_file(model, plain=arguments.plain)
        version, where = send_to(arguments, arguments.name, model, arguments.version), arguments.to
    print(f"published {arguments.name}/{version} to {where}")  # noqa: T201 - this is what was asked for
    return 0


def send_to(
    arguments: argparse.Namespace,
    name: str,
    model: bytes,
    version: int | None = None,
    *,
    beside: Mapping[str, bytes] | None = None,
) -> int:
    """Have the server that the options name publish a checked file, with its verdict's, and return the version.

    Raises:
        PublishError: see `training.send`.
    """
    from training.send import send  # noqa: PLC0415 - nothing else in training needs grpc

    return send(_destination(arguments), name, model, version, beside=beside)


def label_at(arguments: argparse.Namespace, name: str, label: str, version: int) -> None:
    """Have the server that the options name let a label name a version.

    Raises:
        PublishError: see `training.send`.
    """
    from training.send import set_label  # noqa: PLC0415 - as above

    set_label(_destination(arguments), name, label, version)


def unlabel_at(arguments: argparse.Namespace, name: str, label: str) -> None:
    """Have the server that the options name take a label away.

    Raises:
        PublishError: see `training.send`.
    """
    from training.send import set_label  # noqa: PLC0415 - as above

    set_label(_destination(arguments), name, label, None)


def _destination(arguments: argparse.Namespace) -> "Destination":
    from training.send import Destination  # noqa: PLC0415 - as above

    return Destination(
        arguments.to,
        arguments.timeout,
        arguments.token_file,
        arguments.tls_authorities,
        arguments.tls_certificate,
        arguments.tls_key,
    )


def publish(
    repository: Repository,
    name: str,
    model: bytes,
    version: int | None = None,
    *,
    plain: bool = False,
    beside: Mapping[str, bytes] | None = None,
) -> int:
    """Publish a model file as a version of a name, the next one where none is given, and return its number.

    `beside` holds files that are to stand in the version's directory.

    Raises:
        TrainingError: as `check_file`.
        PublishError: the repository cannot be written to.
        RepositoryError: the repository refuses it.
    """
    check_file(model, plain=plain)
    try:
        return repository.publish(name, model, version, beside=beside)
    except OSError as error:
        raise PublishError(f"{repository.root}: cannot be written to: {error.strerror}") from error


def check_file(model: bytes, *, plain: bool = False) -> None:
    """Check that a model file may be published.

    A file with our metadata must have all of it, and must answer its golden vectors. A file without is taken only where
    `plain` says that this is meant, and where ONNX Runtime can load it: it could not be served otherwise.

    Raises:
        PublishError: it is no ONNX model, or carries no metadata and `plain` was not said, or its metadata is wrong.
        ExportError: it is no valid ONNX model, cannot be loaded, or does not answer its golden vectors.
    """
    artefact = read_artefact(model, plain=plain)
    if artefact is None:
        Engine(model)
    else:
        check_golden(model, artefact.golden)


def read_artefact(model: bytes, *, plain: bool = False) -> Artefact | None:
    """Read the metadata of a model file strictly; None for a plain model where that is allowed.

    Raises:
        TrainingError: see `check_file`.
    """
    try:
        graph = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise PublishError("not an ONNX model: the file cannot be decoded") from error
    check(graph, "the file")
    try:
        return from_metadata({entry.key: entry.value for entry in graph.metadata_props})
    except NotAnArtefactError as error:
        if plain:
            return None
        raise PublishError(f"{error}; to publish a plain ONNX model all the same, say --plain") from error
    except ArtefactError as error:
        raise PublishError(str(error)) from error

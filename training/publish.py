"""The command `quicksilver publish`, and what `train` does at its end: a model file becomes a version of a name."""

import argparse
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from proto.artefact import Artefact, ArtefactError, NotAnArtefactError, from_metadata
from proto.repository import Repository
from training.errors import PublishError
from training.export import check
from training.parity import check_golden


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE.onnx", help="the model file")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the model repository")
    parser.add_argument("--name", required=True, metavar="NAME", help="the name it is served under")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="publish an ONNX model that carries no Quicksilver metadata (it is served without interval and domain)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Publish the file, and return the exit code."""
    try:
        model = arguments.file.read_bytes()
    except OSError as error:
        raise PublishError(f"{arguments.file}: {error.strerror}") from error
    version = publish(Repository(arguments.repository), arguments.name, model, plain=arguments.plain)
    print(f"published {arguments.name}/{version} to {arguments.repository}/")  # noqa: T201 - this is what was asked for
    return 0


def publish(repository: Repository, name: str, model: bytes, *, plain: bool = False) -> int:
    """Publish a model file as the next version of a name, and return its number.

    A file with our metadata must have all of it, and must answer its golden vectors. A file without is taken only where
    `plain` says that this is meant.

    Raises:
        PublishError: it is no valid ONNX model, or carries no metadata and `plain` was not said, or its metadata is
            wrong.
        ExportError: it does not answer its golden vectors.
        RepositoryError: the repository refuses it.
    """
    artefact = read_artefact(model, plain=plain)
    if artefact is not None:
        check_golden(model, artefact.golden)
    return repository.publish(name, model)


def read_artefact(model: bytes, *, plain: bool = False) -> Artefact | None:
    """Read the metadata of a model file strictly; None for a plain model where that is allowed.

    Raises:
        PublishError: see `publish`.
    """
    try:
        graph = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise PublishError("not an ONNX model: the file cannot be decoded") from error
    check(graph)
    try:
        return from_metadata({entry.key: entry.value for entry in graph.metadata_props})
    except NotAnArtefactError as error:
        if plain:
            return None
        raise PublishError(f"{error}; to publish a plain ONNX model all the same, say --plain") from error
    except ArtefactError as error:
        raise PublishError(str(error)) from error

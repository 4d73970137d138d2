"""RepositoryModelLoad and RepositoryModelUnload: their messages, over whoever can load and unload.

The files of a load are parameters named `file:<version>/model.onnx`, as Triton takes them; `next` for a version stands
for the number that comes next. Triton wants a `config` beside files: the JSON of a ModelConfig. Here a file says by
itself how it is to be served, so a configuration is only looked at for what would contradict that.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from proto.inference.v2 import open_inference_pb2 as pb
from proto.repository import MODEL_FILE
from proto.upload import LOAD_METHOD, VERSIONS_KEY, file_key, parse_file_key
from service.calls import Context, Method
from service.errors import InvalidRequestError
from service.open_inference import SERVICE
from service.open_inference.metadata import BACKEND, PLATFORM, refuse_repository_name
from service.slow import slow_unary

Guard = Callable[[Context], None]
"""Raises a ServiceError where the caller may not change the server."""

CONFIG: Final = "config"
_UNLOAD_DEPENDENTS: Final = "unload_dependents"


class RepositoryControl(Protocol):
    """Loads and unloads models. Both return when it is done, and raise a ServiceError where it cannot be."""

    def load(self, name: str, files: Mapping[int | None, Mapping[str, bytes]]) -> Sequence[int]:
        """Load what the repository holds of a model, with the files sent as new versions; return these.

        `files` holds, by their versions, the files of each by name, a model among them; None stands for the number that
        comes next.
        """

    def unload(self, name: str) -> None:
        """Let a model answer no more, and return when its last call is answered."""


def methods(control: RepositoryControl, guard: Guard) -> list[Method]:
    """Return the two methods. The guard is asked before anything is done."""

    def load(request: pb.RepositoryModelLoadRequest, context: Context) -> pb.RepositoryModelLoadResponse:
        guard(context)
        refuse_repository_name(request.repository_name)
        published = control.load(request.model_name, read_files(request))
        if published:
            context.trailing_metadata.append((VERSIONS_KEY, ",".join(map(str, published))))
        return pb.RepositoryModelLoadResponse()

    def unload(request: pb.RepositoryModelUnloadRequest, context: Context) -> pb.RepositoryModelUnloadResponse:
        guard(context)
        refuse_repository_name(request.repository_name)
        _refuse_others(request.parameters, {_UNLOAD_DEPENDENTS})
        control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    return [
        slow_unary(LOAD_METHOD, pb.RepositoryModelLoadRequest, load),
        slow_unary(f"/{SERVICE}/RepositoryModelUnload", pb.RepositoryModelUnloadRequest, unload),
    ]


def read_files(request: pb.RepositoryModelLoadRequest) -> dict[int | None, dict[str, bytes]]:
    """Read the files of a load, by their versions and names.

    Raises:
        InvalidRequestError: a parameter is neither a file nor a configuration, holds another type, or contradicts what
            is served here; or a version comes without a model.
    """
    files: dict[int | None, dict[str, bytes]] = {}
    for key, parameter in request.parameters.items():
        if key == CONFIG:
            continue
        try:
            version, name = parse_file_key(key)
        except ValueError as error:
            raise InvalidRequestError("parameters", f"{error}, nor {CONFIG!r}") from None
        if parameter.WhichOneof("parameter_choice") != "bytes_param":
            raise InvalidRequestError(f"parameters[{key}]", "is not bytes")
        files.setdefault(version, {})[name] = parameter.bytes_param
    if bare := [version for version, contents in files.items() if MODEL_FILE not in contents]:
        raise InvalidRequestError("parameters", f"{file_key(bare[0])!r} is missing: a version is its model")
    if CONFIG in request.parameters:
        _check_config(request.parameters[CONFIG], request.model_name)
    return files


def _check_config(parameter: pb.ModelRepositoryParameter, name: str) -> None:
    field = f"parameters[{CONFIG}]"
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequestError(field, "is not a text")
    config = _read_object(field, parameter.string_param)
    for key, served in (("name", name), ("backend", BACKEND), ("platform", PLATFORM)):
        if config.get(key, served) not in (served, ""):
            raise InvalidRequestError(field, f"{key} is {config[key]!r}; what is served is {served!r}")


def _read_object(field: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError(field, "is not JSON") from None
    if not isinstance(config, dict):
        raise InvalidRequestError(field, "is not a JSON object")
    return config


def _refuse_others(parameters: Mapping[str, pb.ModelRepositoryParameter], known: Collection[str]) -> None:
    if others := sorted(set(parameters) - set(known)):
        raise InvalidRequestError("parameters", f"{others[0][:80]!r} is none of {', '.join(known)}")

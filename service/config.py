"""Every setting of the server: its bounds, its default, and what it means, in one frozen value.

A setting comes from the command line, a `QUICKSILVER_*` variable, or a TOML file, in this order. What is unknown or
out of bounds refuses to start, and is named with where it came from.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proto.repository import check_name
from service.address import UNIX_PREFIX, split_host_port
from service.engine import Device

ENVIRONMENT_PREFIX: Final = "QUICKSILVER_"
FILE_VARIABLE: Final = ENVIRONMENT_PREFIX + "SETTINGS"
SERVER_VARIABLE: Final = ENVIRONMENT_PREFIX + "SERVER"
"""Read by the client commands, not by the server: a variable that may stand beside the settings."""


class SettingsError(Exception):
    """A setting is unknown or out of bounds; the message names it and where it came from."""


def _grpc_address(address: str) -> str:
    if not address.startswith(UNIX_PREFIX):
        _http_address(address)
    return address


def _http_address(address: str) -> str:
    try:
        split_host_port(address)
    except Exception as error:
        raise ValueError(str(error)) from error
    return address


def _model_name(name: str) -> str:
    try:
        return check_name(name)
    except Exception as error:
        raise ValueError(str(error)) from error


class Settings(BaseSettings):
    """The settings of `quicksilver serve`. The descriptions are what `--help` prints."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, protected_namespaces=()
    )

    repository: Path = Field(Path("models"), description="directory of the models: NAME/VERSION/model.onnx")
    listen: Annotated[str, AfterValidator(_grpc_address)] = Field(
        "127.0.0.1:50051", description="where gRPC listens: HOST:PORT or unix:PATH; port 0 takes a free one"
    )
    http_listen: Annotated[str, AfterValidator(_http_address)] = Field(
        "127.0.0.1:8002", description="where /metrics, /healthz and /readyz are served: HOST:PORT"
    )
    default_model: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, description="model that answers a request that names none; by itself the only one there is"
    )
    latest_versions: int = Field(
        1, ge=0, description="newest versions of a model to load beside the labelled ones; 0 loads all"
    )
    device: Device = Field("auto", description="where models run: cpu, cuda (or refuse to start), or auto")
    intra_op_threads: int = Field(1, ge=0, le=1024, description="ONNX Runtime threads that share a run; 0: one a core")
    inter_op_threads: int = Field(
        1, ge=0, le=1024, description="ONNX Runtime threads for a graph's branches; 0: its choice"
    )
    spinning: bool = Field(False, description="let idle ONNX Runtime threads spin: lower latency, more CPU")
    max_rows_per_request: int = Field(1 << 20, ge=1, le=1 << 28, description="temperatures in one request")
    max_batch_rows: int = Field(
        1 << 14, ge=1, le=1 << 28, description="rows up to which requests are joined into a run"
    )
    solo_rows: int = Field(1 << 12, ge=1, description="rows from which a request runs alone, on a thread for long runs")
    max_message_bytes: int = Field(8 << 20, ge=1024, le=1 << 30, description="bytes of one message from a client")
    max_waiting_calls: int = Field(4096, ge=1, description="requests that may wait for a run; more are refused")
    max_waiting_bytes: int = Field(256 << 20, ge=1024, description="bytes of requests that may wait; more are refused")
    grpcio_threads: int = Field(64, ge=2, le=4096, description="calls worked on at once; half of them may be streams")
    max_concurrent_calls: int = Field(1024, ge=1, description="calls accepted at once; more are refused")
    drain_seconds: float = Field(10.0, ge=0, le=3600, description="time for calls in flight to finish after SIGTERM")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="console, json (a line an event), or auto: console on a terminal"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe event to log")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env files: what is set is set where it is seen
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values given before those of the environment; the file is read by `load_settings`."""
        return init_settings, env_settings


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def load_settings(given: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Put the settings together: those given before the environment's, those before the file's.

    Raises:
        SettingsError: one is unknown or out of bounds, or the file cannot be read.
    """
    _refuse_unknown_variables(environment)
    from_file = {} if file is None else _read_file(file)
    from_environment = {
        name: environment[variable(name)] for name in Settings.model_fields if environment.get(variable(name))
    }
    values = {**from_file, **from_environment, **given}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        origins = {
            name: flag(name) if name in given else variable(name) if name in from_environment else f"{name!r} in {file}"
            for name in values
        }
        raise SettingsError("\n".join(_problems(error, origins))) from error


def settings_file(environment: Mapping[str, str]) -> Path | None:
    """The settings file that the environment names."""
    named = environment.get(FILE_VARIABLE)
    return Path(named) if named else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {variable(name) for name in Settings.model_fields} | {FILE_VARIABLE, SERVER_VARIABLE}
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"{unknown[0]}: there is no such setting")


def _problems(error: ValidationError, origins: Mapping[str, str]) -> Sequence[str]:
    lines = []
    for problem in error.errors():
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{origins[name]}: there is no such setting")
        else:
            lines.append(f"{origins[name]}: {problem['msg']}, not {os.fspath(str(problem['input']))!r}")
    return lines

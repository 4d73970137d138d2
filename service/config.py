"""Every setting of the server: its bounds, its default, and what it means, in one frozen value.

A setting comes from the command line, a `QUICKSILVER_*` variable, or a TOML file, in this order. What is unknown, out
of bounds, or at odds with another setting refuses to start, and is named with where it came from.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from proto.repository import InvalidNameError, check_name
from service.address import UNIX_PREFIX, AddressError, split_host_port
from service.device import Device
from service.version_policy import VersionPolicy

ENVIRONMENT_PREFIX: Final = "QUICKSILVER_"
FILE_VARIABLE: Final = ENVIRONMENT_PREFIX + "SETTINGS"
SERVER_VARIABLE: Final = ENVIRONMENT_PREFIX + "SERVER"
"""Read by the client commands, not by the server: a variable that may stand beside the settings."""


class SettingsError(Exception):
    """A setting is unknown, out of bounds or at odds with another; the message names it and where it came from."""


def _grpc_address(address: str) -> str:
    if address.startswith(UNIX_PREFIX) and address != UNIX_PREFIX:
        return address
    return _http_address(address)


def _http_address(address: str) -> str:
    try:
        split_host_port(address)
    except AddressError as error:
        raise ValueError(str(error)) from error
    return address


def _store_url(url: str) -> str:
    from proto.observations import StoreUrlError, parse_url  # noqa: PLC0415 - SQLAlchemy, where there is a store

    try:
        parse_url(url)
    except StoreUrlError as error:
        raise ValueError(str(error)) from error
    return url


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{text!r} is no address as http://HOST:PORT or https://HOST:PORT")
    return text


def _model_name(name: str) -> str:
    try:
        return check_name(name)
    except InvalidNameError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the server's certificate chain and key, and the authorities that clients must come from, if any."""

    certificate: Path
    key: Path
    client_authorities: Path | None


def _version_policy(text: str) -> str:
    return str(VersionPolicy.parse(text))


def _model_names(text: str) -> str:
    if text != "*":
        for name in text.split(","):
            _model_name(name)
    return text


class Settings(BaseModel):
    """The settings of `quicksilver serve`. The descriptions are what `--help` prints."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    repository: Path = Field(Path("models"), description="directory of the models: NAME/VERSION/model.onnx")
    listen: Annotated[str, AfterValidator(_grpc_address)] = Field(
        "127.0.0.1:50051", description="where gRPC listens: HOST:PORT or unix:PATH; port 0 takes a free one"
    )
    transport: Literal["auto", "http2", "grpcio"] = Field(
        "auto", description="front that serves gRPC: http2 (fast), grpcio (reference), or auto: http2"
    )
    workers: int = Field(
        1, ge=1, le=256, description="processes that serve behind one port; more than one needs the http2 front"
    )
    tls_certificate: Path | None = Field(None, description="PEM file of the server's certificate chain; serves TLS")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    tls_client_authorities: Path | None = Field(
        None, description="PEM file of authorities; clients must then show a certificate of one of them"
    )
    http_listen: Annotated[str, AfterValidator(_http_address)] = Field(
        "127.0.0.1:8002", description="where /metrics, /healthz and /readyz are served: HOST:PORT"
    )
    default_model: Annotated[str, AfterValidator(_model_name)] | None = Field(
        None, description="model that answers a request that names none; by itself the only one there is"
    )
    version_policy: Annotated[str, AfterValidator(_version_policy)] = Field(
        "latest:1", description="versions to load beside the labelled ones: latest:N that work, all, or 1,3,7"
    )
    model_control: Literal["watch", "explicit", "none"] = Field(
        "watch",
        description="watch follows the repository; explicit loads and unloads by the API alone; none stays as at start",
    )
    load_models: Annotated[str, AfterValidator(_model_names)] | None = Field(
        None, description="with explicit control, models to load at the start: NAME,NAME, or * for all"
    )
    watch: Literal["auto", "poll"] = Field(
        "auto", description="how changes are noticed: auto is told by the system where it can be; poll looks"
    )
    watch_interval_seconds: float = Field(
        5.0, ge=0.05, le=3600, description="between two looks at the repository, also where the system tells of changes"
    )
    admin_token_file: Path | None = Field(
        None, description="file with the token that admin methods want; without it they are open on local addresses"
    )
    observations: Annotated[str, AfterValidator(_store_url)] | None = Field(
        None,
        description="database that observations of true temperatures are stored in: sqlite:///PATH or "
        "postgresql://USER@HOST:PORT/DATABASE; without it reports are refused",
    )
    observations_per_second: float = Field(
        10_000, gt=0, description="observations that may be reported a second; more are refused"
    )
    live_observations: int = Field(
        4096, ge=10, le=1 << 20, description="latest observations that live quality is measured on"
    )
    kept_answer_bytes: int = Field(
        16 << 20, ge=0, le=1 << 34, description="bytes of answers that are kept to join observations to"
    )
    device: Device = Field("auto", description="where models run: cpu, cuda (or refuse to start), or auto")
    intra_op_threads: int = Field(1, ge=0, le=1024, description="ONNX Runtime threads that share a run; 0: one a core")
    large_run_threads: int = Field(
        1,
        ge=0,
        le=1024,
        description="threads of a second session for large runs, used where measured faster; 0: one a core, 1: none",
    )
    inter_op_threads: int = Field(
        1, ge=0, le=1024, description="ONNX Runtime threads for a graph's branches; 0: its choice"
    )
    spinning: bool = Field(False, description="let idle ONNX Runtime threads spin: lower latency, more CPU")
    max_rows_per_request: int = Field(1 << 20, ge=1, le=1 << 28, description="temperatures in one request")
    max_batch_rows: int = Field(
        1 << 15, ge=1, le=1 << 28, description="rows up to which requests are joined into a run"
    )
    solo_rows: int = Field(1 << 12, ge=1, description="rows from which a request runs alone, on a thread for long runs")
    max_message_bytes: int = Field(8 << 20, ge=1024, le=1 << 30, description="bytes of one message from a client")
    max_waiting_calls: int = Field(
        4096, ge=1, description="requests that may wait for a run, on http2 calls that may be open; more are refused"
    )
    max_waiting_bytes: int = Field(
        256 << 20,
        ge=1024,
        description="bytes of requests that may wait, on http2 of untaken answers too; more are refused",
    )
    grpcio_threads: int = Field(64, ge=2, le=4096, description="grpcio: calls worked on at once; half may be streams")
    max_concurrent_calls: int = Field(1024, ge=1, description="grpcio: calls accepted at once; more are refused")
    max_connections: int = Field(10_000, ge=1, description="http2: connections open at once; more are closed")
    max_idle_seconds: float = Field(0, ge=0, description="http2: close connections idle for this long; 0: never")
    max_age_seconds: float = Field(
        0, ge=0, description="http2: drain connections older than this, give or take a tenth; 0: never"
    )
    keepalive_seconds: float = Field(60, ge=0, description="http2: ping connections silent for this long; 0: never")
    shadow_queue_bytes: int = Field(
        8 << 20, ge=0, le=1 << 30, description="bytes of rows and answers that may wait for a canary in the shadow"
    )
    shadow_time_share: float = Field(
        0.2, gt=0, le=1, description="part of one thread's time in which canaries may run in the shadow"
    )
    drain_seconds: float = Field(10.0, ge=0, le=3600, description="time for calls in flight to finish after SIGTERM")
    otlp_endpoint: Annotated[str, AfterValidator(_url)] | None = Field(
        None,
        description="collector that traces are sent to, over gRPC: http://HOST:PORT; needs the extra 'tracing'",
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1, description="share of calls to trace where the caller does not say whether to"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="console, json (a line an event), or auto: console on a terminal"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe event to log")

    @property
    def tls(self) -> Tls | None:
        """The files of TLS, or None where it is not spoken."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return Tls(self.tls_certificate, self.tls_key, self.tls_client_authorities)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse `true` where a number is wanted: Python takes it for 1, nobody means that."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"{str(value).lower()} is no value for it")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings that contradict each other, or what is there."""
        if self.repository.exists() and not self.repository.is_dir():
            raise ValueError(f"repository, {self.repository}, is no directory")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: one is missing")
        if self.tls_client_authorities is not None and self.tls_certificate is None:
            raise ValueError("tls_client_authorities asks clients for certificates: tls_certificate is missing")
        if self.listen == self.http_listen and split_host_port(self.listen)[1] != 0:
            raise ValueError(f"listen and http_listen are both {self.listen}: one address cannot serve two protocols")
        if self.workers > 1 and self.transport == "grpcio":
            raise ValueError(
                f"workers, {self.workers}, and transport, grpcio, contradict each other: only the http2 front can take "
                "connections that another process accepted"
            )
        if self.max_waiting_calls < self.workers:
            raise ValueError(
                f"max_waiting_calls, {self.max_waiting_calls}, is less than workers, {self.workers}: they share it"
            )
        if self.max_waiting_bytes // self.workers < self.max_message_bytes:
            each = f" divided by workers, {self.workers}," if self.workers > 1 else ""
            raise ValueError(
                f"max_waiting_bytes, {self.max_waiting_bytes},{each} is less than max_message_bytes, "
                f"{self.max_message_bytes}: one message alone may break it"
            )
        return self


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def load_settings(given: Mapping[str, Any], file: Path | None, environment: Mapping[str, str]) -> Settings:
    """Put the settings together: those given before the environment's, those before the file's.

    A variable that is empty counts as not set.

    Raises:
        SettingsError: one is unknown, out of bounds or at odds with another, or the file cannot be read.
    """
    _refuse_unknown_variables(environment)
    from_file = {} if file is None else _read_file(file)
    from_environment = {
        name: environment[variable(name)] for name in Settings.model_fields if environment.get(variable(name))
    }
    origins = {
        **{name: f"{name!r} in {file}" for name in from_file},
        **{name: variable(name) for name in from_environment},
        **{name: flag(name) for name in given},
    }
    try:
        return Settings.model_validate({**from_file, **from_environment, **given})
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(problem, origins) for problem in error.errors())) from error


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
        raise SettingsError("\n".join(f"{name}: there is no such setting" for name in unknown))


def _problem(problem: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One line about one problem: where the setting came from, and what is wrong with it."""
    text = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return text + "".join(f"; {origin}" for origin in _named_origins(text, origins))
    origin = origins[str(problem["loc"][0])]
    if problem["type"] == "extra_forbidden":
        return f"{origin}: there is no such setting"
    if problem["type"] == "value_error":
        return f"{origin}: {text}"
    return f"{origin}: {text[0].lower()}{text[1:]}, not {str(problem['input'])!r}"


def _named_origins(text: str, origins: Mapping[str, str]) -> Iterator[str]:
    """Where the settings that a text names came from; one that nobody set has its default."""
    for name in Settings.model_fields:
        if name in text.replace(",", "").split() and name in origins:
            yield f"{name} is from {origins[name]}"

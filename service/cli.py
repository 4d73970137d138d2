"""The commands `quicksilver serve`, `ready`, `convert`, `models`, `observations` and `promote`: arguments in, text out.

Exit codes: 0 done; 1 it could not be done, and stderr says why; 2 the command line makes no sense.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, get_args

from google.protobuf.message import Message

from service import connection, ready, repository_commands
from service.arguments import Parser
from service.config import (
    FILE_VARIABLE,
    Settings,
    SettingsError,
    flag,
    load_settings,
    settings_file,
    variable,
)

if TYPE_CHECKING:
    from service.client import Converter
    from service.server import Server
    from service.workers.supervisor import Supervisor

MessageT = TypeVar("MessageT", bound=Message)

_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""What asks a server to end."""
_UNITS: Final = {
    "bytes", "calls", "connections", "observations", "ratio", "rows", "seconds", "share", "threads", "versions",
    "workers",
}  # fmt: skip
_METAVARS: Final = {
    "repository": "DIR",
    "listen": "ADDRESS",
    "http_listen": "HOST:PORT",
    "default_model": "NAME",
    "version_policy": "POLICY",
    "load_models": "NAMES",
    "observations": "URL",
    "otlp_endpoint": "URL",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments[0]` names, with the rest as its arguments."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core writes to stderr what its errors tell us as well
    return _COMMANDS[arguments[0]](arguments[1:])


# serve ----------------------------------------------------------------------------------------------------------------


def serve_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver serve`: one flag a setting, described by the setting itself."""
    parser = Parser(
        prog="quicksilver serve",
        description="Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C drains it.",
        epilog="In brackets: the default, and the environment variable that sets it. In the settings file a setting's "
        "name is that of its flag with '_' for '-'. A flag goes before a variable, a variable before the file.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"TOML file of settings [none; {FILE_VARIABLE}]")
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else field.default
        description = (field.description or "").replace("%", "%%")
        options: dict[str, Any] = {"help": f"{description} [{default}; {variable(name)}]"}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = _metavar(name, field.annotation)
        parser.add_argument(flag(name), dest=name, **options)
    return parser


def _metavar(name: str, annotation: Any) -> str:  # noqa: ANN401 - a type of any kind
    """What stands for a setting's value: its choices, the unit that its name holds, or what kind of text it is."""
    kinds = get_args(annotation) or (annotation,)
    if all(isinstance(kind, str) for kind in kinds):
        return "|".join(kinds)
    units = [word for word in name.split("_") if word in _UNITS]
    if units and name not in _METAVARS:
        return units[0].upper()
    return _METAVARS.get(name) or ("FILE" if Path in kinds else "TEXT")


def _serve(arguments: Sequence[str]) -> int:
    given = vars(serve_parser().parse_args(arguments))
    file = given.pop("settings", None) or settings_file(os.environ)
    # To check a store of observations imports NumPy, which starts threads: a signal that one of them does not block is
    # its own, and ends the process at once, or is lost on the first process of a container.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # what `_Signals` needs as well
    try:
        settings = load_settings(given, file, os.environ)
    except SettingsError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _fail("serve", str(error), 2)
    return _run_server(settings)


def _run_server(settings: Settings) -> int:
    from service.logs import configure_logs  # noqa: PLC0415 - --help needs none of this
    from service.memory import keep_freed_pages  # noqa: PLC0415 - as above

    keep_freed_pages()  # before any thread starts
    configure_logs(settings.log_format, settings.log_level)
    signals = _Signals()
    server = (_start_workers if settings.workers > 1 else _start_server)(settings, signals.loaded)
    if server is None:
        return 1
    asked = signals.wait()
    # Whoever asks in the same way a second time does not want to wait. The other signal stays blocked: a script that
    # ends its children sends it after Ctrl-C on a terminal, which all of them got, without any such meaning.
    signal.signal(asked, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {asked})
    return 0 if server.stop() else 1


class _Signals:
    """SIGTERM and Ctrl-C, which whoever makes this has blocked: until `loaded` they end the process, then they ask.

    A start may take minutes, and nothing is in flight then. One thread waits for the first signal, which runs while
    ONNX Runtime loads; all others block both, whatever starts them.
    """

    def __init__(self) -> None:
        for number in _ENDING:
            # Python's own handler waits for the main thread, and what a shell started in the background ignores SIGINT.
            if signal.getsignal(number) in {signal.default_int_handler, signal.SIG_IGN}:
                signal.signal(number, signal.SIG_DFL)
        self._turn = threading.Lock()
        self._is_loaded = False
        self._asked: SimpleQueue[signal.Signals] = SimpleQueue()
        threading.Thread(target=self._work, name="signals", daemon=True).start()

    def loaded(self) -> None:
        """Learn that from now on a signal asks for a drain."""
        with self._turn:
            self._is_loaded = True

    def wait(self) -> signal.Signals:
        """Wait until somebody asks, and return by which signal."""
        return self._asked.get()

    def _work(self) -> None:
        asked = signal.Signals(signal.sigwait(_ENDING))
        with self._turn:
            if not self._is_loaded:
                _end_by(asked)
        self._asked.put(asked)


def _end_by(asked: signal.Signals) -> NoReturn:
    """End the process as a signal ends one; the first process of a container, which none ends so, by its exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {asked})
    signal.raise_signal(asked)
    os._exit(128 + asked)


def _start_server(settings: Settings, loaded: Callable[[], None]) -> "Server | None":
    from service.address import AddressError  # noqa: PLC0415 - ONNX Runtime and gRPC take a second to import; --help must not
    from service.admin import TokenFileError  # noqa: PLC0415 - as above
    from service.engine import DeviceError  # noqa: PLC0415 - as above
    from service.memory import settle_memory  # noqa: PLC0415 - as above
    from service.observations import StoreSettingError  # noqa: PLC0415 - as above
    from service.server import Server  # noqa: PLC0415 - as above

    def ready_to_listen() -> None:
        settle_memory()  # which takes 0.1 s: nobody is connected yet who would wait
        loaded()

    try:
        server = Server(settings)
        server.start(ready_to_listen)
    except (DeviceError, AddressError, TokenFileError, StoreSettingError, SettingsError) as error:
        _fail("serve", str(error), 1)
        return None
    return server


def _start_workers(settings: Settings, loaded: Callable[[], None]) -> "Supervisor | None":
    from service.address import AddressError  # noqa: PLC0415 - as above; neither ONNX Runtime nor gRPC, which workers need
    from service.workers.supervisor import Supervisor, WorkerError  # noqa: PLC0415 - as above

    try:
        supervisor = Supervisor(settings)
        supervisor.start(loaded)
    except (WorkerError, AddressError) as error:
        _fail("serve", str(error), 1)
        return None
    return supervisor


# convert --------------------------------------------------------------------------------------------------------------


def convert_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver convert`."""
    from service.tables import number  # noqa: PLC0415 - serve has no use for it

    parser = Parser(
        prog="quicksilver convert",
        description="Convert temperatures in degrees Fahrenheit with a running server.",
        epilog="Without temperatures they are read from standard input, split at white space, commas or semicolons.",
    )
    parser.add_argument(
        "fahrenheit", nargs="*", type=number, metavar="FAHRENHEIT", help="temperatures, for example 98.6"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="read them from a CSV file ('-': standard input)")
    parser.add_argument("--column", default="fahrenheit", metavar="NAME", help="the CSV column [%(default)s]")
    _add_choice(parser)
    parser.add_argument("--interval", action="store_true", help="show the prediction interval")
    parser.add_argument("--reject", action="store_true", help="fail where one lies outside the training range")
    _add_connection(parser)
    return parser


def _add_choice(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    name = parser.add_mutually_exclusive_group()
    if positional:
        name.add_argument("model", nargs="?", default=argparse.SUPPRESS, metavar="NAME", help="the same as --model")
    name.add_argument("--model", default="", metavar="NAME", help="which model [the server's default]")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--version", type=int, metavar="N", help="which version [the one labelled stable]")
    choice.add_argument("--label", metavar="LABEL", help="which version, by its label")


def _add_connection(parser: argparse.ArgumentParser) -> None:
    from service.client import DEFAULT_TIMEOUT_SECONDS  # noqa: PLC0415 - serve has no use for the client

    connection.add_arguments(parser)
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, metavar="SECONDS", help="deadline [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _converter(options: argparse.Namespace) -> "Converter":
    """Connect as the command line says."""
    from service.client import Converter  # noqa: PLC0415 - serve has no use for the client

    reached = connection.Connection.of(options)
    return Converter(reached.address, timeout_seconds=options.timeout, credentials=reached.credentials())


def _convert(arguments: Sequence[str]) -> int:
    from service.client import ConverterError  # noqa: PLC0415 - serve has no use for the client
    from service.tables import ReadingError, conversion_json, print_conversion  # noqa: PLC0415 - as above

    parser = convert_parser()
    options = parser.parse_intermixed_args([_no_flag(word) for word in arguments])
    if options.fahrenheit and options.csv:
        parser.error("temperatures are named, or read from --csv, not both")
    try:
        fahrenheit = options.fahrenheit or _read(options)
        with _converter(options) as converter:
            conversion = converter.convert(
                fahrenheit,
                model=options.model,
                version=options.version,
                label=options.label,
                interval=options.interval,
                on_extrapolation="reject" if options.reject else "flag",
            )
    except (ReadingError, ConverterError, connection.ConnectionOptionsError) as error:
        return _fail("convert", str(error), 1)
    except ValueError as error:  # an option that no request can carry
        return _fail("convert", str(error), 2)
    if options.json:
        print(conversion_json(fahrenheit, conversion))  # noqa: T201 - this is what was asked for
    else:
        print_conversion(fahrenheit, conversion)
    return 0


def _read(options: argparse.Namespace) -> list[float]:
    from service.tables import read_csv, read_numbers  # noqa: PLC0415 - serve has no use for them

    return read_csv(options.csv, options.column) if options.csv else read_numbers()


def _no_flag(word: str) -> str:
    """Let argparse take a negative number in any notation for what it is: it knows -40, and not -4e1 or -inf.

    A word that begins with a space is never a flag, and `float` and `int` skip the space.
    """
    try:
        float(word)
    except ValueError:
        return word
    return f" {word}" if word.startswith("-") else word


# models ---------------------------------------------------------------------------------------------------------------


def models_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver models`."""
    parser = Parser(
        prog="quicksilver models",
        description="What a running server holds, and the labels of a repository on disk or on a running server.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every model and its versions")
    _add_connection(listing)
    showing = actions.add_parser("show", help="all that is known of one version of a model")
    _add_choice(showing, positional=True)
    _add_connection(showing)
    repository = os.environ.get(variable("repository")) or str(Settings.model_fields["repository"].default)
    repository_commands.add_parsers(actions, repository)
    return parser


def _models(arguments: Sequence[str]) -> int:
    from service.client import ConverterError  # noqa: PLC0415 - serve has no use for the client
    from service.tables import print_model, print_models  # noqa: PLC0415 - as above

    options = models_parser().parse_args(arguments)
    if options.action in repository_commands.ACTIONS:
        return _change_repository(options)
    try:
        with _converter(options) as converter:
            if options.action == "list":
                listed = converter.models()
                _show(listed, print_models, as_json=options.json)
            else:
                described = converter.model(options.model, version=options.version, label=options.label)
                _show(described, print_model, as_json=options.json)
    except (ConverterError, connection.ConnectionOptionsError) as error:
        return _fail("models", str(error), 1)
    except ValueError as error:  # an option that no request can carry
        return _fail("models", str(error), 2)
    return 0


def _change_repository(options: argparse.Namespace) -> int:
    try:
        for line in repository_commands.run(options):
            print(line)  # noqa: T201 - the terminal is who asked
    except repository_commands.CommandError as error:
        return _fail("models", str(error), 1)
    return 0


def _show(answer: MessageT, show: Callable[[MessageT], None], *, as_json: bool) -> None:
    from service.tables import message_json  # noqa: PLC0415 - serve has no use for the client

    if as_json:
        print(message_json(answer))  # noqa: T201 - this is what was asked for
    else:
        show(answer)


def _fail(command: str, message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"quicksilver {command}: {line}", file=sys.stderr)  # noqa: T201 - the terminal is who asked
    return code


def _promote(arguments: Sequence[str]) -> int:
    from service import promote  # noqa: PLC0415 - NumPy takes a while to import; `ready` must not

    return promote.run(arguments)


def _observations(arguments: Sequence[str]) -> int:
    from service import observation_commands  # noqa: PLC0415 - as above

    return observation_commands.run(arguments)


_COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "serve": _serve,
    "ready": ready.run,
    "convert": _convert,
    "models": _models,
    "observations": _observations,
    "promote": _promote,
}

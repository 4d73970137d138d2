"""The commands `quicksilver serve`, `convert` and `models`: arguments in, text out, exit codes.

Exit codes: 0 done; 1 it could not be done, and stderr says why; 2 the command line makes no sense.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from google.protobuf.message import Message

from service.config import (
    FILE_VARIABLE,
    SERVER_VARIABLE,
    Settings,
    SettingsError,
    flag,
    load_settings,
    settings_file,
    variable,
)

MessageT = TypeVar("MessageT", bound=Message)


def main(arguments: Sequence[str]) -> int:
    """Run the command that `arguments[0]` names, with the rest as its arguments."""
    return _COMMANDS[arguments[0]](arguments[1:])


# serve ----------------------------------------------------------------------------------------------------------------


def serve_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver serve`: one flag a setting, described by the setting itself."""
    parser = argparse.ArgumentParser(
        prog="quicksilver serve",
        description="Serve the models of a repository over gRPC, until SIGTERM or Ctrl-C drains it.",
        epilog=f"Every setting can also stand in an environment variable ({variable('listen')} for --listen) or in the "
        "settings file. A flag goes before a variable, a variable before the file.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"TOML file of settings; also {FILE_VARIABLE}")
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else field.default
        options: dict[str, Any] = {"help": f"{field.description} [{default}]"}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = _metavar(field.annotation)
        parser.add_argument(flag(name), dest=name, **options)
    return parser


def _metavar(annotation: Any) -> str:  # noqa: ANN401 - a type of any kind
    if get_args(annotation) and all(isinstance(choice, str) for choice in get_args(annotation)):
        return "|".join(get_args(annotation))
    plain = get_args(annotation)[0] if get_origin(annotation) is not None else annotation
    return {int: "N", float: "SECONDS", Path: "DIR"}.get(plain, "TEXT")


def _serve(arguments: Sequence[str]) -> int:
    given = vars(serve_parser().parse_args(arguments))
    file = given.pop("settings", None) or settings_file(os.environ)
    try:
        settings = load_settings(given, file, os.environ)
    except SettingsError as error:
        return _fail("serve", str(error), 2)
    return _run_server(settings)


def _run_server(settings: Settings) -> int:
    from service.address import AddressError  # noqa: PLC0415 - ONNX Runtime and gRPC take a second to import; --help must not
    from service.engine import DeviceError  # noqa: PLC0415 - as above
    from service.logs import configure_logs  # noqa: PLC0415 - as above
    from service.server import Server  # noqa: PLC0415 - as above

    configure_logs(settings.log_format, settings.log_level)
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread starts, so that none takes them
    try:
        server = Server(settings)
        server.start()
    except (DeviceError, AddressError) as error:
        return _fail("serve", str(error), 1)
    signal.sigwait(signals)
    server.stop()
    return 0


# convert --------------------------------------------------------------------------------------------------------------


def convert_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver convert`."""
    parser = argparse.ArgumentParser(
        prog="quicksilver convert",
        description="Convert temperatures in degrees Fahrenheit with a running server.",
        epilog="Without temperatures they are read from standard input, split at white space, commas or semicolons.",
    )
    parser.add_argument(
        "fahrenheit", nargs="*", type=float, metavar="FAHRENHEIT", help="temperatures, for example 98.6"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="read them from a CSV file ('-': standard input)")
    parser.add_argument("--column", default="fahrenheit", metavar="NAME", help="the CSV column [%(default)s]")
    _add_choice(parser)
    parser.add_argument("--interval", action="store_true", help="show the prediction interval")
    parser.add_argument("--reject", action="store_true", help="fail where one lies outside the training range")
    _add_connection(parser)
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="", metavar="NAME", help="which model [the server's default]")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--version", type=int, metavar="N", help="which version [the one labelled stable]")
    choice.add_argument("--label", metavar="LABEL", help="which version, by its label")


def _add_connection(parser: argparse.ArgumentParser) -> None:
    from service.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_SECONDS  # noqa: PLC0415 - serve has no use for the client

    parser.add_argument(
        "--server",
        default=os.environ.get(SERVER_VARIABLE) or DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"the server [%(default)s]; also {SERVER_VARIABLE}",
    )
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, metavar="SECONDS", help="deadline [%(default)s]"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _convert(arguments: Sequence[str]) -> int:
    from service.client import Converter, ConverterError  # noqa: PLC0415 - serve has no use for the client
    from service.tables import ReadingError, conversion_json, print_conversion, read_fahrenheit  # noqa: PLC0415 - as above

    options = convert_parser().parse_args(arguments)
    try:
        fahrenheit = options.fahrenheit or read_fahrenheit(options.csv, options.column)
        with Converter(options.server, timeout_seconds=options.timeout) as converter:
            conversion = converter.convert(
                fahrenheit,
                model=options.model,
                version=options.version,
                label=options.label,
                interval=options.interval,
                on_extrapolation="reject" if options.reject else "flag",
            )
    except (ReadingError, ConverterError) as error:
        return _fail("convert", str(error), 1)
    if options.json:
        print(conversion_json(fahrenheit, conversion))  # noqa: T201 - this is what was asked for
    else:
        print_conversion(fahrenheit, conversion)
    return 0


# models ---------------------------------------------------------------------------------------------------------------


def models_parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver models`."""
    parser = argparse.ArgumentParser(prog="quicksilver models", description="What a running server holds.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every model and its versions")
    _add_connection(listing)
    showing = actions.add_parser("show", help="all that is known of one version of a model")
    _add_choice(showing)
    _add_connection(showing)
    return parser


def _models(arguments: Sequence[str]) -> int:
    from service.client import Converter, ConverterError  # noqa: PLC0415 - serve has no use for the client
    from service.tables import print_model, print_models  # noqa: PLC0415 - as above

    options = models_parser().parse_args(arguments)
    try:
        with Converter(options.server, timeout_seconds=options.timeout) as converter:
            if options.action == "list":
                listed = converter.models()
                _show(listed, print_models, as_json=options.json)
            else:
                described = converter.model(options.model, version=options.version, label=options.label)
                _show(described, print_model, as_json=options.json)
    except ConverterError as error:
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


_COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {"serve": _serve, "convert": _convert, "models": _models}

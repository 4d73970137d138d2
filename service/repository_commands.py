"""The commands that change a repository: `quicksilver models label | unlabel | canary | rollback | remove`.

They work on a directory, and a server that watches it follows; all but `canary` and `remove` work on a running server
too, with `--server`. A label moves only to a version that loads and answers its golden vectors, on this machine or on
the server.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, get_args

from proto.repository import STABLE, Repository, RepositoryError, UnknownModelError
from proto.traffic import NO_TRAFFIC, CanaryTraffic
from service.client_errors import ConverterError
from service.connection import ConnectionOptionsError, add_tls_arguments
from service.device import Device

ACTIONS: Final = ("label", "unlabel", "canary", "rollback", "remove")


class CommandError(Exception):
    """A command was refused; the message says why."""


def add_parsers(actions: Any, repository: str) -> None:  # noqa: ANN401 - argparse's own class has no public name
    """Add the commands to those of `quicksilver models`. `repository` is the directory where none is named."""
    label = _add(actions, "label", "let labels name versions that verify", repository, remote=True)
    label.add_argument("assignments", nargs="+", type=assignment, metavar="LABEL=VERSION", help="for example stable=3")
    _add_device(label)
    unlabel = _add(actions, "unlabel", "take a label away", repository, remote=True)
    unlabel.add_argument("label", metavar="LABEL", help="the label")
    canary = _add(
        actions,
        "canary",
        "say what the version labelled canary gets of the requests that name none",
        repository,
        remote=False,
    )
    rule = canary.add_mutually_exclusive_group(required=True)
    rule.add_argument("--share", type=_share, metavar="SHARE", help="it answers this part of them, for example 0.1")
    rule.add_argument("--shadow", action="store_true", help="it runs on copies of their rows, after they are answered")
    rule.add_argument("--off", action="store_true", help="it gets nothing")
    rollback = _add(actions, "rollback", "let a label name the version that it named before", repository, remote=True)
    rollback.add_argument("--label", default=STABLE, metavar="LABEL", help="the label [%(default)s]")
    _add_device(rollback)
    remove = _add(actions, "remove", "remove a version that no label names", repository, remote=False)
    remove.add_argument("version", type=_version, metavar="VERSION", help="the version's number")


def _add(
    actions: Any,  # noqa: ANN401 - as above
    name: str,
    text: str,
    repository: str,
    *,
    remote: bool,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("name", metavar="NAME", help="the model")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--repository", type=Path, default=Path(repository), metavar="DIR", help="the model repository [%(default)s]"
    )
    parser.set_defaults(server=None)
    if remote:
        where.add_argument(
            "--server", metavar="HOST:PORT", help="a running server, instead of a directory; it verifies the version"
        )
        _add_connection(parser)
    return parser


def _add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --server")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="file with the server's admin token")
    add_tls_arguments(group)
    group.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="time for each label [%(default)s]"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=get_args(Device), default="auto", help="where the version is verified [%(default)s]"
    )


def assignment(text: str) -> tuple[str, int]:
    """Read `LABEL=VERSION`."""
    label, equals, version = text.partition("=")
    if not (label and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=VERSION")
    return label, _version(version)


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit() and text[0] != "0"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
        CanaryTraffic(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1") from None
    return share


def run(options: argparse.Namespace) -> Iterable[str]:
    """Do what was asked, and give the lines that say so.

    Raises:
        CommandError: it was refused, and nothing was changed but what earlier lines said.
    """
    return _run_here(options) if options.server is None else _run_there(options)


def _run_there(options: argparse.Namespace) -> Iterable[str]:
    from service import remote_labels  # noqa: PLC0415 - gRPC takes a while to import; --help must not

    try:
        yield from remote_labels.run(options)
    except (ConverterError, ConnectionOptionsError) as error:
        raise CommandError(str(error)) from error


def _run_here(options: argparse.Namespace) -> list[str]:
    repository = Repository(options.repository)
    try:
        return _RUN[options.action](repository, options)
    except RepositoryError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or options.repository}: {error.strerror}") from error


def _label(repository: Repository, options: argparse.Namespace) -> list[str]:
    for _, version in options.assignments:
        _verify(repository, options.name, version, options.device)
    lines = []
    for label, version in options.assignments:
        repository.set_label(options.name, label, version)
        lines.append(f"{options.name}: {label} is version {version}")
    return lines


def _unlabel(repository: Repository, options: argparse.Namespace) -> list[str]:
    repository.remove_label(options.name, options.label)
    return [f"{options.name}: there is no {options.label} any more"]


def _canary(repository: Repository, options: argparse.Namespace) -> list[str]:
    traffic = NO_TRAFFIC if options.off else CanaryTraffic(options.share or 0.0, options.shadow)
    repository.set_canary_traffic(options.name, traffic)
    return [f"{options.name}: canary {describe_traffic(traffic)}"]


def describe_traffic(traffic: CanaryTraffic) -> str:
    """What a canary gets, in words."""
    if traffic.shadow:
        return "runs in the shadow"
    return f"answers {traffic.share:.4g} of the requests" if traffic.share else "gets nothing"


def _rollback(repository: Repository, options: argparse.Namespace) -> list[str]:
    version = repository.earlier(options.name, options.label)
    _verify(repository, options.name, version, options.device)
    repository.roll_back(options.name, options.label, expected=version)
    return [f"{options.name}: {options.label} is version {version} again"]


def _remove(repository: Repository, options: argparse.Namespace) -> list[str]:
    repository.remove(options.name, options.version)
    return [f"{options.name}: version {options.version} is removed"]


def _verify(repository: Repository, name: str, version: int, device: Device) -> None:
    """Load a version as a server would, and forget it again."""
    from service.engine import EngineError, EngineOptions  # noqa: PLC0415 - ONNX Runtime takes long; --help must not
    from service.loading import VerificationError, load_version  # noqa: PLC0415 - as above

    if version not in repository.versions(name):
        raise UnknownModelError(f"no version {version} of {name!r}: there are {repository.versions(name) or 'none'}")
    try:
        load_version(repository, name, version, EngineOptions(device=device))
    except (EngineError, VerificationError) as error:
        raise CommandError(f"{name}/{version} does not verify, so no label moves to it: {error}") from error


_RUN: Final[dict[str, Callable[[Repository, argparse.Namespace], list[str]]]] = {
    "label": _label,
    "unlabel": _unlabel,
    "canary": _canary,
    "rollback": _rollback,
    "remove": _remove,
}

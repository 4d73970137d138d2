"""`quicksilver observations import | export | stats`: observations from files to a store or a server, and back."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proto.observation import Added, ConflictError, Observation, ObservationError
from service import connection
from service.arguments import Parser
from service.config import SERVER_VARIABLE, variable
from service.connection import Connection, ConnectionOptionsError
from service.tables import ReadingError

if TYPE_CHECKING:
    from proto.observations import ObservationStore, Stats
    from service.client import Converter

STORE_VARIABLE: Final = variable("observations")
_BATCH: Final = 1000
_BUSY_TRIES: Final = 60
_BUSY_SECONDS: Final = 1.0


class CommandError(Exception):
    """A command was refused; the message says why."""


def parser() -> argparse.ArgumentParser:
    """The parser of `quicksilver observations`."""
    parser = Parser(
        prog="quicksilver observations",
        description="Observations of true temperatures: into a store or a server, and out of a store.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    bringing = actions.add_parser(
        "import",
        help="store the observations of a CSV file",
        description="Store the observations of a CSV file. Its columns: fahrenheit, celsius, observed_at_seconds (Unix "
        "time) or observed_at (ISO 8601), source; and where there are such, id, request_id, row. The whole file is "
        "checked first. What is stored already is a duplicate: a file may be imported again after any failure.",
    )
    bringing.add_argument("file", type=Path, metavar="FILE", help="the CSV file ('-': standard input)")
    bringing.add_argument("--source", metavar="NAME", help="source of lines that name none")
    where = bringing.add_mutually_exclusive_group()
    _add_store(where)
    where.add_argument(
        "--server", metavar="HOST:PORT", help=f"a running server to report to, where no store is named [{_server()}]"
    )
    connection.add_tls_arguments(bringing)
    bringing.add_argument("--token-file", type=Path, metavar="FILE", help="file of the server's admin token")
    bringing.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="deadline [%(default)s]")
    taking = actions.add_parser("export", help="write observations as CSV", description="Write observations as CSV.")
    taking.add_argument("file", nargs="?", type=Path, metavar="FILE", help="file to write [standard output]")
    for flag, text in (("--since", "from this time on"), ("--until", "before this time")):
        taking.add_argument(flag, type=moment, metavar="TIME", help=f"{text}: Unix seconds or ISO 8601")
    _add_store(taking)
    telling = actions.add_parser("stats", help="tell what a store holds", description="Tell what a store holds.")
    telling.add_argument("--json", action="store_true", help="print JSON")
    _add_store(telling)
    return parser


def _add_store(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--store",
        metavar="URL",
        help=f"the store: sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE [{STORE_VARIABLE}]",
    )


def _server() -> str:
    return os.environ.get(SERVER_VARIABLE) or SERVER_VARIABLE


def moment(text: str) -> float:
    """Read a time: Unix seconds, or ISO 8601, in UTC where no zone is named."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither Unix seconds nor a time of ISO 8601") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    try:
        said = _RUN[options.action](options)
        print(said, file=sys.stderr if options.action == "export" else sys.stdout)
    except (CommandError, ReadingError, ObservationError) as error:
        print(f"quicksilver observations: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1
    return 0


def _import(options: argparse.Namespace) -> str:
    from service.observation_files import read_observations  # noqa: PLC0415 - --help needs none of it

    lines = read_observations(options.file, options.source)
    lines.sort(key=lambda line: line[1].observed_at_seconds)  # stored in this order, and promotions go by it
    url = options.store or (None if options.server else os.environ.get(STORE_VARIABLE))
    server = options.server or os.environ.get(SERVER_VARIABLE)
    if url:
        added = _add_to_store(url, options.file, lines)
    elif server:
        added = _report(server, options, lines)
    else:
        raise CommandError(f"name where to: --store URL or --server HOST:PORT ({STORE_VARIABLE}, {SERVER_VARIABLE})")
    return f"{len(lines)} observations: {added.accepted} are new, {added.duplicates} were there already"


def _batches(lines: Sequence[tuple[int, Observation]]) -> Iterator[Sequence[tuple[int, Observation]]]:
    for start in range(0, len(lines), _BATCH):
        yield lines[start : start + _BATCH]


def _add_to_store(url: str, file: Path, lines: Sequence[tuple[int, Observation]]) -> Added:
    accepted = duplicates = 0
    with _open(url, create=True) as store:
        for batch in _batches(lines):
            try:
                added = store.add([observation for _, observation in batch])
            except ConflictError as error:
                raise CommandError(f"{file}, line {batch[error.index][0]}: {error}") from error
            accepted += added.accepted
            duplicates += added.duplicates
    return Added(accepted, duplicates)


def _report(server: str, options: argparse.Namespace, lines: Sequence[tuple[int, Observation]]) -> Added:
    from service.client import Converter, ConverterError  # noqa: PLC0415 - a store needs no gRPC

    accepted = duplicates = 0
    try:
        options.server = server
        reached = Connection.of(options)
        token = connection.read_token(options.token_file) if options.token_file else None
        with Converter(
            server, timeout_seconds=options.timeout, credentials=reached.credentials(), admin_token=token
        ) as converter:
            for batch in _batches(lines):
                added = _patiently(converter, [observation for _, observation in batch])
                accepted += added.accepted
                duplicates += added.duplicates
    except (ConverterError, ConnectionOptionsError, ValueError) as error:
        raise CommandError(str(error)) from error
    return Added(accepted, duplicates)


def _patiently(converter: "Converter", observations: Sequence[Observation]) -> Added:
    """Report, and where the server takes no more a second than it does, wait and report again."""
    from service.client import ServerBusyError  # noqa: PLC0415 - as above

    for _ in range(_BUSY_TRIES):
        try:
            return converter.report(observations)
        except ServerBusyError:
            time.sleep(_BUSY_SECONDS)
    return converter.report(observations)


def _export(options: argparse.Namespace) -> str:
    from service.observation_files import write_observations  # noqa: PLC0415 - --help needs none of it

    with _open(_store_url(options)) as store:
        observations = store.observations(options.since, options.until)
        if options.file is None:
            return f"{write_observations(observations, sys.stdout)} observations"
        try:
            with options.file.open("w", encoding="utf-8", newline="") as file:
                return f"{write_observations(observations, file)} observations in {options.file}"
        except OSError as error:
            raise CommandError(f"{options.file}: {error.strerror}") from error


def _stats(options: argparse.Namespace) -> str:
    with _open(_store_url(options)) as store:
        stats = store.stats()
    return json.dumps(asdict(stats), indent=2) if options.json else describe(stats)


def describe(stats: "Stats") -> str:
    """Say what a store holds, in lines."""
    if stats.oldest_observed_at_seconds is None or stats.newest_observed_at_seconds is None:
        return "no observations"
    first, last = (
        datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
        for seconds in (stats.oldest_observed_at_seconds, stats.newest_observed_at_seconds)
    )
    lines = [
        f"{stats.observations} observations from {first} to {last}",
        f"{stats.joined} are joined to what a server answered",
        *(f"  {count:>8} {source}" for source, count in stats.sources.items()),
    ]
    return "\n".join(lines)


def _store_url(options: argparse.Namespace) -> str:
    url: str | None = options.store or os.environ.get(STORE_VARIABLE)
    if not url:
        raise CommandError(f"name the store: --store URL, or {STORE_VARIABLE}")
    return url


def _open(url: str, *, create: bool = False) -> "ObservationStore":
    from proto.observations import ObservationStore  # noqa: PLC0415 - SQLAlchemy takes long; --help must not

    return ObservationStore.open(url, create=create)


_RUN: Final[dict[str, Callable[[argparse.Namespace], str]]] = {
    "import": _import,
    "export": _export,
    "stats": _stats,
}

"""Command-line options that several commands share, and what they amount to. Imports nothing of torch."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from training import dataset
from training.dataset import CELSIUS, FAHRENHEIT, Dataset, Split
from training.errors import SplitError

DEFAULT_COVERAGE: Final = 0.8
_PUBLISHED_SPLITS: Final[dict[str, dataset.PublishedSplit]] = {"published": "first", "published-2": "second"}
SEEDED: Final = "seeded"


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which readings, and which of them are held out."""
    group = parser.add_argument_group("readings")
    group.add_argument(
        "--data", type=Path, metavar="FILE", help="CSV file with a header, or Parquet (default: the built-in readings)"
    )
    group.add_argument(
        "--features",
        type=_names,
        default=(FAHRENHEIT,),
        metavar="A,B",
        help=f"input columns of the file; a single one is taken to be in °F (default: {FAHRENHEIT})",
    )
    group.add_argument(
        "--target", default=CELSIUS, metavar="COLUMN", help="column of true temperatures in °C (default: %(default)s)"
    )
    group.add_argument(
        "--split",
        choices=(*_PUBLISHED_SPLITS, SEEDED),
        help="rows held out for validation: one of the two published pairs, or a fifth drawn under the seed "
        "(default: published for the built-in readings, seeded for others)",
    )
    add_seed(group, "of the initial parameters, and of a seeded split")


def add_seed(parser: argparse._ActionsContainer, purpose: str) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help=f"{purpose} (default: %(default)s)")


def add_coverage(parser: argparse.ArgumentParser) -> None:
    """Add `--coverage`."""
    parser.add_argument(
        "--coverage",
        type=float,
        default=DEFAULT_COVERAGE,
        metavar="P",
        help="share of readings that the prediction interval is to cover (default: %(default)s)",
    )


def add_telemetry(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a job's metrics go."""
    group = parser.add_argument_group("metrics of the job (losses, duration, verdict)")
    group.add_argument("--push-to", metavar="URL", help="push them to a Pushgateway, such as http://localhost:9091")
    group.add_argument(
        "--metrics-file",
        type=Path,
        metavar="FILE.prom",
        help="leave them in a file for node-exporter's textfile collector",
    )


def whole(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to what 63 bits hold."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) < 2**63):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return parse


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of column names with commas between")
    return names


def load(arguments: argparse.Namespace) -> tuple[Dataset, Split]:
    """Read the data that the options of `add_data` ask for, and split it.

    Raises:
        DataError: the file cannot be used.
        SplitError: a published split is asked for on other data, or too few rows would be left.
    """
    data = (
        dataset.built_in()
        if arguments.data is None
        else dataset.read(arguments.data, arguments.features, arguments.target)
    )
    split = arguments.split or ("published" if data.is_built_in else SEEDED)
    if split == SEEDED:
        return data, dataset.seeded_split(len(data), arguments.seed)
    if not data.is_built_in:
        raise SplitError(
            f"the split {split!r} belongs to the built-in readings; use --split {SEEDED} with {data.source}"
        )
    return data, dataset.published_split(_PUBLISHED_SPLITS[split])

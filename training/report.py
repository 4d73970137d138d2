"""The command `quicksilver report`: fits the linear model and the tanh MLP, and writes what came of it as one page.

Nothing of torch or matplotlib is imported until a fit is really to be made, so that `--help` is answered at once.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from training import arguments as shared
from training import places
from training.dataset import Dataset, Split
from training.errors import DataError
from training.options import Architecture, FitOptions, default_options

if TYPE_CHECKING:
    from training.figures import Subject

PAGE: Final = "report.html"
ARCHITECTURES: Final = {"linear model": Architecture("linear"), "tanh MLP": Architecture("mlp")}
"""What the report compares, the simpler model first, by the names it gives them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("reports"),
        metavar="DIRECTORY",
        help="where the page and the PNGs go (default: %(default)s/)",
    )
    shared.add_data(parser)
    shared.add_coverage(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fit both models with their default options, write the report, and print the paths."""
    from training import interval  # noqa: PLC0415 - imports torch: see the top of the file

    places.check_directory(arguments.output)
    places.check_file_path(arguments.output / PAGE)
    dataset, split = shared.load(arguments)
    if dataset.fahrenheit is None:
        raise DataError(dataset.source, f"the report is of one column in °F, not of {', '.join(dataset.columns)}")
    all_options = {
        name: dataclasses.replace(default_options(each.kind, built_in=dataset.is_built_in), seed=arguments.seed)
        for name, each in ARCHITECTURES.items()
    }
    for options in all_options.values():  # refuses before the fits, not after
        interval.choose_method(dataset, split, options, arguments.coverage)
    subjects = [judge(name, dataset, split, options, arguments.coverage) for name, options in all_options.items()]
    for path in write(subjects, arguments.output):
        print(path)  # noqa: T201 - the terminal is who asked
    return 0


def write(subjects: Sequence["Subject"], directory: Path) -> list[Path]:
    """Draw the report of two subjects, the simpler first, and write it; return the paths, the page first."""
    from training import pages, report_page  # noqa: PLC0415 - these import matplotlib: see the top of the file

    drawn = {name: pages.draw(picture) for name, picture in report_page.pictures(subjects).items()}
    page = pages.render("report.html", **report_page.content(subjects, drawn))
    return pages.write(directory, PAGE, page, list(drawn.values()))


def judge(name: str, dataset: Dataset, split: Split, options: FitOptions, coverage: float) -> "Subject":
    """Fit one of `ARCHITECTURES`, refit it without each row, and evaluate it.

    Raises:
        TrainingError: the data does not support the fit or the coverage, or the fit diverged.
    """
    from training import evaluate, figures, fit, leave_one_out, progress  # noqa: PLC0415 - as above

    with progress.shown(name, options.epochs) as watch:
        fitted = fit.train(dataset, split, ARCHITECTURES[name], options, watch)
    with progress.shown(f"{name}, leave-one-out", options.epochs) as watch:
        left_out = leave_one_out.leave_one_out(fitted, watch)
    return figures.Subject(name, fitted, left_out, evaluate.evaluate(fitted, left_out, coverage))

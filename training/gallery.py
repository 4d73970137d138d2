"""The command `quicksilver gallery`: pictures of activation functions and of composed neurons, and a page of them.

Nothing of torch or matplotlib is imported until pictures are really drawn, so that `--help` is answered at once.
"""

import argparse
from pathlib import Path
from typing import Final

from training import places

PAGE: Final = "index.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("reports/gallery"),
        metavar="DIRECTORY",
        help="where the PNGs and the page go (default: %(default)s/)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw the gallery, write it, and print the paths."""
    from training import gallery_figures, pages  # noqa: PLC0415 - heavy imports: see the top of the file

    places.check_directory(arguments.output)
    places.check_file_path(arguments.output / PAGE)
    drawn = [pages.draw(picture) for picture in gallery_figures.pictures()]
    page = pages.render("gallery.html", pictures=drawn)
    for path in pages.write(arguments.output, PAGE, page, drawn):
        print(path)  # noqa: T201 - the terminal is who asked
    return 0

"""What the commands print: tables that fit a terminal, and that stay readable in a file or a pipe."""

from typing import Final

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH: Final = 120


def console() -> Console:
    """Standard output: as wide as the terminal, or 120 columns where there is none to ask."""
    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=_PIPED_WIDTH)


def table(title: str, *columns: str) -> Table:
    """A table without lines: the first column to the left, figures to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    made.add_column(columns[0])
    for column in columns[1:]:
        made.add_column(column, justify="right")
    return made

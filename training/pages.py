"""Pictures on a page: one self-contained HTML file, readable in light and dark and on paper, and the PNGs beside it.

A page refers to nothing outside itself: pictures are inlined as data, styles stand in its head, and its content
security policy forbids the browser to fetch anything. Files appear whole or not at all.
"""

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from training import places, plots
from training.plots import DARK, LIGHT, Theme


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that can be drawn in any theme, and the words that go with it."""

    name: str
    """The file's name, without its suffix; also the anchor on the page."""
    alternative: str
    """What is to be seen, for whoever cannot see it."""
    caption: str
    draw: Callable[[Theme], Figure]


@dataclass(frozen=True, slots=True)
class DrawnPicture:
    """A picture drawn as PNG for light surfaces and for dark ones."""

    picture: Picture
    light: bytes
    dark: bytes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as they stand in the header of a PNG."""
        width, height = struct.unpack_from(">II", self.light, 16)
        return int(width), int(height)

    @property
    def light_uri(self) -> str:
        """The light PNG as a data URI."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark PNG as a data URI."""
        return _data_uri(self.dark)


def _data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


def draw(picture: Picture) -> DrawnPicture:
    """Draw a picture for both surfaces."""
    return DrawnPicture(picture, light=plots.png(picture.draw(LIGHT)), dark=plots.png(picture.draw(DARK)))


def _keep_units(value: object) -> object:
    """Tie a unit to its number, so that no line ends between them."""
    return value.replace(" °", "\N{NO-BREAK SPACE}°") if isinstance(value, str) else value


_TEMPLATES: Final = Environment(
    loader=PackageLoader("training"),
    autoescape=True,
    finalize=_keep_units,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **content: Any) -> str:  # noqa: ANN401 - a template takes whatever it names
    """Fill a template of `training/templates`. Every value is escaped; a name the template lacks is an error."""
    return _TEMPLATES.get_template(template).render(light=LIGHT, dark=DARK, **content)


def write(directory: Path, page_name: str, page: str, drawn: Sequence[DrawnPicture]) -> list[Path]:
    """Write the light PNGs and then the page into `directory`, which is made; return the paths, the page first.

    Raises:
        OSError: the directory cannot be made or written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = {directory / f"{each.picture.name}.png": each.light for each in drawn}
    contents[directory / page_name] = page.encode()
    for path, content in contents.items():
        places.replace_file(path, content)
    return [directory / page_name, *list(contents)[:-1]]

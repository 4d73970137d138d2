"""Pages: escaped, self-contained, and written whole or not at all."""

import errno
import os
from functools import partial
from pathlib import Path
from typing import NoReturn

import jinja2
import pytest
from matplotlib.figure import Figure

from tests.training.pages_read import Page, pixels
from training import pages, places, plots
from training.pages import Picture
from training.plots import Theme


def draw_title(title: str, theme: Theme) -> Figure:
    """A figure that holds a title alone."""
    return plots.new_figure(theme, title, height_inches=1.5)


HOSTILE = Picture("a-b", '"><script>alert(1)</script>', "5 °C < <b>6 °C</b> & more", partial(draw_title, "Any"))


def test_text_is_escaped() -> None:
    """Whatever a caption or an alternative text holds comes out as text, never as markup."""
    page = Page(pages.render("gallery.html", pictures=[pages.draw(HOSTILE)]))
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert HOSTILE.caption.replace(" °", "\N{NO-BREAK SPACE}°") in page.text
    assert HOSTILE.alternative in {attributes.get("alt") for _, attributes in page.tags}


def test_units_stay_with_their_numbers() -> None:
    """No line of the page can end between a number and its °C."""
    page = Page(pages.render("gallery.html", pictures=[pages.draw(HOSTILE)]))
    assert " °" not in page.text


def test_the_browser_is_forbidden_to_fetch() -> None:
    """The page's own policy allows inlined pictures and styles, and nothing else."""
    page = Page(pages.render("gallery.html", pictures=[]))
    policies = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_a_missing_name_is_an_error() -> None:
    """A template that asks for what was not given fails; it does not leave a hole in the page."""
    with pytest.raises(jinja2.UndefinedError, match="pictures"):
        pages.render("gallery.html")


def test_size_is_the_pictures() -> None:
    """The width and height that the page reserves are those of the PNG."""
    drawn = pages.draw(HOSTILE)
    height, width, _ = pixels(drawn.light).shape
    assert drawn.size == (width, height)


def test_both_themes_are_drawn() -> None:
    """Light and dark are two drawings of one picture: same size, other pixels."""
    drawn = pages.draw(HOSTILE)
    light, dark = pixels(drawn.light), pixels(drawn.dark)
    assert light.shape == dark.shape
    assert (light != dark).any()


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space")])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, fault: BaseException
) -> None:
    """Ctrl-C or a full disk, before the file is synced or before it is renamed: the old file stands, and only it."""
    path = tmp_path / "report.html"
    places.replace_file(path, b"old")

    def fail(*_: object, **__: object) -> NoReturn:
        raise fault

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(fault)):
        places.replace_file(path, b"new" * 100_000)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces(tmp_path: Path) -> None:
    """A second write takes the first one's place, and nothing else is left."""
    path = tmp_path / "report.html"
    places.replace_file(path, b"old")
    places.replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_in_the_way_is_an_error(tmp_path: Path) -> None:
    """Where the output directory is a file, the error names it."""
    blocked = tmp_path / "reports"
    blocked.write_text("a file")
    with pytest.raises(OSError, match="reports"):
        pages.write(blocked, "index.html", "page", [])

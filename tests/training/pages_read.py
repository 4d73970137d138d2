"""Reads pages and pictures back, as a browser would have to."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VOID = {"meta", "link", "img", "source", "br", "hr", "input", "base"}


class Page(HTMLParser):
    """A page taken apart: every tag with its attributes, the rows of all tables, and the text of its styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.styles = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and begin a row or a cell."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Check that tags are nested."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text where it stands."""
        if "style" in self._open:
            self.styles += data
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def outside_references(self) -> list[str]:
        """Whatever would make a browser fetch something: anything but data inside the page and anchors in it."""
        fetching = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction"}
        named = [attributes[key] for _, attributes in self.tags for key in fetching & set(attributes)]
        elements = [tag for tag, _ in self.tags if tag in {"script", "link", "iframe", "object", "embed", "base"}]
        styles = [word for word in ("url(", "@import") if word in self.styles]
        return [value for value in named if not value.startswith(("data:image/png;base64,", "#"))] + elements + styles

    def images(self) -> list[NDArray[np.uint8]]:
        """Every inlined picture, decoded: [height, width, 3]."""
        prefix = "data:image/png;base64,"
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [pixels(base64.b64decode(source.removeprefix(prefix), validate=True)) for source in sources]


def pixels(png: bytes | Path) -> NDArray[np.uint8]:
    """A PNG decoded in full: [height, width, 3]."""
    with Image.open(io.BytesIO(png) if isinstance(png, bytes) else png) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def is_blank(image: NDArray[np.uint8]) -> bool:
    """Whether a picture shows next to nothing: less than one pixel in a hundred differs from its corner."""
    return bool(np.mean((image != image[0, 0]).any(axis=-1)) < 0.01)

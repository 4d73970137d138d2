"""The repository is watched: real files, real notifications, real threads."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from service.watch import Watcher

TIMEOUT_SECONDS = 30
LONG_SECONDS = 3600.0


class Looks:
    """Counts looks, and says when there was another."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.count = 0
        self.answer: Callable[[], float | None] = lambda: None

    def __call__(self) -> float | None:
        """Take note of a look."""
        with self.changed:
            self.count += 1
            self.changed.notify_all()
        return self.answer()

    def reach(self, count: int) -> None:
        """Wait until there were so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, TIMEOUT_SECONDS)


@contextlib.contextmanager
def watching(
    root: Path, looks: Looks, how: Literal["auto", "poll"] = "auto", interval_seconds: float = LONG_SECONDS
) -> Iterator[Watcher]:
    """A watcher that is stopped at the end."""
    watcher = Watcher(root, looks, how, interval_seconds)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.stop()


def change_until_seen(root: Path, looks: Looks, change: Callable[[int], object]) -> None:
    """Make changes until one is noticed: a change before the watch began is seen by the first look."""
    before = looks.count
    for number in range(TIMEOUT_SECONDS * 10):
        change(number)
        with looks.changed:
            if looks.changed.wait_for(lambda: looks.count > before, 0.1):
                return
    pytest.fail(f"no look at {root}")


@pytest.mark.parametrize("how", ["model", "label", "rename", "nested"])
def test_changes_are_told(tmp_path: Path, how: str) -> None:
    """A file written, a label replaced, a directory renamed into place, in a model that is new: each brings a look."""
    looks = Looks()
    (tmp_path / "linear").mkdir()
    changes: dict[str, Callable[[int], object]] = {
        "model": lambda number: (tmp_path / "linear" / "model.onnx").write_text(str(number)),
        "label": lambda number: (tmp_path / "linear" / "labels.json").write_text(str(number)),
        "rename": lambda number: _rename_in(tmp_path / "linear", str(number)),
        "nested": lambda number: (tmp_path / f"new{number}" / "1").mkdir(parents=True),
    }
    with watching(tmp_path, looks):
        looks.reach(1)
        change_until_seen(tmp_path, looks, changes[how])


def _rename_in(directory: Path, name: str) -> None:
    (directory / f".incoming-{name}").mkdir()
    (directory / f".incoming-{name}").rename(directory / name)


@pytest.mark.parametrize("how", ["auto", "poll"])
def test_there_is_a_look_at_every_interval(tmp_path: Path, how: Literal["auto", "poll"]) -> None:
    """Also where nothing is told."""
    looks = Looks()
    with watching(tmp_path, looks, how, interval_seconds=0.05):
        looks.reach(3)


@pytest.mark.parametrize("how", ["auto", "poll"])
def test_a_look_may_ask_for_another_before_the_interval(tmp_path: Path, how: Literal["auto", "poll"]) -> None:
    """A file that may still be written is looked at again soon."""
    looks = Looks()
    looks.answer = lambda: 0.01 if looks.count < 3 else None
    with watching(tmp_path, looks, how):
        looks.reach(3)


def test_a_look_that_fails_does_not_end_the_watch(tmp_path: Path) -> None:
    """The fault is logged, and the next interval brings the next look."""
    looks = Looks()

    def fail() -> float | None:
        raise RuntimeError("a fault")

    looks.answer = fail
    with watching(tmp_path, looks, interval_seconds=0.05):
        looks.reach(3)


def test_a_repository_that_comes_later_is_watched(tmp_path: Path) -> None:
    """Nothing is there at first; from when it appears, its changes are told. So after it was replaced by another."""
    looks = Looks()
    root = tmp_path / "models"
    with watching(root, looks):
        looks.reach(1)
        root.mkdir()
        change_until_seen(root, looks, lambda number: (root / f"one{number}").mkdir())
        root.rename(tmp_path / "aside")
        root.mkdir()
        change_until_seen(root, looks, lambda number: (root / f"two{number}").mkdir())


def test_what_is_hidden_is_not_looked_at(tmp_path: Path) -> None:
    """A writer's lock and its workplace bring no look; what it renames into place does."""
    looks = Looks()
    with watching(tmp_path, looks):
        looks.reach(1)
        change_until_seen(tmp_path, looks, lambda number: (tmp_path / f"begin{number}").mkdir())
        # what began may be told of late, on a busy machine, but not for ever
        assert any(_brings_no_look(tmp_path, looks) for _ in range(TIMEOUT_SECONDS))
        before = looks.count
        (tmp_path / "end").mkdir()
        looks.reach(before + 1)


def _brings_no_look(root: Path, looks: Looks) -> bool:
    """Do what a writer does; whether there was no look after several times the pause in which changes are gathered."""
    before = looks.count
    for number in range(10):
        (root / ".lock").write_text(str(number))
        (root / ".incoming-1").mkdir(exist_ok=True)
    time.sleep(0.5)
    return looks.count == before


def test_nothing_is_left_after_the_watch(tmp_path: Path) -> None:
    """No thread, and no file descriptor."""
    looks = Looks()
    with watching(tmp_path, looks):  # what the library opens once stays open
        looks.reach(1)
    threads, descriptors = threading.active_count(), _descriptors()
    for _ in range(3):
        before = looks.count
        with watching(tmp_path, looks):
            looks.reach(before + 1)
    assert threading.active_count() <= threads
    end = time.monotonic() + TIMEOUT_SECONDS
    while _descriptors() > descriptors:  # the library closes its own on a thread that nobody can wait for
        assert time.monotonic() < end, "descriptors are left"
        time.sleep(0.01)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

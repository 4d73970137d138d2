"""Kills a repository's writer at each of its steps, and keeps what it left on disk.

Run by path, with arguments:

    crash.py TEMPLATE OUTPUT OPERATION...

For k = 1, 2, … a copy of the repository TEMPLATE is made at OUTPUT/k, and a process runs the operation on it that is
killed with SIGKILL at its k-th step, until one comes to its end. A step is a line of the repository's source, a line of
pathlib's functions that write whole files, or a call that touches the file system (an audit event, a sync), whichever
comes next: what happens between two steps is one call to the operating system at most.
"""

import functools
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from proto import repository

Tracer: TypeAlias = "Callable[[FrameType, str, object], Tracer] | None"

SOURCES = frozenset({repository.__file__})
EVENTS = ("open", "os.", "fcntl.", "shutil.", "tempfile.")
WRITERS = {"write_bytes", "write_text"}


class Killer:
    """Kills its own process at the k-th step, a line of `sources` among others; counts nothing before it is armed."""

    def __init__(self, at: int, sources: frozenset[str] = SOURCES) -> None:
        self._left = at
        self._sources = sources

    def step(self) -> None:
        """Take note of a step; the k-th is the last."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        """Count from now on: audit events, syncs (which are no audit event), and lines of the sources."""
        sys.addaudithook(lambda event, _: self.step() if event.startswith(EVENTS) else None)
        os.fsync = self._before(os.fsync)
        sys.settrace(self._trace)

    def _before(self, call: Callable[..., None]) -> Callable[..., None]:
        def killable(descriptor: int) -> None:
            self.step()
            call(descriptor)

        return killable

    def _trace(self, frame: FrameType, event: str, _: object) -> Tracer:
        code = frame.f_code
        is_writer = code.co_filename == pathlib.__file__ and code.co_name in WRITERS
        if code.co_filename not in self._sources and not is_writer:
            return None
        if event == "line":
            self.step()
        return self._trace


def operate(root: Path, words: list[str]) -> None:
    """Do what the words say to the repository at `root`."""
    writer = repository.Repository(root)
    match words:
        case ["publish", name, content]:
            writer.publish(name, content.encode())
        case ["publish", name, content, beside]:
            writer.publish(name, content.encode(), beside={beside: b"beside"})
        case ["label", name, label, version]:
            writer.set_label(name, label, int(version))
        case ["rollback", name, label]:
            writer.roll_back(name, label)
        case ["unlabel", name, label]:
            writer.remove_label(name, label)
        case ["promote", name, canary, stable]:
            writer.promote_canary(name, int(canary), int(stable))
        case ["remove", name, version]:
            writer.remove(name, int(version))
        case ["load", name, file]:
            send(writer, name, Path(file).read_bytes())
        case _:
            raise ValueError(words)


def send(writer: repository.Repository, name: str, model: bytes) -> None:
    """Publish and load a file as a server does that is sent one."""
    from service.control import RepositoryControl  # noqa: PLC0415 - the other operations need no server
    from service.engine import EngineOptions  # noqa: PLC0415 - as above
    from service.models import Models  # noqa: PLC0415 - as above

    options = EngineOptions(device="cpu")
    models = Models(writer, options, explicit=())
    RepositoryControl(models, writer, options, "explicit", drain_seconds=0).load(
        name, {None: {repository.MODEL_FILE: model}}
    )


def survives(at: int, operation: Callable[[], object], sources: frozenset[str] = SOURCES) -> bool:
    """Run the operation in a process of its own, killed at a step; whether it came to its end before that."""
    child = os.fork()
    if child == 0:
        Killer(at, sources).arm()
        operation()
        sys.settrace(None)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in {0, -signal.SIGKILL}:
        raise SystemExit(f"step {at}: the operation failed with {code}")
    return code == 0


def main(template: str, output: str, *words: str) -> None:
    """Kill the operation at each step in turn: see the top of the file."""
    shutil.copytree(template, Path(output) / "0")
    operate(Path(output) / "0", list(words))  # imports what it needs, so that the killed ones import nothing
    shutil.rmtree(Path(output) / "0")
    at = 1
    while True:
        root = Path(output) / str(at)
        shutil.copytree(template, root)
        if survives(at, functools.partial(operate, root, list(words))):
            return
        at += 1


if __name__ == "__main__":
    main(*sys.argv[1:])

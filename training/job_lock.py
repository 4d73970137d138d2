"""One job at a time: on a model of a repository, and on the reports on a model."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proto.repository import RepositoryError
from training.acceptance import finish_interrupted
from training.errors import BusyError
from training.plan import Plan

_LOCK_FILE: Final = ".lock"


@contextlib.contextmanager
def locked(plan: Plan) -> Iterator[str | None]:
    """Keep other jobs out, clear what a killed one left, and finish what it had begun.

    Two locks, for two things that jobs may share, the one without the other: the model in its repository, whatever
    the reports of each job, and the directory of reports, in which unfinished ones of different repositories would
    be cleared away. Neither is waited for.

    Yields what is to be said of an interrupted job, where something is.

    Raises:
        RepositoryError: there is no repository; none is made, so that a mistyped path leaves nothing behind.
        BusyError: another job is at it.
        OSError: the repository or the reports cannot be written to.
    """
    if not plan.repository.root.is_dir():
        raise RepositoryError(
            f"{plan.repository.root}: there is no model repository; for a first version make the directory yourself"
        )
    busy = f"another job retrains {plan.name!r}"
    with (
        _lock(plan.lock_path, f"{busy} in {plan.repository.root}/"),
        _lock(plan.directory / _LOCK_FILE, f"{busy} with the reports in {plan.reports}/"),
    ):
        _clear(plan)
        yield finish_interrupted(plan)


@contextlib.contextmanager
def _lock(path: Path, busy: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o666), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(busy) from None
        yield


def _clear(plan: Plan) -> None:
    """Remove what a killed round left unfinished: what is hidden among the reports but the lock, and half intents."""
    for path in plan.intent_path.parent.glob(f".{plan.intent_path.name}.*"):
        path.unlink()
    for path in plan.directory.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK_FILE:
            path.unlink()

"""A verdict on disk: beside the version that it let in, or as a report, which is one directory that appears whole."""

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proto.repository import MODEL_FILE
from training.export import write
from training.verdict import JSON_FILE, PAGE_FILE, Verdict, as_json
from training.verdict_page import page

KEPT_REPORTS: Final = 100
"""So many reports on a model are kept; older ones go."""
_STAGING_PREFIX: Final = ".staging-"
_REMOVED_PREFIX: Final = ".removed-"


def contents(verdict: Verdict) -> dict[str, bytes]:
    """The files of a verdict, by name."""
    return {JSON_FILE: as_json(verdict).encode(), PAGE_FILE: page(verdict)}


def write_report(directory: Path, verdict: Verdict, model: bytes | None = None, *, keep: int = KEPT_REPORTS) -> Path:
    """Write a verdict, with the file of a challenger that was rejected, into `directory`; return the page's path.

    Of the reports there, the newest so many are kept.
    """
    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=directory))
    staging.chmod(0o755)  # mkdtemp's is private to one user
    rejected = {MODEL_FILE: model} if model is not None and verdict.outcome == "rejected" else {}
    for name, content in (contents(verdict) | rejected).items():
        write(staging / name, content)
    moment = datetime.fromtimestamp(verdict.made_at_seconds, UTC).strftime("%Y%m%dT%H%M%SZ")
    place = _free(directory, f"{moment}-{verdict.outcome}")
    staging.rename(place)
    for old in reports(directory)[:-keep]:
        _remove(old)
    return place / PAGE_FILE


def _remove(report: Path) -> None:
    """Take a report away at once: nobody sees half of one. Where this is killed, the next job removes the rest."""
    gone = report.with_name(f"{_REMOVED_PREFIX}{report.name}")
    report.rename(gone)
    shutil.rmtree(gone)


def reports(directory: Path) -> list[Path]:
    """The reports in a directory, the oldest first."""
    return sorted(path.parent for path in directory.glob(f"[0-9]*/{JSON_FILE}"))


def _free(directory: Path, name: str) -> Path:
    """A path of that name, or with a number behind it where there is one already."""
    number = 1
    while (place := directory / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return place

"""Where files go: whether they can, said before the work; and each whole or not at all, after it."""

import errno
import os
import secrets
from pathlib import Path

from proto.repository import sync_directory


def check_file_path(path: Path) -> None:
    """Raise the OSError, naming the path, with which writing a file there would end, so far as that is known before."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_directory(path.parent, path)


def check_directory(directory: Path, path: Path | None = None) -> None:
    """Raise an OSError, naming the path, where a directory can neither be written to nor be made.

    `path` is what the error names, the directory where none is given.
    """
    nearest = next(each for each in (directory, *directory.parents, Path()) if os.path.lexists(each))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path or directory))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path or directory))


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` at once: whoever reads sees the old file or the new one, whenever this is interrupted.

    It is written under a hidden name beside it, synced, and renamed; when this returns, that is on disk too.

    Raises:
        OSError: it cannot be written; the error names `path`, whichever file it was that the system refused.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with staging.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        staging.unlink(missing_ok=True)

"""Programs of Debian's, unpacked for a test and not installed: no service starts, and no root is needed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environments import one_at_a_time

PLACE = Path(__file__).resolve().parents[2] / ".venv-clients" / "debian"


def unpacked(package: str) -> Path:
    """Where the files of a package lie; it is fetched where they do not yet. Skips by name where it cannot be had."""
    there = PLACE / package
    PLACE.mkdir(parents=True, exist_ok=True)
    if there.exists():  # whole, since it is renamed into place: nobody needs to wait
        return there
    with one_at_a_time():
        if not there.exists():
            _fetch(package, there)
    return there


def beside_its_data(package: str) -> list[str]:
    """The words before a command that lets it find the data of its package under /usr/share, where it looks.

    It sees both the machine's and the package's there, read-only, in a mount namespace that goes with it. Skips by name
    where there can be none.
    """
    rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    data = unpacked(package).resolve() / "usr" / "share"
    inside = f'mount -t overlay overlay -o "lowerdir={data}:/usr/share" /usr/share && exec "$@"'
    words = ["unshare", *rights, "--mount", "sh", "-euc", inside, "sh"]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode != 0:
        pytest.skip(f"{package}: no mount namespace can be had: {tried.stderr.strip()}")
    return words


def _fetch(package: str, there: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"{package}: this machine has no Debian packages")
    working = there.with_suffix(".part")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir()
    fetched = _apt_get("download", package, into=working)
    if fetched.returncode != 0 and os.geteuid() == 0:  # a fresh machine knows of no packages yet
        _apt_get("update", into=working)
        fetched = _apt_get("download", package, into=working)
    if fetched.returncode != 0:
        pytest.skip(f"{package}: apt-get cannot download it: {fetched.stderr.strip()}")
    (archive,) = working.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", archive, working / "files"], check=True, timeout=120)
    (working / "files").rename(there)
    shutil.rmtree(working)


def _apt_get(*words: str, into: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["apt-get", *words], cwd=into, capture_output=True, text=True, check=False, timeout=300)

"""Base images made of Debian's packages, for machines that can pull none; the Dockerfile is built on them unchanged.

They stand in for the images of the same names: the programs are Debian's (Python 3.11; Prometheus 2.42, Alertmanager
0.25, Pushgateway 1.5 in place of the releases that docker-compose.yml names). For Grafana there is no such package.
"""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import ROOT
from tests.operations.engine import Engine

PACKAGES = "python3,python3-pip,wget,prometheus,prometheus-alertmanager,prometheus-pushgateway"
SUITE = "bookworm"
PYTHON = "3.11"

_FROM_DEBIAN = "debian-stand-in"
_LIKE_PYTHON = "RUN ln -s /usr/bin/python3 /usr/local/bin/python && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"


def make_images(engine: Engine, directory: Path, names: list[str]) -> None:
    """Make the images that the Dockerfile and the compose file name, so far as Debian has what is in them."""
    archive = directory / "debian.tar"
    _fetch(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, archive])
    engine.docker("import", archive, _FROM_DEBIAN)
    archive.unlink()
    for name in names:
        recipe = directory / "Dockerfile"
        recipe.write_text(f"FROM {_FROM_DEBIAN}\n{_recipe(name)}")
        engine.docker("build", "--quiet", "--tag", name, "--file", recipe, directory)


def _recipe(name: str) -> str:
    """What makes Debian's packages behave as the image of a name does."""
    if name.startswith("python:"):
        return _LIKE_PYTHON
    program = name.partition("/")[2].partition(":")[0]
    package = program if program == "prometheus" else f"prometheus-{program}"
    storage = f"/{program}"
    return f'RUN install -d -o nobody -g nogroup {storage}\nUSER nobody\nENTRYPOINT ["/usr/bin/{package}"]\n'


def download_packages(directory: Path) -> None:
    """Fetch what the images install, as this machine's pip is set up to, for an engine that reaches no network."""
    listing: list[str | Path] = [
        sys.executable,
        ROOT / "deploy" / "docker" / "requirements.py",
        ROOT / "pyproject.toml",
    ]
    listed = subprocess.run(
        [*listing, "cpu", "postgresql", "tracing", "training"], check=True, capture_output=True, text=True
    ).stdout
    wanted = directory / "requirements.txt"
    wanted.write_text(f"{listed}setuptools>=77\nwheel\n")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += ["--only-binary=:all:", "--python-version", PYTHON, "--constraint", ROOT / "constraints.txt"]
    _fetch([*pip, "--requirement", wanted, "--dest", directory])


def _fetch(command: list[str | Path]) -> None:
    """Run what asks Debian or PyPI; skip the test, with what it said, where they cannot be reached."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        pytest.skip(f"no images can be made here: {command[0]}: {said[-1]}")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Writes no line to stderr for every request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the library calls it by
        """Say nothing."""


@contextlib.contextmanager
def package_index(directory: Path, address: str) -> Iterator[dict[str, str]]:
    """Serve a directory of packages over HTTP: the build arguments that make pip take them, and no others."""
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, name="packages")
    thread.start()
    url = f"http://{address}:{server.server_port}/"
    yield {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": url, "PIP_TRUSTED_HOST": address}
    server.shutdown()
    thread.join()
    server.server_close()

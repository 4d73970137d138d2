"""Kill -9 at any moment: the next start serves the last complete version, and serves it right."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proto.repository import Repository
from service.client import Converter
from tests.e2e.processes import ENVIRONMENT, serving
from tests.service.artefacts import GOLDEN_FAHRENHEIT, exact_celsius, make_artefact

PUBLISHER = """
import sys
from proto.repository import Repository
from tests.service.artefacts import make_artefact

repository = Repository(sys.argv[1])
while True:
    version = max(repository.versions("linear"), default=0) + 1
    assert repository.publish("linear", make_artefact(offset_celsius=version)) == version
    repository.set_label("linear", "stable", version)
    print(version, flush=True)
"""


def _answers_right(address: str) -> int:
    """Check the golden vectors of the version that answers, which is as warm as its number says; return it."""
    with Converter(address) as converter:
        conversion = converter.convert(GOLDEN_FAHRENHEIT)
    expected = [exact_celsius(fahrenheit) + conversion.version for fahrenheit in GOLDEN_FAHRENHEIT]
    assert conversion.celsius.tolist() == pytest.approx(expected, abs=1e-3)
    return conversion.version


def test_a_killed_server_starts_again(tmp_path: Path) -> None:
    """With what was published while it lay dead."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact(offset_celsius=1))
    with serving(repository.root) as server:
        assert _answers_right(server.address) == 1
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
    repository.publish("linear", make_artefact(offset_celsius=2))
    repository.set_label("linear", "stable", 2)
    with serving(repository.root) as server:
        assert _answers_right(server.address) == 2


def test_a_publisher_killed_anywhere_leaves_a_whole_repository(tmp_path: Path) -> None:
    """The last version that it said was published is served, or the next; the next publisher goes on from there."""
    root = tmp_path / "models"
    for _ in range(3):
        acknowledged = _publish_and_die(root, after=random.randint(1, 20))  # noqa: S311 - a moment, not a secret
        with serving(root) as server:
            assert acknowledged <= _answers_right(server.address) <= acknowledged + 1
            assert not [event for event in server.logged if event["level"] == "error"]


def _publish_and_die(root: Path, after: int) -> int:
    """Let a publisher say so many versions, kill it in the middle of the next, and return the last it said."""
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(root)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert publisher.stdout is not None
    with publisher.stdout:
        said = [int(publisher.stdout.readline()) for _ in range(after)]
        publisher.kill()
        publisher.wait()
        said += [int(line) for line in publisher.stdout if line.endswith("\n")]
    return said[-1]

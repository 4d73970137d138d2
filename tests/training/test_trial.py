"""A file counts only where a real server answers with it, and that server never outlives its job."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from proto.artefact import to_metadata
from tests.e2e.processes import ENVIRONMENT
from tests.service.artefacts import GOLDEN_FAHRENHEIT, describe, exact_celsius, make_artefact, make_linear
from training import trial
from training.errors import TrialError
from training.trial import Expected, compare, try_out

GOLDEN = describe().golden
SERVER = """
import sys
from pathlib import Path
from proto.repository import Repository
from tests.service.artefacts import make_artefact
from training.trial import _serving

Repository(sys.argv[1]).publish("linear", make_artefact())
with _serving(Path(sys.argv[1])) as address:
    print(address, flush=True)
    input()
"""


def expected(celsius_off: float = 0.0) -> Expected:
    """Readings with the answers of the exact law, or others."""
    fahrenheit = np.linspace(-40.0, 212.0, 50, dtype=np.float32)
    return Expected(fahrenheit, np.array([exact_celsius(float(each)) for each in fahrenheit]) + celsius_off, GOLDEN)


def test_a_good_file_is_served(tmp_path: Path) -> None:
    """All readings and the golden vectors are asked over the network, and the answers are those expected."""
    trial = try_out(tmp_path, "linear", make_artefact(), expected())
    assert trial.rows == 50 + len(GOLDEN_FAHRENHEIT)
    assert trial.greatest_difference_celsius < 1e-4


def test_a_file_that_does_not_answer_its_golden_vectors_is_not_served(tmp_path: Path) -> None:
    """The server refuses it, and so does the trial, with the server's words."""
    file = make_linear(5.0 / 9.0, -160.0 / 9.0 + 1.0, to_metadata(describe()))
    with pytest.raises(TrialError, match="does not answer with the file"):
        try_out(tmp_path, "linear", file, expected())


def test_answers_that_differ_are_told() -> None:
    """An answer beyond the tolerance, one that is no number, and one too few: each is an error."""
    right = np.array([0.0, 100.0])
    assert compare(right + 1e-5, right, GOLDEN).rows == 2
    for wrong in (right + 0.01, np.array([0.0, np.nan])):
        with pytest.raises(TrialError, match="was expected"):
            compare(wrong, right, GOLDEN)
    with pytest.raises(TrialError, match="1 answers to 2"):
        compare(right[:1], right, GOLDEN)


def test_a_client_that_takes_too_long_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a server that does not end."""
    monkeypatch.setattr(trial, "ANSWER_SECONDS", 0.0005)  # no process is up so fast
    with pytest.raises(TrialError, match=r"readings were not answered within 0\.001 s"):
        try_out(tmp_path, "linear", make_artefact(), expected())


def refuses(host: str, port: int) -> bool:
    """Whether nothing listens there."""
    try:
        socket.create_connection((host, port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_server_ends_with_a_job_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the job nothing listens any more."""
    job = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert job.stdin is not None
    assert job.stdout is not None
    with job.stdin, job.stdout:
        host, port = job.stdout.readline().strip().rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:
            job.send_signal(signal.SIGKILL)
            job.wait()
            connection.settimeout(60)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):  # its greeting, and then the end
                    pass
        until = time.monotonic() + 60
        while not refuses(host, int(port)):  # the kernel closes one socket after the other
            assert time.monotonic() < until, "the server lives on"
            time.sleep(0.02)

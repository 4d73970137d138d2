"""The README tells the truth: each of its commands is run, in order, and the answers it shows are those that come.

The commands run in a copy of the checkout, so that no model or report of the developer's is touched, and on free ports.
`make test` is not run: it is this suite. Commands of Docker Compose stand in blocks of their own (`sh`), which
tests/operations/test_compose.py runs, where there is an engine.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.environments import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "models", "reports", ".*_cache", ".hypothesis", "__pycache__", "node_modules"
)
TIMEOUT_SECONDS = 300

pytestmark = pytest.mark.timeout(TIMEOUT_SECONDS)  # whichever test comes first waits until two models are trained


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command line of the README, without those that set up and those that run this suite."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("make ")]


@dataclass
class Copy:
    """A copy of the checkout in which `make run` serves."""

    root: Path
    environment: dict[str, str]
    ports: dict[str, str]
    printed: str

    def with_ports(self, text: str) -> str:
        """The text with the ports that are used here."""
        for written, used in self.ports.items():
            text = text.replace(written, used)
        return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """`make run`, as a new user would call it, up to the line that says that it serves."""
    root = tmp_path_factory.mktemp("checkout") / "quicksilver"
    shutil.copytree(ROOT, root, ignore=NOT_COPIED)
    _link_environment(root)
    ports = {written: f"127.0.0.1:{free_port()}" for written in ("127.0.0.1:50051", "127.0.0.1:8002")}
    environment = _environment(*ports.values())
    process = subprocess.Popen(
        ["make", "run"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    printed = ""
    for line in process.stdout or ():
        printed += line
        if "Ctrl-C stops it" in line:
            break
    client = environment | {"QUICKSILVER_SERVER": ports["127.0.0.1:50051"]}
    yield Copy(root, client, ports, printed)
    _press_ctrl_c(process)


def _environment(grpc_address: str, http_address: str) -> dict[str, str]:
    """This process's environment, with these addresses and no other setting of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUICKSILVER_")}
    return kept | {"QUICKSILVER_LISTEN": grpc_address, "QUICKSILVER_HTTP_LISTEN": http_address}


def _press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """Interrupt the whole group, as a terminal does, and see that nothing of it stays."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("something of `make run` survived Ctrl-C")


def _link_environment(root: Path) -> None:
    """Give the copy the environment that runs this test, and say that it is up to date, which it is."""
    scripts = Path(sys.executable).parent
    (root / ".venv").mkdir()
    for part in scripts.parent.iterdir():
        if not part.name.startswith(".installed"):
            (root / ".venv" / part.name).symlink_to(part)
    (root / ".venv" / ".installed").touch()


def _table(text: str) -> list[list[str]]:
    """The cells of printed lines: words that two blanks or a tab separate."""
    return [re.split(r"\s{2,}|\t", line.strip()) for line in text.splitlines() if line.strip()]


def _alike(shown: str, printed: str) -> bool:
    """Whether two cells say the same; numbers to 0.05, since a network's last digits differ between processors."""
    number = r"-?\d+(?:\.\d+)?"
    if re.sub(number, "#", shown) != re.sub(number, "#", printed):
        return False
    pairs = zip(re.findall(number, shown), re.findall(number, printed), strict=True)
    return all(abs(float(one) - float(other)) <= 0.05 for one, other in pairs)


def test_make_run_shows_what_the_readme_shows(copy: Copy) -> None:
    """Both models convert, with their versions; the answers are those on the README's first screen."""
    (shown,) = blocks("text")
    expected = _table(shown)
    start = copy.printed.index("linear, version 1")
    printed = _table(copy.printed[start : start + 4 * len(shown)])[: len(expected)]
    for expected_row, printed_row in zip(expected, printed, strict=True):
        assert len(expected_row) == len(printed_row), (expected_row, printed_row)
        assert all(map(_alike, expected_row, printed_row)), (expected_row, printed_row)


@pytest.mark.timeout(2 * TIMEOUT_SECONDS)
def test_every_command_works(copy: Copy) -> None:
    """Each line, typed as it stands, in order and in one shell, ends well."""
    script = ["set -euo pipefail"]
    for command in commands():
        line = copy.with_ports(command)
        script += [f"echo '+' {_quoted(line)}", line]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=copy.root,
        env=copy.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * TIMEOUT_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "451" in ran.stdout
    assert "quicksilver_rows_total" in ran.stdout


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_the_python_example_works(copy: Copy) -> None:
    """It runs as it stands, and prints what its comments say."""
    (example,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", copy.with_ports(example)],
        cwd=copy.root,
        env=copy.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("linear 1\n(2, 2)\n")


def test_links_lead_somewhere() -> None:
    """Every file that the README and the pages in docs link to is there."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_second_run_publishes_nothing(copy: Copy) -> None:
    """The models that are there are served; one more `make run` changes nothing on disk."""
    before = sorted(path.relative_to(copy.root) for path in (copy.root / "models").rglob("*.onnx"))
    again = subprocess.run(
        ["make", "run", "ARGS=--once"],
        cwd=copy.root,
        env=_environment(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "linear/1 is in models/ already" in again.stdout
    assert "mlp, version 1" in again.stdout
    assert sorted(path.relative_to(copy.root) for path in (copy.root / "models").rglob("*.onnx")) == before

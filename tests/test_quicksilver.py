"""The command itself: subcommands found and imported when they are called."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import quicksilver
from quicksilver import COMMANDS, main


def test_help_tells_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """With the line that describes it."""
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in printed
        assert command.summary in printed


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_exists_and_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its module has a main that knows it."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: quicksilver {name}" in capsys.readouterr().out


def test_no_command_is_exit_code_2_and_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Who types nothing is told what there is."""
    assert main([]) == 2
    assert "usage: quicksilver COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, naming the commands there are."""
    assert main(["sevre"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"quicksilver: no command 'sevre': there are {', '.join(COMMANDS)}"


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    """One word."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("quicksilver-serving")


def _without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where a package is not installed."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; import quicksilver; sys.exit(quicksilver.main({arguments!r}))"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("torch", ["train", "linear"], "'training'"), ("onnxruntime", ["serve"], "'cpu' or 'gpu'")],
)
def test_a_missing_package_is_named_with_its_extra(module: str, arguments: list[str], extra: str) -> None:
    """Rather than a traceback."""
    done = _without(module, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"needs {module!r}" in line
    assert f"with the extra {extra}" in line


def test_a_missing_package_of_no_extra_is_a_fault() -> None:
    """A broken installation is not explained away."""
    done = _without("google", "convert", "32")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_a_reader_that_leaves_is_no_fault(tmp_path: Path) -> None:
    """`quicksilver … | head` ends as any command does that writes into a closed pipe."""
    program = tmp_path / "talker.py"
    program.write_text("def main(words):\n    print('word ' * 1_000_000)\n    return 0\n")
    run = "import sys, quicksilver as q; q.COMMANDS['talk'] = q.Command('talker', ''); sys.exit(q.main(['talk']))"
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", run], stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_little_is_imported_before_ctrl_c_is_minded() -> None:
    """Until `main` runs an interrupt is a traceback, so the module itself imports next to nothing."""
    program = "import sys; before = set(sys.modules); import quicksilver; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"importlib.metadata", "argparse", "training", "service"} & set(done.stdout.split())


def test_ctrl_c_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is the one that shells give an interrupted process, and nothing is printed."""

    def interrupted(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("service.cli"), "main", interrupted)
    assert quicksilver.main(["convert", "32"]) == 130
    assert capsys.readouterr() == ("", "")

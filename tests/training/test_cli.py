"""The commands as a user types them: what they print, what they leave, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import quicksilver
from proto.repository import Repository
from training import cli
from training.cli import main

QUICK = ["--epochs", "60"]
HEADER = "fahrenheit,celsius\n"


def run_python(program: str, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter, as a user's shell would start one."""
    command = [sys.executable, "-W", "error", "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on standard error with which a command ends with exit code 1."""
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert last.startswith(f"quicksilver {words[0]}: ")
    return last


# Training and publishing ----------------------------------------------------------------------------------------------


def test_train_writes_and_publishes_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One run leaves the file and the version, with the same bytes, and says where they are."""
    output, models = tmp_path / "out" / "linear.onnx", tmp_path / "models"
    assert main(["train", "linear", *QUICK, "--output", str(output), "--publish", str(models)]) == 0
    printed = capsys.readouterr().out
    assert Repository(models).model_path("linear", 1).read_bytes() == output.read_bytes()
    assert f"published linear/1 to {models}/" in printed
    assert f"wrote {output}" in printed
    assert "weight" in printed
    assert "covers 80%" in printed


def test_train_prints_the_law_it_learned(capsys: pytest.CaptureFixture[str]) -> None:
    """The published run of the linear model shows its losses, its parameters, and the formula on plain °F."""
    assert main(["train", "linear"]) == 0
    printed = capsys.readouterr().out
    assert "training loss    2.85" in printed
    assert "celsius = 0.54" in printed
    assert "trained over     fahrenheit 33.9 … 81.9" in printed


def test_train_from_a_file_with_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns by name, an MLP of two layers, an optimizer, early stopping, a name: all as asked."""
    data, models = tmp_path / "data.csv", tmp_path / "models"
    rows = [f"{10 * k},{1000 + k % 3},{10 * k / 2}" for k in range(12)]
    data.write_text("\n".join(["dial,pressure,truth", *rows]))
    words = ["train", "mlp", "--data", str(data), "--features", "dial,pressure", "--target", "truth"]
    words += ["--hidden", "4,3", "--activation", "softplus", "--optimizer", "rmsprop", "--learning-rate", "0.005"]
    words += ["--patience", "30", "--seed", "5", "--coverage", "0.5", *QUICK, "--publish", str(models), "--name", "two"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "rmsprop at 0.005" in printed
    assert "seed 5" in printed
    assert "covers 50%" in printed
    assert f"published two/1 to {models}/" in printed


def test_unless_published_trains_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first run publishes; the second says in one line that there is nothing to do, and publishes nothing."""
    models = tmp_path / "models"
    words = ["train", "linear", *QUICK, "--publish", str(models), "--unless-published"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out == f"linear/1 is in {models}/ already: nothing to do\n"
    assert captured.err == ""
    assert Repository(models).versions("linear") == [1]


def test_name_that_is_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not taken for no name at all."""
    assert "'' is not a valid name" in refused(capsys, "train", "linear", "--publish", str(tmp_path), "--name", "")


def test_places_that_cannot_be_written_are_refused_before_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory for a file, a file for a directory, at once and by the name given, without a line of progress."""
    (tmp_path / "file").write_text("")
    for words, path, says in (
        (["--output"], tmp_path, "Is a directory"),
        (["--output"], tmp_path / "file" / "model.onnx", "Not a directory"),
        (["--publish"], tmp_path / "file", "Not a directory"),
        (["--name", "file", "--publish"], tmp_path, "Not a directory"),
    ):
        assert main(["train", "linear", *words, str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line in {f"quicksilver train: {path}: {says}", f"quicksilver train: {path / 'file'}: {says}"}


@pytest.mark.parametrize(("command", "page"), [("report", "report.html"), ("gallery", "index.html")])
def test_pages_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, page: str
) -> None:
    """A file for the directory, or a directory for the page, without a line of progress, and nothing is written."""
    (tmp_path / "file").write_text("")
    (tmp_path / page).mkdir()
    for path, named, says in (
        (tmp_path / "file", tmp_path / "file", "Not a directory"),
        (tmp_path, tmp_path / page, "Is a directory"),
    ):
        assert main([command, "--output", str(path)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"quicksilver {command}: {named}: {says}"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["file", page])


def test_reader_that_leaves_keeps_nothing_from_being_written(tmp_path: Path) -> None:
    """`train | head` writes and publishes all the same, and ends as any command does whose reader has left."""
    program = "import sys, quicksilver; sys.exit(quicksilver.main())"
    words = ["train", "linear", *QUICK, "--output", "linear.onnx", "--publish", "models"]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert "quicksilver train: Broken pipe" not in done.stderr
    assert (tmp_path / "linear.onnx").is_file()
    assert Repository(tmp_path / "models").versions("linear") == [1]


def test_fit_that_has_not_arrived_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A loss in mid-fall at the last epoch is told on standard error; the defaults arrive."""
    assert main(["train", "linear", "--optimizer", "adam", "--epochs", "100"]) == 0
    *_, last = capsys.readouterr().err.splitlines()
    assert "over the last tenth of the 100 epochs" in last
    for optimizer in ("sgd", "adam"):
        assert main(["train", "linear", "--optimizer", optimizer]) == 0
        assert "last tenth" not in capsys.readouterr().err


# What is not imported -------------------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_before_a_fit(tmp_path: Path) -> None:
    """`--help` and `--unless-published` answer without importing torch, onnx or ONNX Runtime."""
    Repository(tmp_path / "models").publish("mlp", b"x")
    program = (
        "import sys, quicksilver\n"
        "try: code = quicksilver.main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code\n"
        "assert code == 0, code\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'matplotlib', 'grpc'} & set(sys.modules)\n"
    )
    for words in (["--publish", "models", "--unless-published"], ["--help"]):
        ended = run_python(program, "train", "mlp", *words, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr


def test_training_needs_no_grpc(tmp_path: Path) -> None:
    """Every module that a command of training needs is imported where grpc and the service cannot be."""
    modules = ", ".join(f"training.{name}" for name in ("fit", "export", "publish", "evaluate", "reproduce", "cli"))
    program = f"import sys; sys.modules['grpc'] = sys.modules['service'] = None; import {modules}"
    ended = run_python(program, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_every_command_is_known_on_both_sides() -> None:
    """The commands that the entry module sends to training are those that training runs."""
    sent = {name for name, command in quicksilver.COMMANDS.items() if command.module == "training.cli"}
    assert sent == set(cli.COMMANDS)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_bad_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names file, line and column."""
    data = tmp_path / "data.csv"
    data.write_text(HEADER + "32,0\n50,cold\n212,100\n")
    line = refused(capsys, "train", "linear", "--data", str(data))
    assert line.endswith(f"{data}, line 3, column 'celsius': 'cold' is not a number")
    assert "No such file" in refused(capsys, "evaluate", "--data", str(tmp_path / "none.csv"))


def test_published_split_belongs_to_the_built_in_readings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another data set has no published split."""
    data = tmp_path / "data.csv"
    data.write_text(HEADER + "".join(f"{k},{k + 1}\n" for k in range(20)))
    assert "--split seeded" in refused(capsys, "train", "linear", "--data", str(data), "--split", "published-2")


def test_divergence_is_one_line_and_publishes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate that is too great ends with a smaller one to try."""
    models = tmp_path / "models"
    line = refused(capsys, "train", "mlp", "--learning-rate", "100", "--publish", str(models))
    assert "try a smaller learning rate, such as 10 in place of 100" in line
    assert not models.exists()


@pytest.mark.parametrize("command", [["train", "linear"], ["evaluate"]])
def test_coverage_that_cannot_be_had_is_refused_before_any_fit(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Eleven readings support 11/12 at most, and that is said at once."""
    assert main([*command, "--coverage", "0.95"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"quicksilver {command[0]}: 11 samples support an interval of coverage 0.9167 at most, not 0.95"
    ]


def test_bad_name_is_refused_before_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody waits for a fit to learn that its name is none."""
    assert main(["train", "linear", "--publish", str(tmp_path), "--name", "Bad"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_repository_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the repository should be is named."""
    (tmp_path / "models").write_text("not a directory")
    line = refused(capsys, "train", "linear", *QUICK, "--publish", str(tmp_path / "models"))
    assert str(tmp_path / "models") in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train"], "kind"),
        (["train", "cubic"], "cubic"),
        (["train", "mlp", "--hidden", "8,0"], "'0' is not a whole number from 1"),
        (["train", "mlp", "--epochs", "0"], "'0' is not a whole number from 1"),
        (["train", "mlp", "--seed", "-1"], "--seed"),
        (["train", "mlp", "--seed", str(2**63)], "not a whole number"),
        (["train", "mlp", "--learning-rate", "fast"], "'fast' is not a number above 0"),
        (["train", "mlp", "--learning-rate", "inf"], "'inf' is not a number above 0"),
        (["train", "mlp", "--optimizer", "lbfgs"], "lbfgs"),
        (["train", "mlp", "--features", "a,,b"], "not a list of column names"),
        (["evaluate", "cubic"], "no kind 'cubic'"),
        (["publish"], "FILE.onnx"),
    ],
)
def test_command_line_that_makes_no_sense_ends_with_2(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    """What was wrong is named on standard error."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "linear", "--unless-published"],
        ["train", "linear", "--name", "celsius"],
        ["train", "linear", "--hidden", "8"],
        ["train", "quadratic", "--activation", "tanh"],
    ],
)
def test_options_that_do_not_go_together_end_with_2(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Options that would be ignored are refused."""
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", ["train", "evaluate", "reproduce", "publish", "report", "gallery"])
def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """`--help` describes the command and each of its options."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: quicksilver {command}")


# Interruption ---------------------------------------------------------------------------------------------------------

_INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def test_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a fit ends with exit code 130, one clear line, and no file."""
    command = [sys.executable, "-c", _INTERRUPTIBLE + "import sys, quicksilver; sys.exit(quicksilver.main())"]
    words = ["train", "linear", "--epochs", "1000000", "--output", "linear.onnx", "--publish", "models"]
    with subprocess.Popen([*command, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first line of progress: the fit is under way
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(timeout=30) == 130
    assert errors.splitlines()[-1] == "quicksilver train: interrupted; nothing was left half-written"
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


# Evaluate -------------------------------------------------------------------------------------------------------------


def test_evaluate_prints_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json` a program can read standard output as it is; kinds named twice come once."""
    assert main(["evaluate", "linear", "linear", "--json", "--split", "published-2"]) == 0
    (evaluation,) = json.loads(capsys.readouterr().out)
    assert evaluation["kind"] == "linear"
    assert evaluation["interval"]["coverage"] == 0.8


def test_evaluate_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Without it, a table that names the data and the split."""
    assert main(["evaluate", "linear"]) == 0
    printed = capsys.readouterr().out
    assert "11 readings (built-in; split: published, first)" in printed
    assert "leave-one-out: mean squared error (°C²)" in printed

"""The commands, run in this process against real servers. What needs a process of its own is in tests/e2e."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import cli
from service.cli import convert_parser, models_parser, serve_parser
from service.config import SERVER_VARIABLE, Settings, flag, variable
from service.server import Server

# serve ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*Settings.model_fields])
def test_help_tells_every_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag, what it means, default and variable; and, for a number, its unit."""
    monkeypatch.setenv("COLUMNS", "1000")
    entries = [" ".join(entry.split()) for entry in re.split(r"\n  (?=-)", serve_parser().format_help())]
    field = Settings.model_fields[name]
    (line,) = [entry for entry in entries if f"; {variable(name)}]" in entry]
    assert line.startswith(flag(name))
    assert field.description is not None
    assert field.description in line
    assert f"[{'none' if field.default is None else field.default}; " in line
    if field.annotation in {int, float}:
        unit = line.removeprefix(flag(name)).split()[0]
        assert unit in {
            "BYTES", "CALLS", "CONNECTIONS", "OBSERVATIONS", "RATIO", "ROWS", "SECONDS", "SHARE", "THREADS", "VERSIONS",
            "WORKERS",
        }  # fmt: skip


def test_help_is_printed_without_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for, it is no error."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "--help"])
    assert ended.value.code == 0
    assert "--repository DIR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-setting", "1"], "unrecognized arguments: --no-such-setting 1"),
        (["--max-batch", "1"], "unrecognized arguments: --max-batch 1"),
        (["--max-batch-rows"], "argument --max-batch-rows: expected one argument"),
        (["--max-batch-rows", "0"], "--max-batch-rows: input should be greater than or equal to 1, not '0'"),
        (["--settings", "/no/such/file"], "settings file /no/such/file: No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """It names the flag; abbreviations are none."""
    try:
        code: object = cli.main(["serve", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"quicksilver serve: {words}")


def test_a_wrong_variable_is_exit_code_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable."""
    monkeypatch.setenv("QUICKSILVER_MAX_BATCH_ROWS", "many")
    assert cli.main(["serve"]) == 2
    assert "QUICKSILVER_MAX_BATCH_ROWS: " in capsys.readouterr().err


# convert --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands find the server where they look by themselves."""
    monkeypatch.setenv(SERVER_VARIABLE, server.address)


def _standard_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.usefixtures("at_server")
def test_temperatures_are_converted_to_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Model, version, a header, a line each."""
    assert cli.main(["convert", "50", "212"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "linear, version 1",
        "°F\t°C",
        "50\t10.00",
        "212\t100.00\toutside the training range",
    ]


@pytest.mark.usefixtures("at_server")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-40", "98.6"], [-40, 37]),
        (["-4e1", "1e2", "-.5"], [-40, 37.77778, -18.055555]),
        (["--json", "32", "--version", "2", "50"], [5, 15]),
        (["--", "-40"], [-40]),
        (["--model=plain", "+32"], [0]),
    ],
)
def test_numbers_in_any_notation_and_options_in_any_order(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[float]
) -> None:
    """A negative number with an exponent is no flag."""
    assert cli.main(["convert", "--json", *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["celsius"] for row in answer["conversions"]] == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.floats(), min_size=1))
def test_every_float_is_a_temperature_to_the_parser(values: list[float]) -> None:
    """NaN and the infinities too: the server says what it thinks of them."""
    words = [cli._no_flag(repr(value)) for value in values]  # noqa: SLF001 - the rule itself
    parsed = convert_parser().parse_intermixed_args(["--json", *words, "--timeout", "3"]).fahrenheit
    assert [repr(value) for value in parsed] == [repr(value) for value in values]


@pytest.mark.usefixtures("at_server")
def test_an_interval_is_shown_with_its_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    """In lines and in JSON."""
    assert cli.main(["convert", "--interval", "50"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["°F\t°C\t80% interval, °C", "50\t10.00\t7.50 … 12.50"]
    assert cli.main(["convert", "--interval", "--json", "50"]) == 0
    assert json.loads(capsys.readouterr().out)["coverage"] == 0.8


@pytest.mark.usefixtures("at_server")
def test_temperatures_come_from_standard_input_and_csv(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Plain numbers, a file, and CSV through a pipe."""
    _standard_input(monkeypatch, "32, 50")
    assert cli.main(["convert"]) == 0
    path = tmp_path / "readings.csv"
    path.write_text("reading\n32\n50\n")
    assert cli.main(["convert", "--csv", str(path), "--column", "reading"]) == 0
    _standard_input(monkeypatch, "fahrenheit\n32\n50\n")
    assert cli.main(["convert", "--csv", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == lines[:4] * 3


@pytest.mark.usefixtures("at_server")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nan"], "INVALID_ARGUMENT: fahrenheit[0]: nan is not a temperature"),
        (["1", "-inf"], "INVALID_ARGUMENT: fahrenheit[1]: -inf is not a temperature"),
        (["1e39"], "INVALID_ARGUMENT: fahrenheit[0]: 1e+39 is beyond float32"),
        (["-500"], "INVALID_ARGUMENT: fahrenheit[0]: -500 is below absolute zero (-459.67 °F)"),
        (["--reject", "50", "212"], "OUT_OF_RANGE: row 1, 212, lies outside"),
        (["--model", "nope", "1"], "NOT_FOUND: no model 'nope': there are linear, plain"),
        (["--label", "canary", "1"], "NOT_FOUND: no label 'canary'"),
        (["--csv", "/no/such.csv"], "/no/such.csv: No such file or directory"),
        ([], "standard input holds no temperature"),
    ],
)
def test_what_cannot_be_converted_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    """One line says why, and nothing stands on standard output."""
    _standard_input(monkeypatch, "")
    assert cli.main(["convert", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith(f"quicksilver convert: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["warm"], "argument FAHRENHEIT: invalid number value: 'warm'"),
        (["1", "--csv", "x.csv"], "temperatures are named, or read from --csv, not both"),
        (["1", "--version", "1", "--label", "stable"], "argument --label: not allowed with argument --version"),
        (["1", "--version", "0"], "version: 0 is not a whole number from 1"),
        (["1", "--version", "-3"], "version: -3 is not a whole number from 1"),
        (["1", "--version", "9" * 30], "version: 999999"),
        (["1", "--timeout", "-1"], "timeout_seconds must be more than 0, not -1.0"),
        (["1", "--bogus"], "unrecognized arguments: --bogus"),
        (["1", "--inter"], "unrecognized arguments: --inter"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Nobody is asked, and one line says why."""
    try:
        code: object = cli.main(["convert", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"quicksilver convert: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wai", "3"], "unrecognized arguments: --wai 3"),
        (["--wait", "soon"], "argument --wait: invalid float value: 'soon'"),
    ],
)
def test_ready_reads_its_command_line_as_the_others_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """One line says why, and no flag is abbreviated."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["ready", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"quicksilver ready: {words}")


def test_a_server_that_is_down_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The address, and the system's reason."""
    assert cli.main(["convert", "32", "--server", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == (
        "quicksilver convert: UNAVAILABLE: cannot connect to 127.0.0.1:1: Connection refused\n"
    )


# models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_server")
def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a version, or JSON."""
    assert cli.main(["models", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 models; default model: linear",
        "model\tversion\tstate\tlabels",
        "linear\t1\tready\tstable\tanswers by default",
        "linear\t2\tready",
        "plain\t1\tready\tstable\tanswers by default",
    ]
    assert cli.main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["default_model"] == "linear"


@pytest.mark.usefixtures("at_server")
def test_a_model_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, version or label; or JSON."""
    assert cli.main(["models", "show", "--version", "2"]) == 0
    assert capsys.readouterr().out.startswith("linear, version 2\nstate\tready\n")
    for name in (["plain"], ["--model", "plain"]):
        assert cli.main(["models", "show", *name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == "plain"
    with pytest.raises(SystemExit, match="2"):
        cli.main(["models", "show", "plain", "--model", "linear"])
    assert "not allowed with" in capsys.readouterr().err
    assert cli.main(["models", "show", "--model", "nope"]) == 1
    assert cli.main(["models", "show", "--version", "0"]) == 2


def test_an_action_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the actions there are."""
    with pytest.raises(SystemExit) as ended:
        models_parser().parse_args([])
    assert ended.value.code == 2
    assert "ACTION" in capsys.readouterr().err

"""What the client commands read and print."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.quicksilver.v1 import converter_pb2 as api
from service.cli import convert_parser
from service.conversion import Conversion
from service.tables import (
    ReadingError,
    conversion_json,
    message_json,
    parse_csv,
    parse_numbers,
    print_conversion,
    print_model,
    print_models,
    read_csv,
    read_numbers,
)


def _standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.sampled_from([" ", "\n", ",", "; ", "\t", "\r\n", ",,"]))))
def test_numbers_may_be_separated_by_anything(words: list[tuple[float, str]]) -> None:
    """White space, commas, semicolons, lines; in any notation that Python writes."""
    text = "".join(f"{value!r}{separator}" for value, separator in words)
    assert list(parse_numbers(io.StringIO(text), "here")) == [value for value, _ in words]


@pytest.mark.parametrize("content", [b"32, 50\n", b"\xef\xbb\xbf32;50", b"32\r\n50\r\n"])
def test_standard_input_holds_plain_numbers(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """With or without a byte order mark, whoever ends its lines how."""
    _standard_input(monkeypatch, content)
    assert read_numbers() == [32, 50]


@pytest.mark.parametrize("content", [b"", b"\n \n", b",;,"])
def test_no_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Rather than a request for nothing."""
    _standard_input(monkeypatch, content)
    with pytest.raises(ReadingError, match="standard input holds no temperature"):
        read_numbers()


def test_a_word_that_is_no_number_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person counts lines."""
    _standard_input(monkeypatch, b"1 2\n3 warm\n")
    with pytest.raises(ReadingError, match="standard input, line 2: 'warm' is not a number"):
        read_numbers()


def test_digits_joined_by_an_underscore_are_no_number() -> None:
    """As in the files that training reads: what Python's source means by it, no reading does."""
    with pytest.raises(ReadingError, match="here, line 1: '1_000' is not a number"):
        list(parse_numbers(["1_000"], "here"))
    with pytest.raises(ReadingError, match="here, line 2, column 't': '1_000' is not a number"):
        list(parse_csv(["t\n", "1_000\n"], "t", "here"))
    with pytest.raises(SystemExit):
        convert_parser().parse_args(["1_000"])


def test_a_column_is_read_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Other columns, blank lines, quotes, spaces after commas and a byte order mark do not matter."""
    content = b'\xef\xbb\xbfplace, fahrenheit\nroof,32\n\n"cellar, left", 50.5\n'
    path = tmp_path / "readings.csv"
    path.write_bytes(content)
    assert read_csv(path, "fahrenheit") == [32, 50.5]
    _standard_input(monkeypatch, content)
    assert read_csv(Path("-"), "fahrenheit") == [32, 50.5]
    assert sys.stdin.buffer.closed is False


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"celsius,place\n1,x\n", "has no column 'fahrenheit': there are celsius, place"),
        (b"", "has no column 'fahrenheit': there are none"),
        (b"fahrenheit\n", "holds no temperature"),
        (b"fahrenheit\n1\nhot\n", "line 3, column 'fahrenheit': 'hot' is not a number"),
        (b"place,fahrenheit\nroof\n", "line 2, column 'fahrenheit': '' is not a number"),
        (b"fahrenheit\n\xff\xfe\n", "is not UTF-8 text"),
        (b"fahrenheit\n" + b"1" * 200_000 + b"\n", "field larger than field limit"),
    ],
)
def test_a_wrong_csv_file_is_named_with_the_place(tmp_path: Path, content: bytes, words: str) -> None:
    """File, line and column."""
    path = tmp_path / "readings.csv"
    path.write_bytes(content)
    with pytest.raises(ReadingError, match=words) as caught:
        read_csv(path, "fahrenheit")
    assert str(caught.value).startswith(str(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ReadingError, match=r"none\.csv: No such file or directory"):
        read_csv(tmp_path / "none.csv", "fahrenheit")
    with pytest.raises(ReadingError, match="Is a directory"):
        read_csv(tmp_path, "fahrenheit")


def test_a_csv_row_may_be_longer_than_its_header() -> None:
    """What stands behind the last column has no name, and is nobody's temperature."""
    assert list(parse_csv(["fahrenheit", "1,2,3"], "fahrenheit", "here")) == [1]


def _conversion(*, interval: bool = True, known: bool = True) -> Conversion:
    nan = float("nan")
    return Conversion(
        model="linear",
        version=3,
        celsius=np.array([37.0, 36.6], dtype=np.float32),
        outside=np.array([True, False]) if known else None,
        lower=np.array([nan, 34.1], dtype=np.float32) if interval else None,
        upper=np.array([nan, 39.1], dtype=np.float32) if interval else None,
        coverage=0.8 if interval else None,
    )


def test_json_tells_all_that_is_known() -> None:
    """The shortest numbers; a bound that cannot be stated is null."""
    assert json.loads(conversion_json([98.6, 97.88], _conversion())) == {
        "model": "linear",
        "version": 3,
        "coverage": 0.8,
        "conversions": [
            {
                "fahrenheit": 98.6,
                "celsius": 37.0,
                "celsius_lower": None,
                "celsius_upper": None,
                "extrapolated": True,
            },
            {
                "fahrenheit": 97.88,
                "celsius": 36.6,
                "celsius_lower": 34.1,
                "celsius_upper": 39.1,
                "extrapolated": False,
            },
        ],
    }


def test_json_leaves_out_what_was_not_asked_for() -> None:
    """No bounds without an interval; an unknown domain is null."""
    answer = json.loads(conversion_json([98.6, 97.88], _conversion(interval=False, known=False)))
    assert "coverage" not in answer
    assert answer["conversions"][0] == {"fahrenheit": 98.6, "celsius": 37.0, "extrapolated": None}


def test_a_pipe_gets_tab_separated_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a temperature, its note in the last column."""
    print_conversion([98.6, 97.88], _conversion())
    assert capsys.readouterr().out.splitlines() == [
        "linear, version 3",
        "°F\t°C\t80% interval, °C",
        "98.6\t37.00\tnone\toutside the training range",
        "97.88\t36.60\t34.10 … 39.10",
    ]
    print_conversion([98.6, 97.88], _conversion(interval=False, known=False))
    assert capsys.readouterr().out.splitlines()[2] == "98.6\t37.00\ttraining range unknown"


def test_large_answers_keep_their_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody wants forty digits, the last thirty-three of them invented."""
    conversion = Conversion("linear", 1, np.array([1.6666667e38], dtype=np.float32), None)
    print_conversion([3e38], conversion)
    assert capsys.readouterr().out.splitlines()[2].startswith("3e+38\t1.666667e+38\t")


def test_a_terminal_gets_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same words in it, brackets and colons as they are."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    print_conversion([98.6, 97.88], _conversion())
    reason = "golden [red]vector[/red] :smile: [0]"
    failed = api.ModelVersion(version=7, state=api.VERSION_STATE_FAILED, reason=reason, labels=["stable"])
    print_models(api.ListModelsResponse(models=[api.Model(name="linear", versions=[failed])]))
    printed = capsys.readouterr().out
    assert "┃" in printed
    for words in ("34.10 … 39.10", "outside the training range", f"failed: {reason}", "1 model; no default model"):
        assert words in printed


def test_a_reason_of_several_lines_stays_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a version, whatever the runtime has to say."""
    failed = api.ModelVersion(version=7, state=api.VERSION_STATE_FAILED, reason="first\n\tsecond")
    model = api.Model(name="linear", versions=[failed], default_version=7)
    print_models(api.ListModelsResponse(models=[model], default_model="linear"))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "model\tversion\tstate\tlabels",
        "linear\t7\tfailed: first second\t\tanswers by default",
    ]


def test_a_model_is_described_by_what_is_known_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """What is absent is not invented."""
    version = api.ModelVersion(version=2, state=api.VERSION_STATE_READY, labels=["canary", "stable"])
    print_model(api.GetModelResponse(model="plain", version=version, sha256="ab", size_bytes=9, device="cpu"))
    assert capsys.readouterr().out.splitlines() == [
        "plain, version 2",
        "state\tready",
        "labels\tcanary, stable",
        "kind\tnot stated",
        "device\tcpu",
        "file\t9 bytes, sha256 ab",
    ]
    full = api.GetModelResponse(model="linear", version=version, kind="linear")
    full.domain.add(name="fahrenheit", minimum=21.8, maximum=81.9)
    full.interval.half_width_celsius, full.interval.coverage, full.interval.method = 2.5, 0.8, "leave-one-out"
    full.training.epochs = 3000
    print_model(full)
    printed = capsys.readouterr().out
    for words in ("21.8 … 81.9", "± 2.500 °C at 80%, leave-one-out", "3000 epochs"):
        assert words in printed


def test_what_a_canary_gets_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Its share, or that it runs in the shadow; in the list and in full."""
    canary = api.ModelVersion(version=2, state=api.VERSION_STATE_READY, labels=["canary"], canary_share=0.1)
    shadow = api.ModelVersion(version=3, state=api.VERSION_STATE_READY, labels=["canary"], shadow=True)
    models = [api.Model(name=name, versions=[each], default_version=1) for name, each in (("a", canary), ("b", shadow))]
    print_models(api.ListModelsResponse(models=models))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "a\t2\tready\tcanary\tanswers 0.1 of what names no version",
        "b\t3\tready\tcanary\truns in the shadow",
    ]
    print_model(api.GetModelResponse(model="a", version=canary))
    assert "canary\tanswers 0.1 of what names no version" in capsys.readouterr().out.splitlines()


def test_live_quality_is_shown_with_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are known, and no others."""
    answer = api.GetModelResponse(model="linear", version=api.ModelVersion(version=2))
    answer.live_quality.observations = 7
    answer.live_quality.mae_celsius.value = 0.5
    print_model(answer)
    printed = capsys.readouterr().out.splitlines()
    assert "observed\t7 times: error 0.500 °C" in printed
    assert not any(line.startswith("covered") for line in printed)
    answer.live_quality.mae_celsius.CopyFrom(api.Estimate(value=0.5, lower=0.25, upper=0.75))
    answer.live_quality.coverage.CopyFrom(api.Estimate(value=0.875, lower=0.5, upper=1))
    answer.live_quality.stated_coverage = 0.8
    print_model(answer)
    printed = capsys.readouterr().out.splitlines()
    assert "observed\t7 times: error 0.500 °C (0.250 … 0.750 at 95 %)" in printed
    assert "covered\t87.5% (50.0% … 100.0% at 95 %), 80% stated" in printed


def test_a_message_keeps_its_fields_names_in_json() -> None:
    """As the contract writes them."""
    assert json.loads(message_json(api.ListModelsResponse(default_model="x"))) == {"default_model": "x"}

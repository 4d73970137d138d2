"""The report: what it says is what was fitted, and the page needs nothing but itself."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proto.artefact import Interval
from tests.training import subjects
from tests.training.pages_read import Page, is_blank, pixels
from training import report, report_page
from training.errors import CoverageError, DataError
from training.figures import Subject
from training.options import FitOptions, Kind, default_options
from training.report_page import Measure

Subjects = tuple[Subject, Subject]
BOTH = pytest.mark.parametrize("make", [subjects.published, subjects.crowd])


def written(pair: Subjects, directory: Path) -> Page:
    """The page of a report."""
    page, *_ = report.write(pair, directory)
    return Page(page.read_text(encoding="utf-8"))


def test_one_page_and_its_pictures(tmp_path: Path) -> None:
    """The report is one page that needs nothing else, its pictures inlined for light and for dark, and the PNGs."""
    page_path, *pngs = report.write(subjects.published(), tmp_path / "reports")
    assert sorted([page_path, *pngs]) == sorted((tmp_path / "reports").iterdir())
    assert {path.stem for path in pngs} == {"fit", "losses", "residuals", "extrapolation", "hidden-layer"}
    page = Page(page_path.read_text(encoding="utf-8"))
    assert page.outside_references() == []
    images = page.images()
    assert len(images) == 2 * len(pngs)
    assert not any(is_blank(image) for image in images)
    for path, inlined in zip(pngs, images[::2], strict=True):
        assert (pixels(path) == inlined).all()
    assert_every_parameter_stands_in(page)


def assert_every_parameter_stands_in(page: Page) -> None:
    """Every parameter appears by name, with its shape and with numbers that read back to the bit."""
    rows = {row[0]: row for row in page.rows}
    for subject in subjects.published():
        for name, tensor in subject.fitted.model.named_parameters():
            _, shape, values, gradient = rows[name]
            assert shape == str(list(tensor.shape))
            read = np.array(values.split(", "), dtype=np.float32)
            assert read.tobytes() == tensor.detach().numpy().tobytes()
            assert len(gradient.split(", ")) == tensor.numel()


def test_many_readings(tmp_path: Path) -> None:
    """A report of many readings says how it was made: how many were left out, by hash, seed, split and version."""
    page = written(subjects.crowd(), tmp_path)
    fitted = subjects.crowd()[0].fitted
    assert fitted.dataset.sha256 in page.text
    assert "fitted anew to 100 of the 130 readings" in page.text
    rows = {row[0]: row[-1] for row in page.rows}
    assert rows["readings"] == "130, crowd.csv"
    assert rows["linear model"] == f"seed 0, adam at 0.01, {subjects.EPOCHS} epochs on all training rows at once"
    assert "104 to train on, 26 held out" in rows["split"]
    assert rows["torch"]
    assert rows["Python"]


# Numbers and findings -------------------------------------------------------------------------------------------------


@BOTH
def test_measures_are_the_evaluations(make: Callable[[], Subjects]) -> None:
    """Every number of the table is the one that evaluation found, or that the model itself answers."""
    pair = make()
    found = {name: measure.values for name, measure in report_page.measures(pair).items()}
    for place, subject in enumerate(pair):
        rows = subject.fitted.split.training
        residuals = (
            subject.fitted.model.predict(subject.fitted.dataset.features[rows]) - (subject.fitted.dataset.celsius[rows])
        )
        assert found["training"][place] == pytest.approx(np.mean(residuals**2))
        assert found["validation"][place] == pytest.approx(subject.fitted.validation_loss)
        assert found["left out"][place] == pytest.approx(np.mean(subject.left_out.residuals**2))
        assert found["left out, worst"][place] == pytest.approx(np.abs(subject.left_out.residuals).max())
        assert found["interval"][place] == subject.evaluation.interval.half_width_celsius
        assert found["parameters"][place] == (2, 25)[place]


@pytest.mark.parametrize(
    ("values", "less_is_better", "best"),
    [((1.0, 2.0), True, 0), ((2.0, 1.0), True, 1), ((1.001, 1.002), True, None), ((1.0, 2.0), False, None)],
)
def test_the_better_is_marked(values: tuple[float, ...], best: int | None, *, less_is_better: bool) -> None:
    """The lower error is marked, unless both are written alike or lower is not better."""
    assert Measure("error", "°C", values, 2, less_is_better).best == best


def with_errors(subject: Subject, *, training: float, left_out: float, law: float, validation: float) -> Subject:
    """A subject with other errors: mean squared ones in °C², and the mean error against the law in °C."""
    evaluation = subject.evaluation
    known = subject.law
    return dataclasses.replace(
        subject,
        evaluation=dataclasses.replace(
            evaluation,
            training=dataclasses.replace(evaluation.training, mean_squared_error=training),
            validation=dataclasses.replace(evaluation.validation, mean_squared_error=validation),
            left_out=dataclasses.replace(
                evaluation.left_out,
                errors=dataclasses.replace(evaluation.left_out.errors, mean_squared_error=left_out),
            ),
            law=dataclasses.replace(
                known, readings_range=dataclasses.replace(known.readings_range, mean_absolute_error=law)
            ),
        ),
    )


@pytest.mark.parametrize(
    ("training", "left_out", "law", "validation", "expected"),
    [
        # the published case: lower on its own readings and on the two held out, higher where it counts
        (2.1, 5.2, 1.2, 2.0, ("it overfits", "error and the error against the exact law show it", "loss does not.")),
        (2.1, 5.2, 1.2, 9.0, ("it overfits", "show it", "the validation loss shows it too.")),
        (2.1, 5.2, 0.8, 2.0, ("it overfits", "The leave-one-out error shows it", "exact law it is not materially")),
        (2.1, 4.0, 1.2, 2.0, ("it overfits", "The error against the exact law shows it", "leave-one-out error it is")),
        (2.1, 4.1, 0.85, 2.0, ("no sign of overfitting", "not materially worse")),
        (3.1, 5.2, 1.2, 9.0, ("no sign of overfitting", "does not even fit its own readings better")),
    ],
)
def test_the_conclusion_follows_from_the_numbers(
    training: float, left_out: float, law: float, validation: float, expected: tuple[str, ...]
) -> None:
    """Overfit is what is lower on its own readings and materially higher elsewhere; the page says where it shows."""
    simple, flexible = subjects.published()
    said = report_page.overfit(
        with_errors(simple, training=2.9, left_out=4.0, law=0.8, validation=3.9),
        with_errors(flexible, training=training, left_out=left_out, law=law, validation=validation),
    )
    assert all(words in said for words in expected), said


def test_two_readings_are_too_few() -> None:
    """The finding about the two readings held out says that they are too few; about 26 it does not."""
    assert "2 readings are too few" in " ".join(report_page.findings(*subjects.published()))
    assert "too few" not in " ".join(report_page.findings(*subjects.crowd()))


def test_the_guess_at_212_is_told() -> None:
    """The findings state what each model answers at 212 °F."""
    pair = subjects.published()
    said = report_page.beyond(pair)
    for subject in pair:
        answer = subject.fitted.model.predict(np.array([[212.0]]))[0]
        assert f"the {subject.name} answers {answer:.1f} °C".replace("-", "−") in said


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([1.0, 1.5] * 50, ("between 1.00 and 1.50 °C²", "edge of stability")),
        (list(np.linspace(2, 1, 100)), ("between 1.00 and 2.00 °C².",)),
        ([1.0, 1.01] * 50, ()),
    ],
)
def test_a_validation_loss_that_swings_is_told(last: list[float], expected: tuple[str, ...]) -> None:
    """A validation loss that has not come to rest is said to swing or to move; one at rest goes without saying."""
    subject = subjects.published()[1]
    history = dataclasses.replace(subject.fitted.history, validation=np.array([9.0, *last]))
    moved = dataclasses.replace(subject, fitted=dataclasses.replace(subject.fitted, history=history))
    said = report_page.swing(moved)
    assert (said is None) == (not expected)
    assert all(words in str(said) for words in expected)
    assert ("edge" in str(said)) == ("edge of stability" in expected)


@BOTH
def test_the_formula_is_the_linear_model(make: Callable[[], Subjects]) -> None:
    """The linear model in plain °F, read as a formula, answers as the model does; an MLP has none."""
    simple, flexible = make()
    text = report_page.formula(simple)
    assert text is not None
    slope, _, _, sign, intercept = text.removeprefix("C = ").replace("−", "-").split()
    answers = float(slope) * np.array([32.0, 50.0, 98.6]) + float(sign + intercept)
    np.testing.assert_allclose(answers, simple.answer(np.array([32.0, 50.0, 98.6])), atol=2e-3)
    assert report_page.formula(flexible) is None


# The command ----------------------------------------------------------------------------------------------------------


def run(*words: str) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.run(parser.parse_args(words))


def few_epochs(kind: Kind, *, built_in: bool) -> FitOptions:
    """The default options, cut short."""
    return dataclasses.replace(default_options(kind, built_in=built_in), epochs=20)


def test_the_command_reads_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quicksilver report --data` fits both models to the file's readings and prints what it wrote."""
    monkeypatch.setattr(report, "default_options", few_epochs)
    readings = tmp_path / "readings.csv"
    readings.write_text("f,c\n32,0.5\n50,9.8\n68,20.1\n86,30.4\n104,39.7\n", encoding="utf-8")
    assert run("--data", str(readings), "--features", "f", "--target", "c", "--output", str(tmp_path / "out")) == 0
    page, *_ = (Path(line) for line in capsys.readouterr().out.splitlines())
    text = Page(page.read_text(encoding="utf-8")).text
    assert "A line and a network on 5 readings" in text
    assert "80% (method: jackknife-minmax)" in text


def test_several_columns_are_refused(tmp_path: Path) -> None:
    """Data of several columns is refused before anything is fitted: there is no exact law to draw beside it."""
    readings = tmp_path / "readings.csv"
    readings.write_text("a,b,celsius\n1,2,3\n2,3,4\n3,5,6\n4,4,9\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"readings\.csv: the report is of one column in °F, not of a, b"):
        run("--data", str(readings), "--features", "a,b", "--output", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_coverage_out_of_reach_is_refused(tmp_path: Path) -> None:
    """Eleven readings cannot show a coverage of 99 %: refused before anything is fitted or written."""
    with pytest.raises(CoverageError, match=r"11 samples support an interval of coverage 0\.9167 at most"):
        run("--coverage", "0.99", "--output", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_interval_stated_is_the_models() -> None:
    """The page's interval is the one that would be written into the model's file."""
    drawn = report_page.content(subjects.published(), {})
    stated = [entry["interval"] for entry in drawn["subjects"]]
    assert stated == [each.evaluation.interval for each in subjects.published()]
    assert all(isinstance(each, Interval) and each.coverage == 0.8 for each in stated)

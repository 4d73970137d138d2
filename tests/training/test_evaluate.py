"""Errors in numbers: against the readings, against the law, and the two models side by side."""

import dataclasses
import json

import numpy as np
import pytest

from tests.training.conftest import MakeReadings
from training import law
from training.dataset import Dataset, Split, seeded_split
from training.evaluate import Evaluation, as_json, evaluate, table, verdict
from training.fit import Fitted, train
from training.leave_one_out import LeaveOneOut, leave_one_out
from training.metrics import Errors, errors, law_report, wide_range
from training.options import Architecture, FitOptions
from training.terminal import console


@pytest.fixture(scope="session")
def evaluations(
    linear: Fitted, mlp: Fitted, linear_left_out: LeaveOneOut, mlp_left_out: LeaveOneOut
) -> tuple[Evaluation, Evaluation]:
    """The linear model and the MLP as published, judged."""
    return evaluate(linear, linear_left_out, 0.8), evaluate(mlp, mlp_left_out, 0.8)


def test_errors_are_what_they_are_named_for() -> None:
    """Of residuals -3, 1, 2: mean square 14/3, mean absolute 2, worst 3."""
    assert dataclasses.astuple(Errors.of(np.array([-3.0, 1.0, 2.0]))) == pytest.approx((14 / 3, 2.0, 3.0))


def test_errors_of_rows_are_those_of_the_fit(linear: Fitted) -> None:
    """The mean squared error of the training rows is the training loss, that of the others the validation loss."""
    assert errors(linear, linear.split.training).mean_squared_error == linear.training_loss
    assert errors(linear, linear.split.validation).mean_squared_error == linear.validation_loss


def test_law_errors_of_a_line_are_those_of_calculus(linear: Fitted) -> None:
    """Two lines differ linearly, so their mean and worst distance over a range are known exactly."""
    report = law_report(linear)
    assert report is not None
    slopes, intercept = linear.model.affine()
    ends = np.array([33.9, 81.9])
    differences = np.abs(slopes[0] * ends + intercept - law.celsius(ends))
    assert report.training_range.mean_absolute_error == pytest.approx(differences.mean(), abs=1e-4)
    assert report.training_range.worst_error == pytest.approx(differences.max(), abs=1e-4)
    assert (report.readings_range.low_fahrenheit, report.readings_range.high_fahrenheit) == (21.8, 81.9)


def test_outside_leaves_the_training_range_out(mlp: Fitted) -> None:
    """Outside means -40 … 220 °F less the training range, where a saturated MLP is tens of degrees off."""
    report = law_report(mlp)
    assert report is not None
    assert (report.outside.low_fahrenheit, report.outside.high_fahrenheit) == (-40.0, 220.0)
    assert report.outside.worst_error > 60.0
    assert report.training_range.worst_error < 5.0


def test_wide_range_stops_at_absolute_zero() -> None:
    """The range beyond reaches -40 … 220 °F at least, a range's width on either side, and stops at zero kelvin."""
    assert wide_range(33.9, 81.9) == (-40.0, 220.0)
    assert wide_range(0.0, 300.0) == (-300.0, 600.0)
    assert wide_range(-400.0, 300.0) == (-459.67, 1000.0)


def test_there_is_no_law_for_several_columns(two_columns: Dataset) -> None:
    """Where the input is more than °F no exact law is known, and none is made up."""
    fitted = train(two_columns, seeded_split(30, 0), Architecture("linear"), FitOptions(20, 1e-2, "adam"))
    evaluation = evaluate(fitted, leave_one_out(fitted), 0.8)
    assert evaluation.law is None
    assert "law" not in rendered((evaluation,))


def test_overfit_shows_where_it_shows_and_nowhere_else(evaluations: tuple[Evaluation, Evaluation]) -> None:
    """The MLP wins on training and validation loss, and loses on leave-one-out and against the law."""
    linear, mlp = evaluations
    assert linear.law is not None
    assert mlp.law is not None
    assert mlp.training.mean_squared_error < linear.training.mean_squared_error
    assert mlp.validation.mean_squared_error < linear.validation.mean_squared_error
    assert mlp.left_out.errors.mean_squared_error > linear.left_out.errors.mean_squared_error
    assert mlp.law.readings_range.mean_absolute_error > linear.law.readings_range.mean_absolute_error
    assert mlp.law.outside.mean_absolute_error > 10 * linear.law.outside.mean_absolute_error


def test_linear_error_against_the_law_is_the_known_one(evaluations: tuple[Evaluation, Evaluation]) -> None:
    """0.83 °C over 21.8 … 81.9 °F, as in the facts of the problem."""
    law_errors = evaluations[0].law
    assert law_errors is not None
    assert law_errors.readings_range.mean_absolute_error == pytest.approx(0.83, abs=0.01)


def test_verdict_says_both_sides(evaluations: tuple[Evaluation, Evaluation]) -> None:
    """The verdict names where the MLP is worse and where it is not, from the numbers."""
    said = "\n".join(verdict(evaluations))
    worse, better = said.split("no worse")
    assert "leave-one-out" in worse
    assert "against the law" in worse
    assert "validation loss" in better
    assert verdict(evaluations[:1]) == []


def rendered(evaluations: tuple[Evaluation, ...]) -> str:
    """The table as a pipe gets it."""
    terminal = console()
    with terminal.capture() as captured:
        terminal.print(table(evaluations, "made up [bold]"))
    return captured.get()


def test_table_has_a_column_each_and_stays_in_one_piece(evaluations: tuple[Evaluation, Evaluation]) -> None:
    """Labels to the left, a column a model, no line broken and no markup read out of a file's name."""
    lines = rendered(evaluations).splitlines()
    assert lines[0].strip() == "made up [bold]"
    assert lines[1].split() == ["linear", "mlp"]
    assert lines[2].split() == ["parameters", "2", "25"]
    assert max(map(len, lines)) <= 120
    assert all(len(line.split()) >= 3 for line in lines[2:])


def test_json_holds_all_that_the_table_shows(evaluations: tuple[Evaluation, Evaluation]) -> None:
    """The JSON is a list with an object each, the residuals and the interval among it."""
    linear, _ = json.loads(as_json(evaluations))
    assert linear["kind"] == "linear"
    assert len(linear["left_out"]["residuals"]) == 11
    assert linear["interval"]["method"] == "jackknife-minmax"
    assert linear["law"]["outside"]["worst_error"] > 0


def test_leave_one_out_agrees_with_least_squares(make_readings: MakeReadings) -> None:
    """Leave-one-out of a converged linear fit is that of exact least squares, which has a closed formula."""
    readings = make_readings(20.0, 90.0, rows=12)
    design = np.column_stack([np.ones(12), readings.features[:, 0]])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    exact = (hat @ readings.celsius - readings.celsius) / (1.0 - np.diag(hat))
    fitted = train(readings, seeded_split(12, 0), Architecture("linear"))
    assert leave_one_out(fitted).residuals == pytest.approx(exact, abs=0.01)


def test_split_is_named_for_the_record() -> None:
    """A split that somebody made by hand says so."""
    assert Split(np.array([0, 1]), np.array([2])).name == "custom"

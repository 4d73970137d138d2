"""Stacked fits: each member goes exactly where it would go alone."""

import dataclasses

import numpy as np
import pytest

from training.dataset import Dataset, Split, seeded_split
from training.ensemble import Histories, fit_together
from training.errors import DivergedError
from training.fit import Fitted, train
from training.leave_one_out import MAXIMUM_REFITS, LeaveOneOut, leave_one_out
from training.models import Converter, build_for
from training.options import OPTIMIZERS, Architecture, FitOptions, Optimizer


def parameters_of(model: Converter) -> np.ndarray:
    """All parameters in one row."""
    return np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])


def assert_alike(together: Converter, alone: Converter) -> None:
    """The parameters agree to float32 rounding, grown a little over the epochs."""
    assert parameters_of(together) == pytest.approx(parameters_of(alone), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_seeds_together_go_where_they_go_alone(readings: Dataset, split: Split, optimizer: Optimizer) -> None:
    """The published MLP from several seeds: losses and parameters as from one loop a seed, under any optimizer."""
    seeds, options = (3, 4, 5), FitOptions(300, 1e-3, optimizer)
    alone = [train(readings, split, Architecture("mlp"), dataclasses.replace(options, seed=seed)) for seed in seeds]
    models = [build_for(readings, split.training, Architecture("mlp"), seed, options.optimizer) for seed in seeds]
    histories = fit_together(models, readings, [split] * len(seeds), options)
    for member, fitted in enumerate(alone):
        assert histories.training[:, member] == pytest.approx(fitted.history.training, rel=1e-3)
        assert histories.validation[:, member] == pytest.approx(fitted.history.validation, rel=1e-3, abs=1e-3)
        assert_alike(models[member], fitted.model)


def test_whole_published_run_is_the_same_together(mlp: Fitted, mlp_histories: Histories) -> None:
    """A member goes the loop's way over all 5,000 epochs, beside members that go elsewhere.

    To the digit for 1,000 epochs; at the end by the mean of two neighbouring epochs: see `training.ensemble` on swings.
    """
    for together, alone in (
        (mlp_histories.training, mlp.history.training),
        (mlp_histories.validation, mlp.history.validation),
    ):
        assert together[:1000, 0] == pytest.approx(alone[:1000], rel=1e-4)
        assert together[-2:, 0].mean() == pytest.approx(alone[-2:].mean(), rel=1e-3)
    assert len(set(mlp_histories.training[-1].round(6))) == 20


@pytest.mark.parametrize("kind", ["linear", "quadratic", "mlp"])
def test_members_have_rows_and_scalings_of_their_own(two_columns: Dataset, kind: str) -> None:
    """Each member is standardised over its own rows and fitted to them, whatever the others have."""
    splits = [seeded_split(len(two_columns), seed) for seed in range(3)]
    options, architecture = FitOptions(200, 1e-2, "adam"), Architecture(kind)  # type: ignore[arg-type] # a kind
    alone = [train(two_columns, split, architecture, options) for split in splits]
    models = [build_for(two_columns, split.training, architecture) for split in splits]
    fit_together(models, two_columns, splits, options)
    for model, fitted in zip(models, alone, strict=True):
        assert_alike(model, fitted.model)


def test_one_diverging_member_stops_all(readings: Dataset, split: Split) -> None:
    """A member whose loss explodes is an error, told as for one fit."""
    models = [build_for(readings, split.training, Architecture("linear"), seed) for seed in range(3)]
    with pytest.raises(DivergedError, match="smaller learning rate"):
        fit_together(models, readings, [split] * 3, FitOptions(200, 1.0))


def test_progress_hears_the_mean_losses(readings: Dataset, split: Split) -> None:
    """The observer is told of every epoch, and of no validation loss where there are no validation rows."""
    seen: list[tuple[int, float, float]] = []
    bare = Split(split.training, split.validation[:0])
    models = [build_for(readings, split.training, Architecture("linear"), seed) for seed in range(2)]
    histories = fit_together(models, readings, [bare] * 2, FitOptions(7, 1e-2), lambda *told: seen.append(told))
    assert [loss for _, loss, _ in seen] == pytest.approx(histories.training.mean(axis=1).tolist())
    assert len(seen) == 7
    assert all(np.isnan(loss) for _, _, loss in seen)


# Leave-one-out --------------------------------------------------------------------------------------------------------


def test_leave_one_out_is_a_refit_without_each_row(linear: Fitted, linear_left_out: LeaveOneOut) -> None:
    """Each refit is the loop's own on the other ten rows, and its residual is that of the row left out."""
    assert linear_left_out.rows.tolist() == list(range(11))
    for row in (0, 3, 10):
        others = np.delete(np.arange(11), row)
        alone = train(linear.dataset, Split(others, np.array([row])), linear.architecture, linear.options)
        assert_alike(linear_left_out.refits[row], alone.model)
        answer = alone.model.predict(linear.dataset.features[[row]])[0]
        assert linear_left_out.residuals[row] == pytest.approx(answer - linear.dataset.celsius[row], abs=2e-3)


def test_leave_one_out_never_sees_the_row(two_columns: Dataset) -> None:
    """A row with an absurd truth changes every refit but the one that leaves it out."""
    options, split = FitOptions(50, 1e-2, "adam"), seeded_split(len(two_columns), 0)
    absurd = two_columns.celsius.copy()
    absurd[4] = 1e4
    changed = Dataset(two_columns.features.copy(), absurd, two_columns.columns, "absurd")
    before = leave_one_out(train(two_columns, split, Architecture("linear"), options)).refits
    after = leave_one_out(train(changed, split, Architecture("linear"), options)).refits
    same = [row for row in range(30) if np.array_equal(parameters_of(before[row]), parameters_of(after[row]))]
    answers = [refits[4].predict(two_columns.features) for refits in (before, after)]
    assert 4 in same
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)
    assert len(same) < 30


def test_leave_one_out_of_much_data_draws_rows_under_the_seed() -> None:
    """Beyond a hundred rows, a hundred are drawn, the same for the same seed."""
    random = np.random.default_rng(0)
    values = random.uniform(20.0, 90.0, 150)
    readings = Dataset(values[:, None], values + random.normal(size=150), ("fahrenheit",), "made up")
    fitted = train(readings, seeded_split(150, 0), Architecture("linear"), FitOptions(2, 1e-2))
    first, again = leave_one_out(fitted), leave_one_out(fitted)
    assert len(first.residuals) == len(first.refits) == len(set(first.rows.tolist())) == MAXIMUM_REFITS
    assert first.rows.tolist() == again.rows.tolist()

"""The reproduction: judged by rule, from any seed, and shown beside the published figures."""

import numpy as np
import pytest

from training import cli, reproduce
from training.dataset import Dataset, Split
from training.ensemble import Histories
from training.reproduce import (
    PUBLISHED_LINE,
    PUBLISHED_LINEAR,
    PUBLISHED_MLP,
    PUBLISHED_MLP_ANSWERS,
    Line,
    Losses,
    MlpRuns,
    judge,
    least_squares,
    losses_at,
    mean_squared_error,
    run_linear,
)


@pytest.mark.parametrize(
    ("training", "validation", "passed"),
    [
        (2.8569, 3.9105, True),
        (2.8569 + 0.0099, 3.9105 - 0.0499, True),
        (2.8569 - 0.0099, 3.9105 + 0.0499, True),
        (2.8569 + 0.0101, 3.9105, False),
        (2.8569 - 0.0101, 3.9105, False),
        (2.8569, 3.9105 + 0.0501, False),
        (2.8569, 3.9105 - 0.0501, False),
        (float("nan"), 3.9105, False),
    ],
)
def test_verdict_is_the_stated_tolerance(training: float, validation: float, *, passed: bool) -> None:
    """Training loss within 0.01 and validation loss within 0.05 of the published ones at epoch 3,000: both."""
    assert judge({3000: Losses(training, validation)}).passed is passed


@pytest.mark.parametrize("seed", range(10))
def test_linear_run_reproduces_from_any_seed(seed: int) -> None:
    """Each of the seeds 0 to 9 passes; none was looked for."""
    assert judge(losses_at(run_linear(seed), [3000])).passed


def test_exact_optima_are_the_known_ones(readings: Dataset, split: Split) -> None:
    """Weight, bias and losses of least squares on the nine samples and on all eleven, to five places."""
    everything = np.arange(11)
    nine, eleven = least_squares(readings, split.training), least_squares(readings, everything)
    assert nine == pytest.approx((5.52930, -18.52059), abs=5e-6)
    assert mean_squared_error(nine, readings, split.training) == pytest.approx(2.83856, abs=5e-6)
    assert mean_squared_error(nine, readings, split.validation) == pytest.approx(4.48762, abs=5e-6)
    assert eleven == pytest.approx((5.36772, -17.30479), abs=5e-6)
    assert mean_squared_error(eleven, readings, everything) == pytest.approx(2.92765, abs=5e-6)


def test_published_figures_agree_with_each_other(readings: Dataset, split: Split) -> None:
    """The published parameters have the published losses: no figure here is mistyped."""
    losses = [mean_squared_error(PUBLISHED_LINE, readings, rows) for rows in (split.training, split.validation)]
    assert losses == pytest.approx(list(PUBLISHED_LINEAR[3000]), abs=2e-3)
    assert isinstance(PUBLISHED_LINE, Line)


def test_published_mlp_lies_among_ours(mlp_histories: Histories) -> None:
    """At each published epoch the published losses are of the order that twenty seeds give."""
    for epoch, published in PUBLISHED_MLP.items():
        ours = mlp_histories.training[epoch - 1]
        assert ours.min() * 0.9 <= published.training <= ours.max() * 1.1
        assert mlp_histories.validation[epoch - 1].max() >= published.validation


def test_answers_held_out_have_the_losses_held_out(readings: Dataset, split: Split, mlp_runs: MlpRuns) -> None:
    """The published answers to the two readings held out have the published loss, and ours have ours."""
    errors = np.array(PUBLISHED_MLP_ANSWERS) - readings.celsius[split.validation]
    assert np.mean(errors**2) == pytest.approx(PUBLISHED_MLP[5000].validation, abs=2e-3)
    assert mlp_runs.answers.shape == (20, 2)
    losses = np.mean((mlp_runs.answers - readings.celsius[split.validation]) ** 2, axis=1)
    assert np.median(losses) == pytest.approx(np.median(mlp_runs.histories.validation[-2:]), rel=0.2)


def test_command_prints_the_figures_and_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mlp_runs: MlpRuns
) -> None:
    """The published figures stand beside ours, with the exact optimum and the verdict; the exit code is 0."""
    monkeypatch.setattr(reproduce, "run_mlp", lambda *_: mlp_runs)  # made once for all these tests
    assert cli.main(["reproduce", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    for figure in (4.8053, 3.9105, 5.4319, -17.9693, 2.9653, 2.0215, -1.9930, 20.8729):
        assert f"{figure:.4f}" in printed
    for place, published in enumerate(PUBLISHED_MLP_ANSWERS):
        median = np.median(mlp_runs.answers[:, place])
        assert f"{median:.4f}" in printed
        assert f"{median - published:+.4f}" in printed
    median = np.median(mlp_runs.histories.training[4999])
    assert f"{median - PUBLISHED_MLP[5000].training:+.4f}" in printed
    assert "5.52930" in printed
    assert "2.83856" in printed
    assert "of 20" in printed
    assert "Reproduced" in printed


def test_command_fails_out_of_tolerance(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mlp_runs: MlpRuns
) -> None:
    """A run that is out of tolerance ends with exit code 1, and says by how much."""
    monkeypatch.setattr(reproduce, "run_mlp", lambda *_: mlp_runs)  # as above
    monkeypatch.setattr(reproduce, "TRAINING_TOLERANCE", 1e-9)
    assert cli.main(["reproduce", "--seed", "1"]) == 1
    assert "NOT REPRODUCED" in capsys.readouterr().out


def test_fewer_than_twenty_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A distribution takes twenty seeds at least."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["reproduce", "--mlp-seeds", "19"])
    assert caught.value.code == 2
    assert "from 20" in capsys.readouterr().err

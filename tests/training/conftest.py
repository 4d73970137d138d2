"""The published fits, made once a session, readings of any shape, and places to retrain in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proto.artefact import Interval
from tests.training.place import Place
from training import law
from training.dataset import FAHRENHEIT, Dataset, Split, built_in, published_split
from training.ensemble import Histories
from training.export import export
from training.fit import Fitted, train
from training.leave_one_out import LeaveOneOut, leave_one_out
from training.options import Architecture
from training.reproduce import MlpRuns, run_mlp

INTERVAL = Interval(3.5, 0.8, "jackknife-minmax")
MakeReadings = Callable[..., Dataset]


@pytest.fixture(scope="session")
def readings() -> Dataset:
    """The eleven built-in readings."""
    return built_in()


@pytest.fixture(scope="session")
def split() -> Split:
    """The first published split."""
    return published_split()


@pytest.fixture(scope="session")
def linear(readings: Dataset, split: Split) -> Fitted:
    """The linear model as published, seed 0. Shared: not to be changed."""
    return train(readings, split, Architecture("linear"))


@pytest.fixture(scope="session")
def mlp(readings: Dataset, split: Split) -> Fitted:
    """The tanh MLP as published, seed 0. Shared: not to be changed."""
    return train(readings, split, Architecture("mlp"))


@pytest.fixture(scope="session")
def linear_left_out(linear: Fitted) -> LeaveOneOut:
    """Leave-one-out of `linear`."""
    return leave_one_out(linear)


@pytest.fixture(scope="session")
def mlp_left_out(mlp: Fitted) -> LeaveOneOut:
    """Leave-one-out of `mlp`."""
    return leave_one_out(mlp)


@pytest.fixture(scope="session")
def mlp_runs() -> MlpRuns:
    """The MLP as published from the seeds 0 … 19, stacked."""
    return run_mlp(range(20))


@pytest.fixture(scope="session")
def mlp_histories(mlp_runs: MlpRuns) -> Histories:
    """The losses of `mlp_runs`."""
    return mlp_runs.histories


@pytest.fixture(scope="session")
def linear_file(linear: Fitted) -> bytes:
    """`linear`, exported."""
    return export(linear, INTERVAL)


@pytest.fixture(scope="session")
def mlp_file(mlp: Fitted) -> bytes:
    """`mlp`, exported."""
    return export(mlp, INTERVAL)


@pytest.fixture(scope="session")
def make_readings() -> MakeReadings:
    """Makes noisy readings of the exact law between two temperatures in °F, under a seed."""

    def make(low: float, high: float, rows: int = 40, seed: int = 0, noise: float = 1.7) -> Dataset:
        random = np.random.default_rng(seed)
        fahrenheit = random.uniform(low, high, rows)
        celsius = law.celsius(fahrenheit) + random.normal(0.0, noise, rows)
        return Dataset(fahrenheit[:, None], celsius, (FAHRENHEIT,), "made up")

    return make


@pytest.fixture(scope="session")
def two_columns() -> Dataset:
    """Thirty readings of °F at a pressure in hPa, of which the truth depends on both, linearly and with noise."""
    random = np.random.default_rng(5)
    fahrenheit, pressure = random.uniform(20.0, 90.0, 30), random.uniform(950.0, 1050.0, 30)
    celsius = law.celsius(fahrenheit) + 0.02 * (pressure - 1000.0) + random.normal(0.0, 0.5, 30)
    return Dataset(np.column_stack([fahrenheit, pressure]), celsius, (FAHRENHEIT, "pressure"), "made up")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A fresh one."""
    return Place(tmp_path / "place")

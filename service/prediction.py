"""What a version answers for many rows, outside of any call: for live quality, and for promotion."""

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from service.loading import LoadedVersion

_RUN_ROWS: Final = 4096


def predict(version: "LoadedVersion", rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a converter answers for rows `[N]`, in °C `[N]`.

    The runs are short enough to keep nobody waiting; where rows are not independent, each has a run of its own, as
    each call has.
    """
    size = _RUN_ROWS if version.rows_independent else 1
    runs = [
        version.engine.run([rows[start : start + size].reshape(-1, 1)])[0].reshape(-1)
        for start in range(0, len(rows), size)
    ]
    return np.concatenate([*runs, np.empty(0)]).astype(np.float64)


def predict_what_it_can(version: "LoadedVersion", rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same, with NaN for each row that the version refuses; what else fails is raised."""
    from service.engine import InputsRefusedError  # noqa: PLC0415 - ONNX Runtime takes long; who only imports this waits not

    try:
        return predict(version, rows)
    except InputsRefusedError:
        if len(rows) == 1:
            return np.array([np.nan])
        middle = len(rows) // 2
        return np.concatenate([predict_what_it_can(version, part) for part in (rows[:middle], rows[middle:])])

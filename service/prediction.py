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

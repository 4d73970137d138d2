"""What bounds any server here: ONNX Runtime alone, on the rows of the workloads, and memory. MODEL. Prints JSON.

It is run by path, pinned to the servers' core, in the environment that Quicksilver is served from.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from proto.runtime import onnxruntime

_SECONDS: Final = 0.4
_ROWS: Final = (1, 32, 1_024, 65_536)
_COPY_BYTES: Final = 256 << 20


def cost_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call, over enough of them to be measured."""
    work()
    calls, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < _SECONDS:
        work()
        calls += 1
    return (time.process_time() - cpu) / calls


def main() -> None:
    """Measure, and print one line."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    runs = {}
    for rows in _ROWS:
        fahrenheit = np.linspace(35, 80, rows, dtype=np.float32).reshape(-1, 1)
        runs[str(rows)] = cost_seconds(functools.partial(session.run, ["celsius"], {"fahrenheit": fahrenheit}))
    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    seconds = cost_seconds(lambda: np.copyto(target, source))
    result = {"onnxruntime_seconds": runs, "copy_bytes_per_second": _COPY_BYTES / seconds}
    print(json.dumps(result))  # noqa: T201 - whoever started this process reads it


if __name__ == "__main__":
    main()

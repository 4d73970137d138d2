"""The one import of ONNX Runtime, with its usage reporting turned off before it happens.

ONNX Runtime's wheels send usage data home unless `ORT_DISABLE_TELEMETRY=1` stands in the environment when the module is
imported. Everybody here imports `onnxruntime` from this module; ruff refuses any other way.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

try:
    import onnxruntime  # noqa: TID251 - this is the one place
except ModuleNotFoundError as error:
    if error.name != "onnxruntime":
        raise
    raise ModuleNotFoundError(
        "ONNX Runtime is not installed: install one of the extras, 'cpu' or 'gpu' (both would collide)",
        name="onnxruntime",
    ) from None

__all__ = ["onnxruntime"]

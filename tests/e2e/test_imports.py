"""Each side runs in an environment without the packages of the other."""

import subprocess
import sys

import pytest

from tests.e2e.processes import ENVIRONMENT

BLOCK = """
import importlib.abc, importlib, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
importlib.import_module({module!r})
"""


def _import(module: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    program = BLOCK.format(module=module, blocked=blocked)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60
    )


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("service.server", {"torch", "onnx", "onnxscript", "matplotlib", "pyarrow", "training"}),
        ("service.client", {"torch", "onnx", "onnxruntime", "training"}),
        ("service.cli", {"torch", "onnx", "onnxruntime", "grpc", "training"}),
        ("training.fit", {"grpc", "prometheus_client", "structlog", "pydantic", "onnxruntime", "service"}),
        ("training.cli", {"grpc", "prometheus_client", "structlog", "pydantic", "service"}),
        ("proto.artefact", {"torch", "onnx", "onnxruntime", "numpy", "google", "grpc"}),
        ("proto.repository", {"torch", "onnx", "onnxruntime", "numpy", "google", "grpc"}),
    ],
)
def test_a_side_imports_without_the_other(module: str, blocked: set[str]) -> None:
    """Nothing of the other side's is needed to import it."""
    done = _import(module, blocked)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks() -> None:
    """The tests above can fail."""
    done = _import("service.server", {"onnxruntime"})
    assert done.returncode == 1
    assert "onnxruntime" in done.stderr

"""Any ONNX model serves: a sample of the `onnx` package's own backend test data."""

import warnings

from service.open_inference.datatypes import BY_NAME
from tests.service.open_inference import onnx_suite

OPERATORS = 25
SEED = 20_261_122

EXCUSES = (
    "ONNX Runtime cannot load it: ",
    "the protocol has no datatype for ",
    "ONNX Runtime itself ",
)
"""What begins the reason of a model that nobody could serve over this protocol with this runtime."""


def test_a_sample_of_the_onnx_packages_models_answers_right() -> None:
    """Every model that ONNX Runtime loads and the protocol can speak to gives the answer that onnx expects."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own, while it makes its cases
        cases = list(onnx_suite.sample_cases(OPERATORS, SEED))
    verdicts = onnx_suite.run(cases)
    right = [verdict for verdict in verdicts if verdict.reason == onnx_suite.RIGHT]
    wrong = [
        f"{verdict.case.name}: {verdict.reason}. {verdict.detail}"
        for verdict in verdicts
        if verdict.reason != onnx_suite.RIGHT and not verdict.reason.startswith(EXCUSES)
    ]
    assert not wrong
    assert len(right) >= len(verdicts) // 2
    assert len({case.name for case in cases}) == len(cases) >= 100
    assert set(onnx_suite.DATATYPES.values()) == set(BY_NAME)

"""Are the rows of a model independent? Its declaration is believed only where a probe agrees.

Calls share a run where they are. A model whose rows look at each other (a softmax or a mean over axis 0, a running
sum) would mix one caller's rows into another's answer; no error would show it. So a few rows are run alone, together,
in another order and in larger company, and every answer must come out bit for bit the same. That proves nothing for
all rows there are, which is why a declaration is asked for as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import structlog

from proto.artefact import Artefact
from service.engine import Graph, Tensor, TensorSpec

log = structlog.get_logger(__name__)

PROBE_ROWS: Final = 5
COMPANY_ROWS: Final = 67
"""Rows of the largest run: more than a vector register holds, and no multiple of one."""
MANY_ROWS: Final = 1009
"""Rows that a model with metadata is tried with: a prime, so that repeated they meet every place of a register."""
FREE_SIZES: Final = (2, 8, 64, 224)
"""Sizes tried for free dimensions behind the first: a graph that folds an image needs more than two pixels."""

_SEED: Final = 20_261_122


def agreed(engine: Graph, artefact: Artefact | None, *, declared: bool, model: str) -> bool:
    """Tell whether calls may share runs: the artefact's metadata or the configuration says so, and a probe agrees.

    Where the probe contradicts, the log says so, and the model is served one call a run.
    """
    if not (declared or (artefact is not None and artefact.rows_independent)):
        return False
    golden = None if artefact is None else np.array(artefact.golden.inputs, dtype=np.float32)
    reason = contradiction(engine, golden)
    if reason is not None:
        log.warning("rows are declared independent, and a probe disagrees; calls do not share runs",
                    model=model, reason=reason)  # fmt: skip
    return reason is None


def rows_for(engine: Graph, artefact: Artefact | None) -> list[Tensor] | None:
    """Rows that a graph takes, one array an input: between its golden ones, or made up; None where none are found."""
    if artefact is not None:
        golden = np.array(artefact.golden.inputs, dtype=np.float32)
        return [np.linspace(golden.min(axis=0), golden.max(axis=0), MANY_ROWS, dtype=np.float32)]
    if any(spec.dtype is None for spec in engine.inputs):
        return None
    for tensors in _candidates(engine.inputs, None):
        try:
            engine.run(tensors)
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises for numbers that were made up
            log.debug("rows that were made up cannot be run", reason=str(error))
        else:
            return tensors
    return None


def contradiction(engine: Graph, rows: Tensor | None = None) -> str | None:
    """Say what speaks against the independence of a graph's rows; None where nothing does.

    `rows` is what to run, for a graph of one input; without it, numbers are made up.
    """
    for spec in (*engine.inputs, *engine.outputs):
        if spec.dtype is None or not spec.shape or spec.shape[0] is not None:
            return f"{spec.name!r}, {spec.onnx_type} of shape {list(spec.shape)}, has no free first dimension"
    if not engine.inputs:
        return "it has no inputs"
    problem = None
    for tensors in _candidates(engine.inputs, rows):
        try:
            return _compare(engine, tensors)
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises for numbers that were made up
            problem = f"the probe cannot be run: {error}"
    return problem


def _candidates(inputs: Sequence[TensorSpec], rows: Tensor | None) -> Iterator[list[Tensor]]:
    if rows is not None:
        yield [np.resize(rows, (max(len(rows), PROBE_ROWS), *rows.shape[1:]))]
        return
    has_free = any(None in spec.shape[1:] for spec in inputs)
    for size in FREE_SIZES if has_free else FREE_SIZES[:1]:
        random = np.random.default_rng(_SEED)
        yield [_made_up(spec, size, random) for spec in inputs]


def _made_up(spec: TensorSpec, free_size: int, random: np.random.Generator) -> Tensor:
    """Rows that most graphs take: small numbers, and of whole ones 0 and 1, since they may be indices."""
    shape = (PROBE_ROWS, *(free_size if size is None else size for size in spec.shape[1:]))
    normal = random.standard_normal(shape).astype(np.float32)
    whole = random.integers(0, 2, shape)
    if spec.onnx_type == "tensor(bfloat16)":
        return (normal.view(np.uint32) >> 16).astype(np.uint16)
    if spec.dtype is np.object_:
        return whole.astype(str).astype(np.object_)
    if spec.dtype is not None and issubclass(spec.dtype, np.floating):
        return normal.astype(spec.dtype)
    return whole.astype(spec.dtype)


def _compare(engine: Graph, tensors: list[Tensor]) -> str | None:
    """Run rows alone and in company; say where an answer differs. Raises what ONNX Runtime raises."""
    count = len(tensors[0])
    alone = [engine.run([tensor[row : row + 1] for tensor in tensors]) for row in range(count)]
    backwards = list(reversed(range(count)))
    company = [index % count for index in range(COMPANY_ROWS)]
    for order in (list(range(count)), backwards, [0, 0], company, company[::-1]):
        together = engine.run([np.ascontiguousarray(tensor[order]) for tensor in tensors])
        for spec, *answers in zip(engine.outputs, together, *alone, strict=True):
            if problem := _difference(spec, order, answers[0], answers[1:]):
                return problem
    return None


def _difference(spec: TensorSpec, order: list[int], together: Tensor, alone: Sequence[Tensor]) -> str | None:
    if together.ndim == 0 or len(together) != len(order) or any(len(answer) != 1 for answer in alone):
        return f"output {spec.name!r} has shape {list(together.shape)} for {len(order)} rows"
    for place, row in enumerate(order):
        if not _same(together[place], alone[row][0]):
            return f"output {spec.name!r} of a row differs with the rows beside it, in a run of {len(order)}"
    return None


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - an array, or the one element that a row holds
    """Whether two rows are the same, bit for bit; NaN is the same as itself."""
    first, second = np.asarray(one), np.asarray(other)
    if first.dtype == np.object_:
        return bool(first.tolist() == second.tolist())
    return first.shape == second.shape and first.tobytes() == second.tobytes()

"""Writes a fitted converter as one ONNX file: the graph with its weights, and the artefact's metadata inside.

The same fit gives the same bytes. What PyTorch's exporter notes about the source code (paths, stack traces)
is left out.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import torch

from proto.artefact import OUTPUT_NAME, Interval, input_name, to_metadata
from training import places
from training.describe import describe
from training.errors import ExportError
from training.fit import Fitted
from training.models import Converter
from training.parity import check_golden, one_line, prove

OPSET: Final = 20
"""The ONNX operator set the graph is written in."""


def export(fitted: Fitted, interval: Interval | None) -> bytes:
    """Export a fitted converter, prove that the file answers as the model does, and return the file.

    Raises:
        ExportError: the file is no valid ONNX model, or its answers are not the model's.
    """
    graph = to_onnx(fitted.model)
    parity = prove(fitted, graph.SerializeToString(deterministic=True))
    artefact = describe(fitted, interval, parity)
    onnx.helper.set_model_props(graph, to_metadata(artefact))
    check(graph)
    model = graph.SerializeToString(deterministic=True)
    check_golden(model, artefact.golden)
    return model


def to_onnx(model: Converter) -> onnx.ModelProto:
    """The bare graph: input `fahrenheit` (or `features`) float32 [rows, N_in], output `celsius` float32 [rows, 1]."""
    with _quiet_exporter():
        program = torch.onnx.export(
            model.eval(),
            (torch.zeros(2, model.n_inputs),),
            input_names=[input_name(model.n_inputs)],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            verbose=False,
        )
    if program is None:
        raise ExportError("PyTorch's exporter returned no program")
    graph: onnx.ModelProto = program.model_proto
    _forget_source(graph)
    return graph


def check(graph: onnx.ModelProto, called: str = "the exported file") -> None:
    """Raise ExportError, about a file `called` so, unless a graph is a valid ONNX model, shapes and types included."""
    try:
        onnx.checker.check_model(graph, full_check=True)
    except Exception as error:  # the checker's own, shape inference's, and what C++ raises from within either
        raise ExportError(f"{called} is not a valid ONNX model: {one_line(error)}") from error


def write(path: Path, model: bytes) -> None:
    """Write a model file whole or not at all, over whatever stood there.

    Raises:
        OSError: it cannot be written; the error names `path`, whichever file it was that the system refused.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        places.replace_file(path, model)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes to itself: on torchvision, which is not used, and on torch's own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
            yield
    finally:
        logger.setLevel(level)


def _forget_source(graph: onnx.ModelProto) -> None:
    """Drop the notes on each node about the Python code it came from: paths of this machine, and unequal bytes."""
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.initializer, graph.graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("metadata_props")

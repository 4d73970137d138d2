"""The exported file: one file that answers as the model does, and says what it is."""

import copy
import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from proto.artefact import Artefact, from_metadata
from proto.runtime import onnxruntime
from tests.training.conftest import INTERVAL, MakeReadings
from training import export as exporting
from training.dataset import Dataset, seeded_split
from training.describe import git_commit, histogram
from training.errors import ExportError
from training.export import OPSET, export, to_onnx, write
from training.fit import Fitted, train
from training.options import ACTIVATIONS, Activation, Architecture, FitOptions
from training.parity import BATCHES, Engine, allowed, check_golden, prove, wide_range

QUICK = FitOptions(200, 1e-2, "adam")


def artefact_of(model: bytes) -> Artefact:
    """What a file states of itself."""
    return from_metadata({entry.key: entry.value for entry in onnx.load_model_from_string(model).metadata_props})


def session_of(model: bytes) -> onnxruntime.InferenceSession:
    """The file in ONNX Runtime, straight from its bytes: weights that stood elsewhere would be missed."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_file_takes_plain_fahrenheit_in_any_batch(mlp: Fitted, mlp_file: bytes) -> None:
    """Input `fahrenheit` and output `celsius`, float32 [rows, 1]; any batch, none and one included."""
    session = session_of(mlp_file)
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1]) == ("fahrenheit", "tensor(float)", 1)
    assert (made.name, made.type, made.shape[1]) == ("celsius", "tensor(float)", 1)
    assert given.shape[0] == made.shape[0] == "rows"
    for rows in BATCHES:
        fahrenheit = np.linspace(-40.0, 220.0, rows, dtype=np.float32)[:, None]
        (answers,) = session.run(None, {"fahrenheit": fahrenheit})
        assert answers.shape == (rows, 1)
        assert answers[:, 0] == pytest.approx(mlp.model.predict(fahrenheit), abs=1e-5)


def test_file_is_valid_onnx_of_the_stated_opset(linear_file: bytes) -> None:
    """The checker passes it in full, its operator set is the stated one, and no weight is kept outside."""
    graph = onnx.load_model_from_string(linear_file)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in graph.graph.initializer)


def test_metadata_is_that_of_the_fit(mlp: Fitted, mlp_file: bytes) -> None:
    """Kind, seed, losses, data, domain, interval: what the file states is what was fitted."""
    artefact = artefact_of(mlp_file)
    assert artefact.kind == "mlp"
    assert (artefact.seed, artefact.epochs, artefact.parameter_count) == (0, 5000, 25)
    assert artefact.hyperparameters["learning_rate"] == 1e-3
    assert artefact.hyperparameters["split"] == "published, first"
    assert artefact.architecture["parameters"]["hidden_linear.weight"] == [8, 1]
    assert (artefact.training_loss, artefact.validation_loss) == (mlp.training_loss, mlp.validation_loss)
    assert (artefact.dataset_sha256, artefact.dataset_rows) == (mlp.dataset.sha256, 11)
    assert artefact.interval == INTERVAL
    assert artefact.torch_version == torch.__version__
    (column,) = artefact.columns
    assert (column.name, column.minimum, column.maximum) == ("fahrenheit", 33.9, 81.9)
    assert sum(column.histogram.counts) == 9
    assert artefact.rows_independent


def test_commit_is_that_of_the_checkout_and_says_where_that_is_not_all(tmp_path: Path) -> None:
    """A full hash; with `-dirty` once a file differs from it; none where the checkout does not know the source."""

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    source, other = tmp_path / "source.py", tmp_path / "other.py"
    source.write_text("")
    other.write_text("")
    git("init")
    assert git_commit(source) is None
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert git_commit(source) == head
    other.write_text("changed")
    assert git_commit(source) == f"{head}-dirty"


def test_golden_vectors_lie_inside_and_outside_and_hold(mlp: Fitted, mlp_file: bytes) -> None:
    """They are PyTorch's answers over the training range and far beyond, and the file gives them back."""
    golden = artefact_of(mlp_file).golden
    inputs = [row[0] for row in golden.inputs]
    assert sum(33.89 <= value <= 81.91 for value in inputs) >= 5
    assert min(inputs) < -40.0
    assert max(inputs) > 220.0
    assert list(golden.outputs) == mlp.model.predict(np.array(golden.inputs)).tolist()
    answers = Engine(mlp_file).answer(np.array(golden.inputs, dtype=np.float32))
    assert golden.mismatch(answers.tolist()) is None


def test_golden_vectors_catch_a_coarser_arithmetic(mlp: Fitted, mlp_file: bytes) -> None:
    """Inputs and weights rounded to TensorFloat-32's ten bits, as a careless GPU does, leave the tolerance."""
    coarse = copy.deepcopy(mlp.model)
    with torch.no_grad():
        for parameter in coarse.parameters():
            parameter.copy_((parameter.view(torch.int32) & ~0x1FFF).view(torch.float32))
    golden = artefact_of(mlp_file).golden
    assert golden.mismatch(coarse.predict(np.array(golden.inputs)).tolist()) is not None


def test_golden_vectors_of_another_model_are_refused(linear_file: bytes, mlp_file: bytes) -> None:
    """A file whose graph is not the one its metadata describes is an error that names the vector."""
    with pytest.raises(ExportError, match="golden vector"):
        check_golden(linear_file, artefact_of(mlp_file).golden)


# Parity ---------------------------------------------------------------------------------------------------------------


def test_parity_is_recorded(mlp: Fitted, mlp_file: bytes) -> None:
    """The difference in the file is the largest that is found when the proof is done again."""
    recorded = artefact_of(mlp_file).parity_max_difference_celsius
    assert recorded == prove(mlp, mlp_file).max_difference
    assert 0.0 <= recorded <= 1e-4


def test_built_in_models_keep_the_stated_tolerance(linear: Fitted, mlp: Fitted) -> None:
    """On the built-in readings the allowance for coarse arithmetic is not needed: 1e-5 + 1e-6 · |answer| is kept."""
    for fitted in (linear, mlp):
        engine = Engine(to_onnx(fitted.model).SerializeToString())
        for low, high in (fitted.training_range, wide_range(fitted)):
            fahrenheit = np.linspace(low, high, 5000).astype(np.float32)
            expected = fitted.model.predict(fahrenheit)
            assert np.all(np.abs(engine.answer(fahrenheit) - expected) <= allowed(expected, 0.0))


@pytest.mark.parametrize("shift", [2e-4, math.nan])
def test_file_that_answers_otherwise_is_refused(mlp: Fitted, shift: float) -> None:
    """A graph whose answers are off by 0.0002 °C, or are no numbers, is an error that names the input."""
    changed = copy.deepcopy(mlp.model)
    with torch.no_grad():
        changed.get_parameter("output_linear.bias").add_(shift)
    with pytest.raises(ExportError, match=r"differs from the fitted one by .* °C at input"):
        prove(mlp, to_onnx(changed).SerializeToString())


def test_tolerance_is_the_stated_one() -> None:
    """1e-5 °C and a millionth of the answer, or twice the model's own rounding where that is more."""
    assert allowed(np.array([0.0, 100.0]), 1e-6).tolist() == pytest.approx([1e-5, 1.1e-4])
    assert allowed(np.array([0.0, 100.0]), 2e-5).tolist() == pytest.approx([4e-5, 1.1e-4])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_exports(make_readings: MakeReadings, name: Activation) -> None:
    """Each activation, in two hidden layers, fitted to a wide range, comes through the parity proof."""
    readings = make_readings(-40.0, 220.0)
    fitted = train(readings, seeded_split(40, 0), Architecture("mlp", (6, 5), name), QUICK)
    artefact = artefact_of(export(fitted, None))
    assert artefact.architecture["activation"] == name
    assert artefact.architecture["hidden"] == [6, 5]
    assert artefact.interval is None


@pytest.mark.parametrize("kind", ["linear", "quadratic", "mlp"])
def test_several_columns_export(two_columns: Dataset, kind: str) -> None:
    """A model of two columns takes `features` [rows, 2] and describes each column."""
    fitted = train(two_columns, seeded_split(30, 0), Architecture(kind), QUICK)  # type: ignore[arg-type] # a kind
    model = export(fitted, None)
    (given,) = session_of(model).get_inputs()
    artefact = artefact_of(model)
    assert (given.name, given.shape) == ("features", ["rows", 2])
    assert [column.name for column in artefact.columns] == ["fahrenheit", "pressure"]
    assert all(len(row) == 2 for row in artefact.golden.inputs)


def test_constants_beside_rows_have_as_many_dimensions(
    linear: Fitted, make_readings: MakeReadings, two_columns: Dataset
) -> None:
    """No node takes rows by a number or a vector: ONNX Runtime would go through them one by one."""
    standardised = train(make_readings(-40.0, 220.0), seeded_split(40, 0), Architecture("mlp"), QUICK)
    columns = train(two_columns, seeded_split(30, 0), Architecture("quadratic"), QUICK)
    for fitted, nodes in ((linear, 1), (standardised, 4), (columns, 4)):
        graph = to_onnx(fitted.model).graph
        shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
        elementwise = [node for node in graph.node if node.op_type in {"Mul", "Div", "Sub", "Add"}]
        constants = [shapes[name] for node in elementwise for name in node.input if name in shapes]
        assert len(constants) == nodes
        assert all(len(shape) == 2 and shape[0] == 1 for shape in constants)


def test_readings_over_thousands_of_degrees_export(make_readings: MakeReadings) -> None:
    """Where float32 itself is coarser than the stated tolerance the export still proves what can be proved."""
    readings = make_readings(-450.0, 3000.0)
    fitted = train(readings, seeded_split(40, 0), Architecture("mlp", (32,)), QUICK)
    assert artefact_of(export(fitted, None)).parity_max_difference_celsius < 1e-2


# The bytes ------------------------------------------------------------------------------------------------------------


def test_same_fit_gives_the_same_bytes(linear: Fitted) -> None:
    """The same fit made and exported again gives an identical file."""
    again = train(linear.dataset, linear.split, linear.architecture, linear.options)
    files = {export(fitted, INTERVAL) for fitted in (linear, again)}
    assert len(files) == 1


def test_file_says_nothing_of_the_machine(mlp_file: bytes) -> None:
    """No path, no user and no source line of where it was made stands in the file."""
    for trace in (str(Path(exporting.__file__).parent), ".py", "stack_trace", str(Path.home())):
        assert trace.encode() not in mlp_file


def test_export_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    """Fitting and exporting print no word and raise no warning of their own or of torch's."""
    program = (
        "from training.dataset import built_in, published_split\n"
        "from training.export import export\n"
        "from training.fit import train\n"
        "from training.options import Architecture, FitOptions\n"
        "fitted = train(built_in(), published_split(), Architecture('mlp'), FitOptions(5, 1e-3))\n"
        "assert export(fitted, None)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_histogram_counts_every_value() -> None:
    """Two to ten bins of equal width from the least value to the greatest, each value counted once."""
    for rows in (2, 3, 9, 100, 5000):
        values = np.random.default_rng(rows).normal(size=rows)
        made = histogram(values)
        assert sum(made.counts) == rows
        assert (made.edges[0], made.edges[-1]) == (values.min(), values.max())
        assert 2 <= len(made.counts) <= 10


def test_invalid_graph_is_refused(linear: Fitted) -> None:
    """What the checker rejects is an export error."""
    graph = to_onnx(linear.model)
    graph.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        exporting.check(graph)


def test_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails keeps what stood there, and leaves nothing beside it."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "new" / "model.onnx"
    write(path, b"first")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_early_stopping_is_on_record(readings: Dataset, mlp: Fitted) -> None:
    """A fit that stopped early says after how many epochs, and which were kept."""
    options = FitOptions(300, 1e-3, patience=5)
    fitted = train(readings, mlp.split, Architecture("mlp"), dataclasses.replace(options, seed=2))
    artefact = artefact_of(export(fitted, None))
    assert artefact.epochs == len(fitted.history)
    assert artefact.hyperparameters["best_epoch"] == fitted.best_epoch

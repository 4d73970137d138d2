"""Publishing: only a file that is what it says goes into a repository."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from proto.artefact import PREFIX
from proto.repository import InvalidNameError, Repository
from training import cli
from training.errors import ExportError, PublishError
from training.publish import publish


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    return Repository(tmp_path / "models")


def changed(model: bytes, *, metadata: dict[str, str | None]) -> bytes:
    """The file with some keys of its metadata replaced, or removed where the value is None."""
    graph = onnx.load_model_from_string(model)
    kept = {entry.key: entry.value for entry in graph.metadata_props} | metadata
    onnx.helper.set_model_props(graph, {key: value for key, value in kept.items() if value is not None})
    return graph.SerializeToString()


def plain(model: bytes) -> bytes:
    """The graph alone, without any metadata."""
    graph = onnx.load_model_from_string(model)
    graph.ClearField("metadata_props")
    return graph.SerializeToString()


def test_published_file_is_the_exported_one(repository: Repository, linear_file: bytes, mlp_file: bytes) -> None:
    """The bytes in the repository are those of the export, under the next version of the name."""
    assert publish(repository, "linear", linear_file) == 1
    assert publish(repository, "linear", linear_file) == 2
    assert publish(repository, "mlp", mlp_file) == 1
    assert repository.model_path("linear", 2).read_bytes() == linear_file
    assert repository.labels("linear") == {"stable": 1}


def test_plain_model_needs_to_be_meant(repository: Repository, linear_file: bytes) -> None:
    """A file without our metadata is refused, unless it is said to be plain."""
    with pytest.raises(PublishError, match="--plain"):
        publish(repository, "linear", plain(linear_file))
    assert repository.names() == []
    assert publish(repository, "linear", plain(linear_file), plain=True) == 1


def test_wrong_metadata_is_refused_even_as_plain(repository: Repository, linear_file: bytes) -> None:
    """A missing key and a malformed one are named; `plain` excuses neither."""
    for key, value in (("golden", None), ("columns", "[]"), ("epochs", "many")):
        for as_plain in (False, True):
            with pytest.raises(PublishError, match=key.removesuffix("s")):
                publish(repository, "m", changed(linear_file, metadata={PREFIX + key: value}), plain=as_plain)
    assert repository.names() == []


def test_file_that_fails_its_golden_vectors_is_refused(
    repository: Repository, linear_file: bytes, mlp_file: bytes
) -> None:
    """The metadata of one model on the graph of another is found out."""
    other = {entry.key: entry.value for entry in onnx.load_model_from_string(mlp_file).metadata_props}
    with pytest.raises(ExportError, match="golden vector"):
        publish(repository, "linear", changed(linear_file, metadata={**other}))
    assert repository.names() == []


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a"])
def test_file_that_is_no_model_is_refused(repository: Repository, content: bytes) -> None:
    """Bytes that are not ONNX are named as such, as plain too."""
    for as_plain in (False, True):
        with pytest.raises((PublishError, ExportError), match=r"not an? .*ONNX model|not a valid ONNX model"):
            publish(repository, "linear", content, plain=as_plain)


def with_input_renamed(model: bytes) -> bytes:
    """The file with a graph whose input has another name."""
    graph = onnx.load_model_from_string(model)
    (given,) = graph.graph.input
    for node in graph.graph.node:
        node.input[:] = ["reading" if name == given.name else name for name in node.input]
    given.name = "reading"
    return graph.SerializeToString()


def with_wrong_shape(model: bytes) -> bytes:
    """The file with an output of a shape that its graph does not give."""
    graph = onnx.load_model_from_string(model)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    return graph.SerializeToString()


def with_operator_of_others(model: bytes) -> bytes:
    """A plain file with an operator that ONNX allows and ONNX Runtime does not know."""
    graph = onnx.load_model_from_string(plain(model))
    graph.graph.node[-1].domain = "com.example"
    graph.opset_import.add(domain="com.example", version=1)
    return graph.SerializeToString()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_wrong_shape, "the file is not a valid ONNX model: [ShapeInferenceError]"),
        (with_input_renamed, "the graph does not take 'fahrenheit' (16, 1) to 'celsius': "),
        (with_operator_of_others, "ONNX Runtime cannot load the model: "),
    ],
)
def test_file_that_cannot_be_served_is_refused_in_one_line(
    tmp_path: Path,
    linear_file: bytes,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[bytes], bytes],
    says: str,
) -> None:
    """Wrong shapes, an input of another name, an unknown operator: named before anything is written or sent."""
    path, models = tmp_path / "m.onnx", tmp_path / "models"
    path.write_bytes(change(linear_file))
    for where in (["--repository", str(models)], ["--to", "127.0.0.1:1"]):
        assert cli.main(["publish", str(path), *where, "--name", "linear", "--plain"]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"quicksilver publish: {says}")
    assert not models.exists()


def test_repository_that_cannot_be_written_is_named(tmp_path: Path, linear_file: bytes) -> None:
    """By the path that was given, not by that of a hidden file in it."""
    blocked = Repository(tmp_path / "models")
    blocked.root.write_text("not a directory")
    with pytest.raises(PublishError, match=f"^{blocked.root}: cannot be written to: "):
        publish(blocked, "linear", linear_file)


def test_token_that_is_no_token_is_refused_in_one_line(
    tmp_path: Path, linear_file: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token file in another encoding is named."""
    path, token = tmp_path / "m.onnx", tmp_path / "token"
    path.write_bytes(linear_file)
    token.write_bytes("geheim-ä".encode())
    words = ["publish", str(path), "--to", "127.0.0.1:1", "--name", "linear", "--token-file", str(token)]
    assert cli.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"quicksilver publish: {token}: a token is ASCII, unlike the byte at 7"


def test_bad_name_is_refused(repository: Repository, linear_file: bytes) -> None:
    """A name that is none publishes nothing."""
    with pytest.raises(InvalidNameError):
        publish(repository, "../linear", linear_file)


def test_command_publishes_and_says_where(
    tmp_path: Path, linear_file: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """`quicksilver publish FILE` prints the version and the repository, and refuses in one line."""
    path, models = tmp_path / "m.onnx", tmp_path / "models"
    path.write_bytes(linear_file)
    words = ["publish", str(path), "--repository", str(models), "--name", "linear"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"published linear/1 to {models}/\n"
    path.write_bytes(plain(linear_file))
    assert cli.main(words) == 1
    refused = capsys.readouterr()
    assert refused.out == ""
    assert refused.err.count("\n") == 1
    assert "--plain" in refused.err
    assert cli.main([*words, "--plain"]) == 0
    path.unlink()
    assert cli.main(words) == 1
    assert "No such file" in capsys.readouterr().err

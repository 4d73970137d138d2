"""Publishing: only a file that is what it says goes into a repository."""

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

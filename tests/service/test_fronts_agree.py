"""What one front refuses, the other refuses alike; where grpcio's own server decides otherwise, the docs say so.

The fast front is held to the same list in `tests/service/http2/test_calls.py`.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from proto.repository import Repository
from service.config import Settings
from service.server import Server
from service.status import Code
from tests.service.artefacts import make_artefact
from tests.service.http2.raw import CONVERT, Field, RawClient, framed, request
from tests.service.http2.serving import celsius, convert_body
from tests.service.http2.test_calls import BODY, REFUSED

DOCS = Path(__file__).parents[2] / "docs" / "api.md"

DIFFERS: dict[str, tuple[Code, str]] = {
    "timeout of nine digits": (Code.OK, "a `grpc-timeout` of nine digits"),
    "unknown encoding": (Code.INTERNAL, "a `grpc-encoding` that is not known"),
    "no message": (Code.UNIMPLEMENTED, "a unary request without a message, or with part of one"),
    "three bytes of a prefix": (Code.UNIMPLEMENTED, "a unary request without a message, or with part of one"),
    "truncated message": (Code.UNIMPLEMENTED, "a unary request without a message, or with part of one"),
    "two messages": (Code.OK, "two messages in a unary request"),
    "flag 2": (Code.INVALID_ARGUMENT, "a compressed-flag other than 0 and 1"),
    "flag 255": (Code.INVALID_ARGUMENT, "a compressed-flag other than 0 and 1"),
}
"""What grpcio answers, and the row of the documentation that tells it."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("linear", make_artefact())
    return repository.root


@contextlib.contextmanager
def served(models: Path, transport: Literal["http2", "grpcio"]) -> Iterator[str]:
    """A server with one of the fronts; gives its address."""
    chosen: dict[str, Any] = {"transport": transport, "listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}
    server = Server(Settings(repository=models, **chosen))
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


@pytest.fixture(scope="module")
def address(models: Path) -> Iterator[str]:
    """A server with the reference front."""
    with served(models, "grpcio") as reference:
        yield reference


CASES = [case for case in REFUSED if case[0] != "timeout already past"]
"""grpcio makes a millisecond of a nanosecond, in which a call may be answered or not; the docs say so."""


@pytest.mark.parametrize(("name", "fields", "body", "code"), CASES, ids=[case[0] for case in CASES])
def test_statuses(address: str, name: str, fields: list[Field], body: bytes, code: Code) -> None:
    """The status is the fast front's, or the one that the docs name; and somebody else is answered right."""
    expected, documented = DIFFERS.get(name, (code, ""))
    with RawClient(address) as client:
        assert client.unary(body, fields).status == expected
    assert documented in DOCS.read_text("utf-8")
    with RawClient(address) as honest:
        assert celsius(honest.unary(BODY).message) == pytest.approx([10.0])


@pytest.mark.parametrize("contenttype", ["application/json", ""])
def test_content_types(address: str, contenttype: str) -> None:
    """Whatever the content type is, grpcio answers, and the docs say so."""
    with RawClient(address) as client:
        assert client.unary(BODY, request(contenttype=contenttype)).status == Code.OK
    assert "a content type other than `application/grpc`" in DOCS.read_text("utf-8")


@pytest.mark.parametrize("fields", [request(te=""), request(method="GET")], ids=["no te", "GET"])
def test_header_fields_that_grpcio_insists_on(address: str, fields: list[Field]) -> None:
    """A request without `te`, or with another method than POST, is reset by grpcio, and the docs say so."""
    with RawClient(address) as client:
        assert client.unary(BODY, fields).reset == 2
    assert "a request without `te`" in DOCS.read_text("utf-8")


def test_answers_are_not_compressed(address: str) -> None:
    """No answer is compressed by grpcio of itself, whatever the client would take, and the docs say so."""
    with RawClient(address) as client:
        answer = client.unary(convert_body(*[50.0] * 1_000), request(CONVERT, ("grpc-accept-encoding", "gzip")))
    assert (answer.status, answer.data[0]) == (Code.OK, 0)
    assert "answers in gzip or deflate" in DOCS.read_text("utf-8")


def test_values(address: str, models: Path) -> None:
    """The same bytes from either front: the answers come from the same code."""
    values = [float(value) / 7 for value in range(-400, 2_000)]
    answers = []
    with served(models, "http2") as fast:
        for front in (address, fast):
            with RawClient(front) as client:
                answers.append(client.unary(convert_body(*values), request(CONVERT)))
    reference, quick = answers
    assert (reference.status, quick.status) == (Code.OK, Code.OK)
    assert quick.message == reference.message
    assert celsius(quick.message) == pytest.approx([(value - 32) * 5 / 9 for value in values], abs=1e-3)
    with RawClient(address) as client:
        assert client.unary(framed(b""), request(CONVERT)).status == Code.INVALID_ARGUMENT

"""Which addresses are local, and what a token's file may hold."""

from pathlib import Path

import pytest

from service.admin import Gate, TokenFileError, is_local, read_token
from service.calls import Context
from service.errors import PermissionDeniedError


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/run/quicksilver.sock", True),
        ("127.0.0.1:50051", True),
        ("127.8.8.8:50051", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("192.0.2.1:50051", False),
        ("[2001:db8::1]:50051", False),
        ("name.invalid:50051", False),
    ],
)
def test_an_address_is_local_where_only_this_machine_reaches_it(address: str, local: bool) -> None:  # noqa: FBT001 - a table
    """Loopback and Unix sockets are; an address that cannot be told is not."""
    assert is_local(address) is local


def test_one_address_that_is_not_local_closes_the_gate() -> None:
    """Where a server listens on several, all must be local."""
    Gate(["127.0.0.1:1", "unix:/x"], None).check(Context([]))
    with pytest.raises(PermissionDeniedError):
        Gate(["127.0.0.1:1", "0.0.0.0:1"], None).check(Context([]))


@pytest.mark.parametrize("content", [b"", b"short", b"two words of a sentence", b"\xff" * 20, b"line\nline line line"])
def test_a_file_without_a_token_is_refused_at_the_start(tmp_path: Path, content: bytes) -> None:
    """The error names the file, not its content."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenFileError, match="token"):
        Gate([], path).check_file()
    with pytest.raises(TokenFileError, match="No such file"):
        read_token(tmp_path / "absent")

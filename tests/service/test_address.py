"""Addresses to listen on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.address import AddressError, join_host_port, split_host_port


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("[::]:8002", ("::", 8002)),
    ],
)
def test_host_and_port_are_split_and_joined(address: str, expected: tuple[str, int]) -> None:
    """An IPv6 address loses its brackets and gets them back."""
    assert split_host_port(address) == expected
    assert join_host_port(*expected) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":80",
        "host:",
        "host:65536",
        "host:-1",
        "host:8o",
        "::1:80",
        "[::1]",
        "a b:1",
        "host:٣",
        "h:1\n",
    ],
)
def test_what_is_no_address_is_named(address: str) -> None:
    """The message repeats it."""
    with pytest.raises(AddressError, match="is not HOST:PORT") as caught:
        split_host_port(address)
    assert repr(address) in str(caught.value)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_ip_address_survives(host: object, port: int) -> None:
    """Joined and split again, it is what it was."""
    assert split_host_port(join_host_port(str(host), port)) == (str(host), port)

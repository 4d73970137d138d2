"""docs/attacks.md names a test for each attack, and no test that is not there."""

import ast
import re
from pathlib import Path

from service.http2 import Http2Limits

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs" / "attacks.md").read_text("utf-8")
ATTACKS = PAGE.partition("## Attacks")[2].partition("## Figures")[0]
KIB = 1 << 10


def names_of_tests() -> set[str]:
    """The names of all tests that speak to the front over a socket, or might."""
    files = [*TESTS.glob("service/http2/*.py"), TESTS / "service" / "interop.py", *TESTS.glob("e2e/*.py")]
    trees = [ast.walk(ast.parse(path.read_text("utf-8"))) for path in files]
    return {node.name for tree in trees for node in tree if isinstance(node, ast.FunctionDef)}


def test_every_attack_names_tests_that_exist() -> None:
    """Each row of the table has its tests, by the names that they bear."""
    rows = [line for line in ATTACKS.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert all(named), "every attack has a test"
    assert {name for names in named for name in names} <= names_of_tests()


def test_the_bound_on_memory_is_the_codes() -> None:
    """The sum on the page is `memory_bound_bytes`, whatever the settings are."""
    for limits in (
        Http2Limits(),
        Http2Limits(max_connections=1_000, max_calls=4_096),
        Http2Limits(max_message_bytes=64 << 20, max_connection_bytes_in_hand=64 << 20),
    ):
        assert limits.memory_bound_bytes() == (
            2 * limits.max_bytes_in_hand
            + limits.max_connections * 360 * KIB
            + limits.max_calls * 10 * KIB
            + 12 * max(limits.max_message_bytes, 4 << 20)
        )
        assert limits.memory_bound_bytes(tls=True) == limits.memory_bound_bytes() + limits.max_connections * 1536 * KIB
    assert "TLS adds 1.5 MiB a connection" in PAGE
    assert "2 × max_waiting_bytes + max_connections × 360 KiB + max_waiting_calls × 10 KiB + 12 × max(" in PAGE

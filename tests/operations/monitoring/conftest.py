"""What tests of the monitoring share: Debian's Prometheus and its companions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.operations.debian import unpacked

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-pushgateway": "prometheus-pushgateway",
}
"""The package that each program comes in."""


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """Gives the file of a program; skips by name where it cannot be had."""
    return find_program


def find_program(name: str) -> Path:
    """The file of a program, unpacked where it is not yet."""
    return unpacked(PACKAGES[name]) / "usr" / "bin" / name

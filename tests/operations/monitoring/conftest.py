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


TEMPLATES = Path("/usr/share/prometheus/alertmanager")
"""Where Debian's Alertmanager reads its templates from, wherever itself lies."""


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """Gives the file of a program; skips by name where it cannot be had."""
    return find_program


def find_program(name: str) -> Path:
    """The file of a program, unpacked where it is not yet."""
    files = unpacked(PACKAGES[name])
    if name == "prometheus-alertmanager" and not TEMPLATES.exists():
        _link_templates(files / TEMPLATES.relative_to("/"))
    return files / "usr" / "bin" / name


def _link_templates(unpacked_templates: Path) -> None:
    TEMPLATES.unlink(missing_ok=True)  # a link that a checkout left, and that leads nowhere now
    try:
        TEMPLATES.parent.mkdir(parents=True, exist_ok=True)
        TEMPLATES.symlink_to(unpacked_templates)
    except PermissionError:
        pytest.skip(f"prometheus-alertmanager reads {TEMPLATES}, which only root can make")

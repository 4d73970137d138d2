"""What tests of the monitoring share: Debian's Prometheus and its companions."""

from pathlib import Path

import pytest

from tests.environments import ROOT, install


@pytest.fixture(scope="session")
def programs() -> Path:
    """The directory of prometheus, promtool, prometheus-alertmanager, amtool and prometheus-pushgateway."""
    install(Path(__file__).parent / "install.sh")
    return ROOT / ".venv-monitoring" / "usr" / "bin"

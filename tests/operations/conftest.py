"""What tests of the operations share: the programs they use, from an environment of their own."""

from pathlib import Path

import pytest

from tests.environments import ROOT, install

INSTALL = ROOT / "tests" / "operations" / "install.sh"


@pytest.fixture(scope="session")
def tools() -> Path:
    """The directory of Envoy, kubectl, hadolint and Docker Compose; skips by name where they cannot be had."""
    install(INSTALL, "tools")
    return ROOT / ".venv-operations" / "bin"

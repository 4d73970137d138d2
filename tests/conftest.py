"""What holds for every test."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests.databases.postgres import Postgres

# No test asserts how long something takes, and neither does hypothesis: the machine may be busy with other things.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


INSTALLING: Final = frozenset({"gateway", "postgres", "program", "tools"})
"""Fixtures that install something where it is not there yet, one after the other in all processes of a run."""
INSTALL_SECONDS: Final = 900
"""The time of a test that may have to wait until whoever installs is done, and to install then."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Give time to tests that may have to wait for installations, their own and those of other processes."""
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = mark.args[0] if mark is not None else 0
        if INSTALLING.intersection(getattr(item, "fixturenames", ())) and seconds < INSTALL_SECONDS:
            item.add_marker(pytest.mark.timeout(INSTALL_SECONDS))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; skips by name where there can be none."""
    with contextlib.closing(Postgres()) as server:
        yield server

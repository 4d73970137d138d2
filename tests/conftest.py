"""What holds for every test."""

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.databases.postgres import Postgres

# No test asserts how long something takes, and neither does hypothesis: the machine may be busy with other things.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; skips by name where there can be none."""
    with contextlib.closing(Postgres()) as server:
        yield server

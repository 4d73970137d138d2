"""The closed loop, end to end: drift is noticed, mended on proof, and nothing made worse, while everybody is served."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.databases.postgres import Postgres
from tests.e2e.closed_loop import alarms, story, world

SHORT = world.Pace(
    history_rows=100, rows=100, day_seconds=0.0, job_options=("--kinds", "linear", "--seeds", "1", "--epochs", "250")
)


@pytest.mark.timeout(600)  # a job that fits, exports, and starts a server, on a machine that may be busy
def test_a_better_version_takes_over(tmp_path: Path) -> None:
    """Over kills of servers in the middle of the stream, the loop closes: alarm, challenger, shadow, promotion."""
    with ExitStack() as ending:
        here = world.begin(tmp_path, f"sqlite:///{tmp_path}/observations.db", SHORT, ending)
        story.first_half(here)
        story.check_all_held(here)
        assert [each.text for each in here.kills] == ["server", "server"]
        assert set(here.load.versions) == {1, 2}


@pytest.mark.soak
@pytest.mark.timeout(2400)  # seven jobs, five of which fit, export, and start a server
def test_the_whole_loop(tmp_path: Path, postgres: Postgres) -> None:
    """Also the database and a job are killed; Prometheus itself alarms; and what is poisoned is rejected."""
    with ExitStack() as ending:
        here = world.begin(tmp_path, postgres.new_database(), story.WHOLE, ending, postgres)
        firing = ending.enter_context(alarms.prometheus(tmp_path / "prometheus", here.servers.http_addresses))
        story.whole(here, firing)
        story.check_all_held(here)
        print(story.told(here))  # noqa: T201 - the figures

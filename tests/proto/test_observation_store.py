"""The store on both databases: whoever adds what, as often as they like, at once, and whatever is killed meanwhile."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.observations import (
    Added,
    ConflictError,
    Joined,
    Observation,
    ObservationStore,
    StoreUnavailableError,
    StoreUrlError,
    _add,
)
from tests.databases.postgres import Postgres
from tests.e2e.processes import ENVIRONMENT

NOW = 1_700_000_000.0

pytestmark = pytest.mark.timeout(900)  # the first run may install PostgreSQL, and wait for others that install

WRITER = """
import sys
import time
from proto.observations import Observation, ObservationStore, StoreUnavailableError

url, name = sys.argv[1:]
store = ObservationStore.open(url)
number = 0
while True:
    group = [Observation(f"{name}-{number + each}", 50.0, 10.0, 1.7e9, "writer") for each in range(7)]
    try:
        store.add(group)
    except StoreUnavailableError:
        time.sleep(0.05)
        continue
    print(number, flush=True)
    number += 7
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes URLs of new stores, on each database in turn."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('store')}/observations.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database


@pytest.fixture(scope="module")
def shared(new_url: Callable[[], str]) -> Iterator[ObservationStore]:
    """A store for tests whose ids are their own."""
    with ObservationStore.open(new_url()) as store:
        yield store


VALUES = st.builds(
    Observation,
    id=st.sampled_from("abcdef"),
    fahrenheit=st.sampled_from([32.0, -0.0, 98.6000001, 1e-300]),
    celsius=st.sampled_from([0.0, 37.0]),
    observed_at_seconds=st.sampled_from([0.0, 1.7e9 + 1e-6]),
    source=st.sampled_from(["bench", "é ' \" % \\ :x"]),
    request_id=st.none(),
    row=st.none(),
)


@settings(max_examples=30)
@given(groups=st.lists(st.lists(VALUES, max_size=6), max_size=6), sizes=st.lists(st.integers(1, 3), max_size=6))
def test_an_id_keeps_the_content_that_came_first(
    shared: ObservationStore, groups: list[list[Observation]], sizes: list[int]
) -> None:
    """However they are grouped into commits and repeated: accepted once, then duplicates, and others are refused."""
    mine = uuid4().hex
    groups = [[_renamed(one, mine) for one in group] for group in groups]
    expected: dict[str, Observation] = {}
    waiting = [*groups, *groups]
    for size in [*sizes, *[1] * len(waiting)]:
        now, waiting = waiting[:size], waiting[size:]
        for group, outcome in zip(now, shared.add_groups(now), strict=True):
            assert _summary(outcome) == _summary(_model(expected, group))
    stored = {one.id: one for one in shared.observations() if one.id.startswith(mine)}
    assert stored == expected


def _renamed(observation: Observation, prefix: str) -> Observation:
    return Observation(prefix + observation.id, *(getattr(observation, name) for name in Observation.__slots__[1:]))


def _model(stored: dict[str, Observation], group: Sequence[Observation]) -> Added | ConflictError:
    """What a dictionary would do."""
    after = dict(stored)
    for index, observation in enumerate(group):
        if after.setdefault(observation.id, observation) != observation:
            return ConflictError(index, observation.id)
    added = Added(len(after) - len(stored), len(group) - len(after) + len(stored))
    stored.update(after)
    return added


def _summary(outcome: Added | ConflictError) -> object:
    return (outcome.index, outcome.id) if isinstance(outcome, ConflictError) else outcome


def test_many_who_add_the_same_at_once_add_it_once(new_url: Callable[[], str]) -> None:
    """Threads on stores of their own, opened at once, add overlapping ids in any order: each id is accepted once."""
    url = new_url()
    observations = [Observation(f"o{number}", 50.0 + number, 10.0, NOW, "bench") for number in range(200)]
    added: list[Added] = []

    def add(seed: int) -> None:
        mine = random.Random(seed).sample(observations, 150)  # noqa: S311 - an order, not a secret
        with ObservationStore.open(url) as store:
            added.extend(store.add(mine[start : start + 25]) for start in range(0, 150, 25))

    threads = [threading.Thread(target=add, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ObservationStore.open(url) as store:
        assert sum(one.accepted for one in added) == store.stats().observations
    assert sum(one.accepted + one.duplicates for one in added) == 6 * 150


@settings(max_examples=20)
@given(commits=st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6), since=st.integers(0, 9))
def test_what_is_stored_later_comes_later_whatever_its_time(
    shared: ObservationStore, commits: list[list[int]], since: int
) -> None:
    """What arrived is never put in another order: it grows at its end alone, and a commit is in the order of time."""
    mine = uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proto.observations.BATCH_ROWS", 3)
        expected: list[tuple[int, float]] = []
        going_on: list[str] = []
        last, last_id = shared.mark(), ""
        for number, times in enumerate(commits):
            shared.add([Observation(uuid4().hex, 50.0, float(number), float(time), mine) for time in times])
            expected += [(number, float(time)) for time in sorted(times) if time >= since]
            assert _arrived(shared, since, mine) == expected
            for columns in shared.arrivals(since, after=last):
                going_on += [known for known, named in zip(columns.id, columns.source, strict=True) if named == mine]
                last, last_id = int(columns.number[-1]), columns.id[-1]
            assert len(set(going_on)) == len(going_on) == len(expected), "nothing twice, and nothing left out"
            assert not last_id or (shared.holds(last, last_id) and not shared.holds(last + 1, last_id))


def _arrived(store: ObservationStore, since: float, source: str) -> list[tuple[float, float]]:
    return [
        (celsius, seconds)
        for columns in store.arrivals(since)
        for celsius, seconds, named in zip(
            columns.celsius.tolist(), columns.observed_at_seconds.tolist(), columns.source, strict=True
        )
        if named == source
    ]


def test_who_adds_waits_for_the_other(new_url: Callable[[], str]) -> None:
    """What is added while another addition is under way is stored after it: nothing turns up before what was seen."""
    first, second = (Observation(known, 50.0, 10.0, NOW, "bench") for known in ("z", "a"))
    url = new_url()
    with ObservationStore.open(url) as store:
        adding = threading.Thread(target=store.add, args=([second],))
        with store._engine.execution_options(writes=True).begin() as connection:  # noqa: SLF001 - to stop in the middle
            _add(connection, [[first]])
            if url.startswith("postgresql"):  # who goes silent now holds up the others for so long
                shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
                assert shown.scalar_one() == "30s"
            adding.start()
            adding.join(timeout=0.3)
            assert adding.is_alive()
            assert store.mark() == 0
        adding.join()
        if url.startswith("postgresql"):
            with store._engine.connect() as connection:  # noqa: SLF001 - as above
                shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
                assert shown.scalar_one() == "0", "who reads slowly is not cut off"
        assert [known for columns in store.arrivals() for known in columns.id] == ["z", "a"]


def test_what_waits_for_an_answer_is_read_a_part_at_a_time(new_url: Callable[[], str]) -> None:
    """In the order in which it was stored, so that nothing is passed over."""
    with ObservationStore.open(new_url()) as store:
        for number in range(10):
            asked = ("r", number) if number % 5 != 4 else (None, None)
            store.add([Observation(f"o{number}", 50.0, 10.0, NOW, "bench", *asked)])
        store.join([Joined("o0", "linear", 1, 10.0)])
        mark = store.mark()
        found: list[str] = []
        looked = [0]
        while looked[-1] != mark:
            waiting = store.unjoined(looked[-1], mark, 3)
            looked.append(waiting.looked_up_to)
            found += [one.id for one in waiting.observations]
        assert found == ["o1", "o2", "o3", "o5", "o6", "o7", "o8"]
        assert looked == [0, 4, 8, 10]
        assert store.unjoined(mark, mark, 3) == ([], mark)


def test_who_only_reads_makes_no_store(new_url: Callable[[], str]) -> None:
    """A store that is not there is said not to be, and is still not there afterwards."""
    url = new_url()
    for _ in range(2):
        with pytest.raises(StoreUrlError, match="there is no store"):
            ObservationStore.open(url, create=False)
    ObservationStore.open(url).close()
    with ObservationStore.open(url, create=False) as store:
        assert store.stats().observations == 0


def test_every_commit_is_synced(new_url: Callable[[], str]) -> None:
    """Whatever the database does by default: SQLite syncs its log at each commit, PostgreSQL waits for its own."""
    url = new_url()
    with ObservationStore.open(url) as store, store._engine.connect() as connection:  # noqa: SLF001 - how it is opened
        if url.startswith("sqlite"):
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
            return
        name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.commit()
    with ObservationStore.open(url) as store, store._engine.connect() as connection:  # noqa: SLF001 - as above
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 40))])
def test_a_writer_killed_anywhere_loses_nothing_it_was_told_is_stored(new_url: Callable[[], str], seed: int) -> None:
    """Kill -9 of a process that adds: every group that it said was added is there whole, and none in part."""
    url = new_url()
    said = _writer(url, seed, lambda: None)
    _check_all_there(url, said)


def test_a_database_killed_anywhere_loses_nothing_it_said_is_stored(postgres: Postgres) -> None:
    """Kill -9 of PostgreSQL, twice, while a process adds and tries again: all that it said was added is there."""
    url = postgres.new_database()

    def meddle() -> None:
        for _ in range(2):
            with postgres.killed():
                pass

    _check_all_there(url, _writer(url, 7, meddle))


def test_a_database_that_is_away_is_said_to_be(postgres: Postgres) -> None:
    """What cannot be reached is unavailable, and no password stands in the message."""
    url = postgres.new_database().replace("tests@", "tests:secret@").replace("host=", "host=/nowhere")
    with pytest.raises(StoreUnavailableError) as caught:
        ObservationStore.open(url)
    assert "secret" not in str(caught.value)


def _writer(url: str, seed: int, meddle: Callable[[], None]) -> list[int]:
    """Let a process add for a while, meddle, let it add on, kill it, and return the groups that it said were added."""
    chance = random.Random(seed)  # noqa: S311 - a moment, not a secret
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, "w"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert writer.stdout is not None
    with writer.stdout:
        said = [int(writer.stdout.readline()) for _ in range(chance.randint(1, 30))]
        meddle()
        said += [int(writer.stdout.readline()) for _ in range(chance.randint(1, 30))]
        writer.kill()
        writer.wait()
        said += [int(line) for line in writer.stdout if line.endswith("\n")]
    return said


def _check_all_there(url: str, said: list[int]) -> None:
    with ObservationStore.open(url) as store:
        stored = {int(known.rpartition("-")[2]) for known in store.read().id}
    assert stored >= {group + each for group in said for each in range(7)}
    assert len(stored) % 7 == 0

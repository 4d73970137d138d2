"""What people say the true temperature was: the schema and the store of observations.

The service writes them, training reads them. The store is a database behind SQLAlchemy Core: a file of SQLite, or
PostgreSQL by its URL. What `add` returned for is on disk: it survives a kill of this process, of the database, and,
as far as the disk keeps what it was told to sync, a loss of power.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray
from sqlalchemy import event, exc

from proto.observation import (
    Added,
    ConflictError,
    InvalidObservationError,
    Joined,
    NoStoreError,
    Observation,
    ObservationError,
    StoreSchemaError,
    StoreUnavailableError,
    StoreUrlError,
    check_observation,
    sort_out,
)

__all__ = [
    "Added",
    "Columns",
    "ConflictError",
    "InvalidObservationError",
    "Joined",
    "NoStoreError",
    "Observation",
    "ObservationError",
    "ObservationStore",
    "Stats",
    "StoreSchemaError",
    "StoreUnavailableError",
    "StoreUrlError",
    "Unjoined",
    "check_observation",
    "parse_url",
]

BATCH_ROWS: Final = 4096
"""Observations that are read at a time where all of them may be too many for memory: some 4 MB."""

_SCHEMA_VERSION: Final = 1
_IDS_OF_A_SELECT: Final = 1000
_ATTEMPTS: Final = 16
_BUSY_SECONDS: Final = 15
_CREATING: Final = 7_164_212
"""Key of PostgreSQL's advisory lock under which the tables are made; any number that is always the same."""
_WRITING: Final = 7_164_213
"""Key of the one that whoever adds holds until the commit."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Observations as columns of the same length, the oldest first; numbers are float64 `[N]`."""

    id: list[str]
    source: list[str]
    fahrenheit: NDArray[np.float64]
    celsius: NDArray[np.float64]
    observed_at_seconds: NDArray[np.float64]
    model: list[str | None]
    """Which model answered for the reading, where that is known."""
    version: list[int | None]
    """Its version, likewise."""
    predicted_celsius: NDArray[np.float64]
    """What it answered; NaN where that is not known."""
    number: NDArray[np.int64]
    """Where each stands in the order in which they were stored: int64 `[N]`, ascending in it, with gaps."""

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds."""

    observations: int
    joined: int
    """Of them, those for which the server's answer is known."""
    oldest_observed_at_seconds: float | None
    newest_observed_at_seconds: float | None
    sources: Mapping[str, int]
    """Observations by source, those with most first."""


class Unjoined(NamedTuple):
    """Observations that wait for the answer to their request."""

    observations: list[Observation]
    looked_up_to: int
    """The `mark` up to which these are all."""


_METADATA: Final = sql.MetaData()
_SCHEMA: Final = sql.Table(
    "observations_schema", _METADATA, sql.Column("version", sql.Integer, primary_key=True, autoincrement=False)
)
_TABLE: Final = sql.Table(
    "observations",
    _METADATA,
    # SQLite counts by itself only in a column of its type INTEGER, which holds 64 bits there.
    sql.Column("number", sql.BigInteger().with_variant(sql.Integer(), "sqlite"), sql.Identity(), primary_key=True),
    sql.Column("id", sql.Text, nullable=False, unique=True),
    sql.Column("fahrenheit", sql.Double, nullable=False),
    sql.Column("celsius", sql.Double, nullable=False),
    sql.Column("observed_at_seconds", sql.Double, nullable=False, index=True),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("request_id", sql.Text),
    sql.Column("row", sql.Integer),
    sql.Column("model", sql.Text),
    sql.Column("version", sql.BigInteger),
    sql.Column("predicted_celsius", sql.Double),
)
_FIELDS: Final = [_TABLE.c[name] for name in Observation.__slots__]
_NUMBERED: Final = [*_FIELDS, _TABLE.c.number]
_JOIN: Final = (
    sql.update(_TABLE)
    .where(_TABLE.c.id == sql.bindparam("known"), _TABLE.c.model.is_(None))
    .values({name: sql.bindparam(f"joined_{name}") for name in ("model", "version", "predicted_celsius")})
)


# One who adds waits for the other, as SQLite has it anyway: so that numbers ascend in the order of commits, and nothing
# turns up before what was seen. Whoever goes silent between two statements is disconnected, and holds up nobody for
# longer; a machine that vanished in the middle of one is missed by the database's keepalives (`_SESSION`).
_TAKE_TURNS: Final = sql.select(
    sql.func.set_config("idle_in_transaction_session_timeout", "30000", sql.true()),
    sql.func.pg_advisory_xact_lock(_WRITING),
)


class ObservationStore:
    """Observations in a database. Methods may be called by any thread, and block; processes may share one store.

    Guarantees: what `add` returned for is durable; each id is there once, with the content that came first. What was
    stored has an order that never changes: commit after commit, and within one by time (and by id).
    """

    def __init__(self, engine: sql.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open a store. Where there is none it is made, unless `create` says otherwise: who only reads wants none made.

        `url` is `sqlite:///PATH` (`sqlite:////PATH` from the root) or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

        Raises:
            StoreUrlError: no store can be meant by it, or its driver is missing.
            NoStoreError: none is there, and none is to be made.
            StoreUnavailableError: the database cannot be reached.
            StoreSchemaError: its tables are of another schema.
        """
        parsed = parse_url(url)
        if not create and parsed.drivername == "sqlite" and not Path(parsed.database or "").exists():
            raise NoStoreError(f"there is no store: {parsed.database} is missing")
        store = cls(_engine(parsed))
        try:
            store._attempt(_create if create else _check)
        except ObservationError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def add(self, observations: Sequence[Observation]) -> Added:
        """Store observations, all or none; when it returns, they are durable. Their values are not checked here.

        Raises:
            ConflictError: an id is taken by an observation with other content; nothing is stored.
            StoreUnavailableError: the database failed; add them again.
        """
        (outcome,) = self.add_groups([observations])
        if isinstance(outcome, ConflictError):
            raise outcome
        return outcome

    def add_groups(self, groups: Sequence[Sequence[Observation]]) -> list[Added | ConflictError]:
        """Store several groups with one commit; a conflict in one of them keeps no other from being stored.

        Raises:
            StoreUnavailableError: the database failed; add them again.
        """
        return self._attempt(lambda connection: _add(connection, groups))

    def join(self, joined: Iterable[Joined]) -> None:
        """Note what a server answered for observations that are stored; what was noted before stays.

        Raises:
            StoreUnavailableError: the database failed.
        """
        rows = [
            {"known": known, "joined_model": model, "joined_version": version, "joined_predicted_celsius": predicted}
            for known, model, version, predicted in sorted(joined)
        ]
        if rows:
            self._attempt(lambda connection: connection.execute(_JOIN, rows))

    # Reading ----------------------------------------------------------------------------------------------------------

    def read(
        self, since_seconds: float | None = None, until_seconds: float | None = None, *, latest: int | None = None
    ) -> Columns:
        """Read observations by the time of observation, from `since_seconds` on and before `until_seconds`.

        `latest` bounds how many: then the latest of them are read. They come in the order of that time.

        Raises:
            StoreUnavailableError: the database failed.
        """
        newest_first = _between(sql.select(*_NUMBERED), since_seconds, until_seconds).order_by(
            _TABLE.c.observed_at_seconds.desc(), _TABLE.c.number.desc()
        )
        rows = self._read(lambda connection: connection.execute(newest_first.limit(latest)).all())
        return _columns(rows[::-1])

    def arrivals(self, since_seconds: float | None = None, *, after: int = 0) -> Iterator[Columns]:
        """Yield observations from `since_seconds` on in the order in which they were stored, in parts of `BATCH_ROWS`.

        What is stored later comes later, whatever its time: whoever names the last `number` that was read gets what is
        new since, and nothing twice. `holds` tells whether that is still what it was.

        Raises:
            StoreUnavailableError: the database failed.
        """
        first = after + 1 if after else self._first(since_seconds)
        if first is None:
            return
        wanted = _between(sql.select(*_NUMBERED), since_seconds, None).where(_TABLE.c.number >= first)
        for rows in self._parts(wanted.order_by(_TABLE.c.number)):
            yield _columns(rows)

    def holds(self, number: int, known: str) -> bool:
        """Whether the observation at a number has this id: else some were taken out, or it is another store.

        Raises:
            StoreUnavailableError: the database failed.
        """
        there = sql.select(_TABLE.c.id).where(_TABLE.c.number == number)
        return self._read(lambda connection: connection.execute(there).scalar()) == known

    def _first(self, since_seconds: float | None) -> int | None:
        """The least number of the observations from a time on."""
        # The first of them is found by its time, by an expression, so that nobody walks there over all that is older;
        # from there on they come as they lie, and nothing is sorted, for which a disk might have no room.
        newer = _between(sql.select(sql.func.min(_TABLE.c.number + 0)), since_seconds, None)
        first = self._read(lambda connection: connection.execute(newer).scalar_one())
        return None if first is None else int(first)

    def observations(
        self, since_seconds: float | None = None, until_seconds: float | None = None
    ) -> Iterator[Observation]:
        """Yield observations one by one in the order of their time, however many there are.

        Raises:
            StoreUnavailableError: the database failed.
        """
        oldest_first = _between(sql.select(*_FIELDS), since_seconds, until_seconds).order_by(
            _TABLE.c.observed_at_seconds, _TABLE.c.number
        )
        for rows in self._parts(oldest_first):
            for row in rows:
                yield Observation(*row)

    def stats(self) -> Stats:
        """Tell what the store holds.

        Raises:
            StoreUnavailableError: the database failed.
        """
        count = sql.func.count()
        totals = sql.select(
            count,
            sql.func.count(_TABLE.c.model),
            sql.func.min(_TABLE.c.observed_at_seconds),
            sql.func.max(_TABLE.c.observed_at_seconds),
        )
        by_source = sql.select(_TABLE.c.source, count).group_by(_TABLE.c.source).order_by(count.desc(), _TABLE.c.source)
        total, sources = self._read(lambda link: (link.execute(totals).one(), link.execute(by_source).all()))
        observations, joined, oldest, newest = total
        return Stats(observations, joined, oldest, newest, {str(source): int(number) for source, number in sources})

    def unjoined(self, after: int, until: int, most: int) -> Unjoined:
        """Read the observations that name a request and have no answer noted, of those stored between two `mark`s.

        They are at most so many, those first that were stored first.

        Raises:
            StoreUnavailableError: the database failed.
        """
        waiting = (
            sql.select(*_FIELDS, _TABLE.c.number)
            .where(_TABLE.c.number > after, _TABLE.c.number <= until)
            .where(_TABLE.c.request_id.is_not(None), _TABLE.c.model.is_(None))
            .order_by(_TABLE.c.number)
        )
        rows = self._read(lambda connection: connection.execute(waiting.limit(most)).all())
        observations = [Observation(*fields) for *fields, _number in rows]
        return Unjoined(observations, int(rows[-1].number) if len(rows) == most else until)

    def mark(self) -> int:
        """A number that grows with what is stored: where it is another than before, there is something new.

        Raises:
            StoreUnavailableError: the database failed.
        """
        greatest = sql.select(sql.func.coalesce(sql.func.max(_TABLE.c.number), 0))
        return int(self._read(lambda connection: connection.execute(greatest).scalar_one()))

    # The database -----------------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[sql.Connection], ResultT]) -> ResultT:
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except exc.SQLAlchemyError as error:
            raise _unavailable(error) from error

    def _parts(self, query: sql.Select[Any]) -> Iterator[Sequence[Any]]:
        try:
            with self._engine.connect() as connection:
                yield from connection.execution_options(yield_per=BATCH_ROWS).execute(query).partitions()
        except exc.SQLAlchemyError as error:
            raise _unavailable(error) from error

    def _attempt(self, work: Callable[[sql.Connection], ResultT]) -> ResultT:
        """Do something in a transaction of its own, and once more where another process did the same meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._engine.execution_options(writes=True).begin() as connection:
                    return work(connection)
            except exc.IntegrityError as error:  # somebody added the same ids between our look and our insertion
                if attempt == _ATTEMPTS:
                    raise _unavailable(error) from error
            except exc.SQLAlchemyError as error:
                raise _unavailable(error) from error
        raise AssertionError("the last attempt returns or raises")


def _create(connection: sql.Connection) -> None:
    if connection.dialect.name == "postgresql":  # where two sessions that make a table at once fail
        connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_CREATING)))
    if not sql.inspect(connection).has_table(_SCHEMA.name):
        _METADATA.create_all(connection)
        connection.execute(sql.insert(_SCHEMA).values(version=_SCHEMA_VERSION))
    _check(connection)


def _check(connection: sql.Connection) -> None:
    if not sql.inspect(connection).has_table(_SCHEMA.name):
        raise NoStoreError(f"there is no store: the database {connection.engine.url.database!r} has no tables of ours")
    found = connection.execute(sql.select(_SCHEMA.c.version)).scalars().all()
    if found != [_SCHEMA_VERSION]:
        raise StoreSchemaError(f"the store has schema {found}; this program knows {_SCHEMA_VERSION}")


def parse_url(url: str) -> sql.URL:
    """Read the URL of a store.

    Raises:
        StoreUrlError: no store can be meant by it. The message does not repeat it: it may hold a password.
    """
    try:
        parsed = sql.make_url(url)
    except (exc.ArgumentError, ValueError):
        raise StoreUrlError("this is no URL: sqlite:///PATH or postgresql://USER@HOST:PORT/DATABASE is") from None
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise StoreUrlError(f"no store for {parsed.drivername!r}: there are sqlite and postgresql")
    if not parsed.database or parsed.database == ":memory:" or parsed.host:
        raise StoreUrlError("sqlite wants the path of a file: sqlite:///PATH, or sqlite:////PATH from the root")
    return parsed


_SESSION: Final = {
    "synchronous_commit": "on",
    "statement_timeout": "30000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""What PostgreSQL holds to in our sessions. Without keepalives of its own it would wait hours for who vanished."""


def _engine(url: sql.URL) -> sql.Engine:
    try:
        if url.drivername == "sqlite":
            return _sqlite(url)
        # A database that does not answer is found out within seconds, and one that was restarted is connected to anew.
        return sql.create_engine(
            url,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                "tcp_user_timeout": 10_000,
                "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
            },
        )
    except ModuleNotFoundError as error:
        raise StoreUrlError(f"{url.get_backend_name()} needs {error.name!r}: install the extra 'postgresql'") from error


def _sqlite(url: sql.URL) -> sql.Engine:
    """An engine on a file, in which every commit is synced to disk before it returns (WAL, synchronous=FULL)."""
    assert url.database is not None  # noqa: S101 - parse_url saw to it
    folder = Path(url.database).parent
    if not folder.is_dir():
        raise StoreUrlError(f"{folder} is no directory: the file of sqlite cannot be made there")
    engine = sql.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own
        connection.isolation_level = None  # the driver begins nothing by itself: `begin` does
        for attempt in range(_ATTEMPTS):  # SQLite does not wait where another connection changes the mode just then
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                break
            except Exception:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: sql.Connection) -> None:
        # A transaction that will write takes the lock at once: one that read first could not wait for it.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _add(connection: sql.Connection, groups: Sequence[Sequence[Observation]]) -> list[Added | ConflictError]:
    if connection.dialect.name == "postgresql":
        connection.execute(_TAKE_TURNS)
    ids = [observation.id for group in groups for observation in group]
    known = {observation.id: observation.reported() for observation in _with_ids(connection, ids)}
    outcomes, new = sort_out(groups, known)
    if new:
        rows = [{name: getattr(observation, name) for name in Observation.__slots__} for observation in new]
        rows.sort(key=lambda row: (row["observed_at_seconds"], row["id"]))
        connection.execute(sql.insert(_TABLE), rows)
    return outcomes


def _with_ids(connection: sql.Connection, ids: Sequence[str]) -> Iterator[Observation]:
    wanted = sql.select(*_FIELDS).where(_TABLE.c.id.in_(sql.bindparam("ids", expanding=True)))
    for start in range(0, len(ids), _IDS_OF_A_SELECT):
        for row in connection.execute(wanted, {"ids": ids[start : start + _IDS_OF_A_SELECT]}):
            yield Observation(*row)


def _between(query: sql.Select[Any], since_seconds: float | None, until_seconds: float | None) -> sql.Select[Any]:
    if since_seconds is not None:
        query = query.where(_TABLE.c.observed_at_seconds >= since_seconds)
    if until_seconds is not None:
        query = query.where(_TABLE.c.observed_at_seconds < until_seconds)
    return query


def _columns(rows: Sequence[Sequence[Any]]) -> Columns:
    columns = dict(zip((*Observation.__slots__, "number"), zip(*rows, strict=True), strict=False))  # none of no rows

    def numbers(name: str) -> NDArray[np.float64]:
        return np.array(columns.get(name, ()), dtype=np.float64)  # None becomes NaN

    def texts(name: str) -> list[Any]:
        return list(columns.get(name, ()))

    return Columns(
        id=texts("id"),
        source=texts("source"),
        fahrenheit=numbers("fahrenheit"),
        celsius=numbers("celsius"),
        observed_at_seconds=numbers("observed_at_seconds"),
        model=texts("model"),
        version=texts("version"),
        predicted_celsius=numbers("predicted_celsius"),
        number=np.array(columns.get("number", ()), dtype=np.int64),
    )


def _unavailable(error: exc.SQLAlchemyError) -> StoreUnavailableError:
    cause = getattr(error, "orig", None) or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return StoreUnavailableError(f"the store of observations failed: {reason}")

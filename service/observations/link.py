"""The way to the store. It is opened when it is first needed: a database that is away keeps no server from starting."""

import threading
from typing import TYPE_CHECKING, Final

import structlog

from proto.observation import ObservationError, StoreUnavailableError

if TYPE_CHECKING:
    from proto.observations import ObservationStore

log = structlog.get_logger(__name__)

_FILE: Final = "sqlite:"
"""How the URL of a store begins that is a file: what keeps it from being opened does not pass by itself."""


class StoreSettingError(Exception):
    """The setting `observations` names no store that can be used; the message says why."""


class Link:
    """Opens the store when it is first asked for. Any thread may ask."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._store: ObservationStore | None = None

    def check(self) -> None:
        """Refuse what cannot become a store by waiting; a database that does not answer yet is only logged.

        Raises:
            StoreSettingError: the URL is none, a package or the directory of the file is missing, or it is no store.
        """
        try:
            self.store()
        except StoreUnavailableError as error:
            if self._url.startswith(_FILE):
                raise StoreSettingError(f"observations: {error}") from error
            log.warning("the store of observations cannot be reached yet", reason=str(error))
        except ObservationError as error:
            raise StoreSettingError(f"observations: {error}") from error

    def store(self) -> "ObservationStore":
        """Return the store.

        Raises:
            ObservationError: it cannot be opened now.
        """
        from proto.observations import ObservationStore  # noqa: PLC0415 - SQLAlchemy, where there is a store

        with self._lock:
            if self._store is None:
                self._store = ObservationStore.open(self._url)
            return self._store

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

"""The client that looks at answers: before a server is timed, and now and then while it is."""

import http.client
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

import grpc

from benchmarks.process import ServerFailedError, ServerProcess
from benchmarks.wire import Exchange, WrongAnswerError

_INTERVAL_SECONDS: Final = 0.05
_TIMEOUT_SECONDS: Final = 30.0
_MAX_MESSAGE: Final = 64 << 20

Ask = Callable[[], bytes]


class Client:
    """One connection to a server, for one exchange after another. Not for several threads."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: Any = None

    def ask(self, exchange: Exchange, timeout: float = _TIMEOUT_SECONDS) -> bytes:
        """Return the answer's bytes, checked.

        Raises:
            WrongAnswerError: its values are wrong.
            grpc.RpcError, OSError: the server did not answer, or not with OK.
        """
        answer = self._grpc(exchange, timeout) if exchange.grpc else self._http(exchange, timeout)
        exchange.check(answer)
        return answer

    def ask_stream(self, exchange: Exchange, messages: int) -> list[bytes]:
        """Return the answers to as many messages on one stream, checked. Raises as `ask` does."""
        call = self._stub().stream_stream(exchange.path)(iter([exchange.body] * messages), timeout=_TIMEOUT_SECONDS)
        answers = list(call)
        if len(answers) != messages:
            raise WrongAnswerError(f"{exchange.path}: {len(answers)} answers came to {messages} messages")
        for answer in answers:
            exchange.check(answer)
        return answers

    def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            self._channel.close()

    def _stub(self) -> Any:  # noqa: ANN401 - gRPC's channel, without serialisers
        if self._channel is None:
            sizes = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", _MAX_MESSAGE)]
            self._channel = grpc.insecure_channel(self._address, [*sizes, ("grpc.use_local_subchannel_pool", 1)])
        return self._channel

    def _grpc(self, exchange: Exchange, timeout: float) -> bytes:
        answer: bytes = self._stub().unary_unary(exchange.path)(exchange.body, timeout=timeout)
        return answer

    def _http(self, exchange: Exchange, timeout: float) -> bytes:
        connection = http.client.HTTPConnection(self._address, timeout=timeout)
        try:
            connection.request("POST", exchange.path, exchange.body, dict(exchange.headers))
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ConnectionError(f"HTTP status {response.status}: {answer[:200]!r}")
        return answer


def wait_until_right(address: str, exchange: Exchange, process: ServerProcess, limit_seconds: float) -> None:
    """Return when the server gives its first right answer.

    Raises:
        ServerFailedError: it ended, gave a wrong answer, or took longer than the limit.
    """
    end = time.monotonic() + limit_seconds
    while True:
        process.check_alive()
        client = Client(address)  # a new one each time: a channel that failed once waits before it tries again
        try:
            client.ask(exchange, timeout=2.0)
        except WrongAnswerError as error:
            raise ServerFailedError(str(error)) from error
        except (grpc.RpcError, OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise ServerFailedError(f"no right answer in {limit_seconds:g} s: {error}; {process.tail()}") from error
            time.sleep(0.02)
        else:
            return
        finally:
            client.close()


class Sampler:
    """Asks and checks every 50 ms on a thread of its own while a load runs. Use it as a context.

    Afterwards `asked` is how many it asked, and `failures` are what went wrong, each a sentence.
    """

    def __init__(self, address: str, exchange: Exchange) -> None:
        self.asked = 0
        self.failures: list[str] = []
        self._client = Client(address)
        self._exchange = exchange
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self.asked += 1
            try:
                self._client.ask(self._exchange)
            except (WrongAnswerError, grpc.RpcError, OSError, http.client.HTTPException) as error:
                self.failures.append(describe(error))


def describe(error: Exception) -> str:
    """One line about what went wrong with a call."""
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"

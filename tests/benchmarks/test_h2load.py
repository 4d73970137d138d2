"""What h2load prints is read rightly, and what it does not see is found in its counts."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import h2load
from benchmarks.wire import GRPC_HEADERS, JSON_HEADERS, Exchange

PRINTED = """
starting benchmark...
progress: 100% done

finished in 1.50s, 40000.00 req/s, 5.31MB/s
requests: 60000 total, 60000 started, 60000 done, 59990 succeeded, 10 failed, 10 errored, 0 timeout
status codes: 59990 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 7.96MB (8349120) total, 1.14MB (1200012) headers (space savings 90.00%), 2.86MB (2999500) data
                     min         max         mean         sd        +/- sd
time for request:      210us     14.33ms      1.20ms       600us    80.00%
"""


def exchange(*, grpc: bool = True) -> Exchange:
    """A call with a body of four bytes."""
    headers = GRPC_HEADERS if grpc else JSON_HEADERS
    return Exchange("/a/B", b"abcd", headers, lambda _: np.empty(0, np.float32), np.empty(0, np.float32), grpc=grpc)


def test_a_result_is_read() -> None:
    """Seconds, requests that were done and succeeded, and bytes of data are what h2load printed."""
    assert h2load.parse(PRINTED) == h2load.Load(1.5, 60_000, 59_990, 2_999_500)


@pytest.mark.parametrize(("text", "seconds"), [("650.25ms", 0.65025), ("998us", 0.000998), ("1.20m", 72.0)])
def test_times_have_units(text: str, seconds: float) -> None:
    """The time of a load is in seconds, whatever unit h2load chose."""
    assert h2load.parse(PRINTED.replace("1.50s", text)).seconds == pytest.approx(seconds)


def test_no_result_is_an_error_that_shows_what_was_printed() -> None:
    """Output without a result is refused, with its end."""
    with pytest.raises(h2load.OutputError, match="could not connect"):
        h2load.parse("starting benchmark...\ncould not connect to host")


def test_calls_without_a_message_are_found_by_their_missing_bytes() -> None:
    """An error in trailers has status 200 and no message: it is counted, beside those that h2load saw fail."""
    whole = h2load.Load(1.0, done=1_000, succeeded=1_000, data_bytes=50_000)
    assert h2load.missing_answers(whole, answer_bytes=50) == 0
    lacking = h2load.Load(1.0, done=1_000, succeeded=998, data_bytes=49_500)
    assert h2load.missing_answers(lacking, answer_bytes=50) == 10 + 2
    assert h2load.missing_answers(lacking, answer_bytes=None) == 2


def test_the_command_has_the_load() -> None:
    """Calls in flight are shared by the connections, and gRPC's headers are sent over HTTP/2."""
    words = h2load.command("127.0.0.1:1", exchange(), Path("frame"), 100, connections=4, in_flight=64)
    assert {"--requests=100", "--clients=4", "--max-concurrent-streams=16", "--header=te: trailers"} <= set(words)
    assert "--h1" not in words
    assert words[-1] == "http://127.0.0.1:1/a/B"


def test_http_1_is_asked_for_where_there_is_no_grpc() -> None:
    """A server that speaks HTTP and JSON is loaded over HTTP/1.1."""
    assert "--h1" in h2load.command("127.0.0.1:1", exchange(grpc=False), Path("frame"), 1, 1, 1)


def test_a_log_gives_percentiles(tmp_path: Path) -> None:
    """Percentiles are times that were taken, in seconds."""
    log = tmp_path / "log"
    log.write_text("".join(f"1700000000000000\t200\t{microseconds}\n" for microseconds in range(1, 101)))
    assert h2load.percentiles(h2load.read_log(log), [50, 99]) == pytest.approx([50e-6, 99e-6])

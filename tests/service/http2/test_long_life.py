"""One connection that lives long: whatever its calls are like and however they end, both windows stay exact.

A byte that is never credited would stall it in the end, a byte credited twice would let more through than was allowed;
so the sums are compared, to the byte, when all calls are over.
"""

import random
import struct
import time
from dataclasses import dataclass

import pytest

from service.http2 import Http2Limits
from service.models import Models
from service.status import Code
from tests.service.http2.raw import RawClient, framed, raw_frame, request
from tests.service.http2.rules import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    METHODS,
    PADDED,
    PING,
    POUR,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WAITING,
    block,
    poured,
)
from tests.service.http2.serving import Serving, celsius, convert_body

SEED = 20_261_123
POURING = block(request(POUR))
DEFAULT_WINDOW = 65_535
MOST_FRAME_BYTES = 16_384
PREFIX_BYTES = 5
AT_ONCE = 6
"""Calls that are open at once."""


@dataclass
class Told:
    """A call that is open, as its client sees it."""

    stream: int
    left: bytes
    answer: bytes | None
    """What is to come; None where the call never ends by itself."""
    sent: int = 0
    opened: int = 0
    """Bytes by which the stream's window was opened, beyond its beginning."""
    cancels: bool = False


class LongLife:
    """A client that keeps both windows to the byte, and sends as it pleases within them."""

    def __init__(self, client: RawClient, limits: Http2Limits, seed: int) -> None:
        self.client = client
        self.generator = random.Random(seed)  # noqa: S311 - seeded on purpose
        self.limits = limits
        self.open: list[Told] = []
        self.sent = 0
        self.granted = DEFAULT_WINDOW
        self.initial = DEFAULT_WINDOW

    @property
    def may_send(self) -> int:
        """What the connection's window lets out."""
        return DEFAULT_WINDOW + self.client.windows.get(0, 0) - self.sent

    @property
    def received(self) -> int:
        """Bytes of data that ever came."""
        return sum(len(answer.data) for answer in self.client.answers.values())

    def may_send_of(self, told: Told) -> int:
        """What a stream's window lets out."""
        return self.limits.stream_window_bytes + self.client.windows.get(told.stream, 0) - told.sent

    def begin(self) -> None:
        """Open a call: small or large, with a small or a large answer, that ends or is cancelled."""
        generator, stream = self.generator, self.client.new_stream()
        kind = generator.choice(["convert", "pour", "wait", "gone"])
        size = generator.choice([1, 10, 300, 5_000])
        if kind == "pour":
            answer = framed(poured(size * 20))
            told = Told(stream, framed(str(size * 20).encode()), answer)
            head = POURING
        else:
            values = [float(index % 100) for index in range(size)]
            told = Told(stream, convert_body(*values), b"" if kind == "convert" else None)
            head = WAITING if kind == "wait" else REQUEST
        told.cancels = kind in ("wait", "gone")
        self.client.send(raw_frame(HEADERS, END_HEADERS, stream, head))
        self.client.expect(stream)
        self.open.append(told)

    def send_some(self, told: Told) -> None:
        """Send a frame of a call's data, padded or not, as far as both windows let it; or cancel it."""
        generator = self.generator
        if told.cancels and generator.random() < 0.2:
            self.client.send(raw_frame(RST_STREAM, 0, told.stream, struct.pack(">I", CANCEL)))
            self.open.remove(told)
            late = bytes(min(generator.choice([0, 1, 900]), self.may_send))
            self.client.send(raw_frame(DATA, 0, told.stream, late))  # as may be under way when a server resets
            self.sent += len(late)
            return
        padding = generator.choice([0, 0, 0, 7])
        extra = 1 + padding if padding else 0
        room = min(self.may_send, self.may_send_of(told), MOST_FRAME_BYTES) - extra
        if room <= 0 or not told.left:
            return
        size = min(len(told.left), generator.choice([1, 50, room, room]), room)
        piece, told.left = told.left[:size], told.left[size:]
        flags = (END_STREAM if not told.left and not told.cancels else 0) | (PADDED if padding else 0)
        payload = bytes((padding,)) + piece + bytes(padding) if padding else piece
        frame = raw_frame(DATA, flags, told.stream, payload)
        told.sent += len(payload)
        self.sent += len(payload)
        cut = generator.randrange(len(frame))  # a frame may come in two reads
        self.client.send(frame[:cut])
        self.client.send(frame[cut:])

    def let_come(self) -> None:
        """Open windows by some bytes, and now and then change what new streams' windows begin with."""
        generator = self.generator
        if generator.random() < 0.1:
            self.initial = generator.choice([0, 1_000, DEFAULT_WINDOW, 200_000])
            self.client.send(raw_frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, self.initial)))
        if self.granted - self.received < 50_000:
            self.grant(generator.choice([30_000, 100_000]))
        for told in self.open:
            came = len(self.client.expect(told.stream).data)
            if self.initial + told.opened - came < 1_000:
                told.opened += 20_000
                self.client.open_windows(told.stream, 20_000)

    def grant(self, size: int) -> None:
        """Open the connection's window."""
        self.granted += size
        self.client.open_windows(0, size)

    def settle(self) -> None:
        """Read what came, and look at calls that ended."""
        if self.generator.random() < 0.3:
            self.ping()
        assert self.received <= self.granted
        for told in list(self.open):
            answer = self.client.expect(told.stream)
            if answer.ended or answer.reset is not None:
                assert answer.status == Code.OK
                assert bytes(answer.data) == told.answer if told.answer else celsius(answer.message)
                self.open.remove(told)

    def live(self, calls: int) -> None:
        """Make so many calls, a few at once, until all are over."""
        made = 0
        end = time.monotonic() + 60
        while made < calls or self.open:
            assert time.monotonic() < end, f"stalled: {self.open}"
            if made < calls and len(self.open) < AT_ONCE:
                self.begin()
                made += 1
            for told in list(self.open):
                self.send_some(told)
            self.let_come()
            self.settle()

    def open_wide(self) -> None:
        """Let all come that may be asked for, on each new stream."""
        self.client.send(raw_frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 1 << 24)))
        self.grant(1 << 20)

    def until_credited(self) -> None:
        """Make calls one by one until the server credits what came: all of it then, to the byte."""
        windows, body = self.client.windows, convert_body(*[50.0] * 500)
        self.ping()
        before = windows.get(0, 0)
        while windows.get(0, 0) == before:
            self.sent += len(body)
            assert self.client.unary(body).status == Code.OK
            self.ping()

    def ping(self) -> None:
        """Hear all that the server said until now."""
        pings = len(self.client.pings) + 1
        self.client.send(raw_frame(PING, 0, 0, b"are you?"))
        self.client.wait(lambda: len(self.client.pings) >= pings)


@pytest.mark.parametrize("windows", [(65_535, 65_535), (3_000, 70_000), (100_000, 500_000)], ids=str)
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_windows_of_a_long_life(models: Models, loop: str, windows: tuple[int, int]) -> None:
    """Hundreds of calls of every kind through one connection, cancelled and padded: no byte is lost or given twice."""
    limits = Http2Limits(stream_window_bytes=windows[0], connection_window_bytes=windows[1])
    with Serving(models, limits, METHODS, loop=loop) as serving, RawClient(serving.address) as client:
        life = LongLife(client, limits, SEED)
        life.live(300)
        while serving.ask(lambda: (serving.front.calls, serving.front.bytes_in_hand)) != (0, 0):
            client.drain(0.01)
        life.open_wide()
        life.until_credited()
        assert life.may_send == limits.connection_window_bytes
        size = life.granted - life.received - PREFIX_BYTES
        stream = client.call(framed(str(size).encode()), request(POUR))
        assert bytes(client.finish(stream).data) == framed(poured(size))
        assert life.received == life.granted

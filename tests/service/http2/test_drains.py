"""Draining under load: what left the client is answered, what did not may be sent elsewhere, nothing lies between."""

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import PingFrame, SettingsFrame, WindowUpdateFrame

from service.closed import Closed
from service.http2 import Http2Limits
from service.http2.connection import Peer
from service.models import Models
from service.status import Code
from tests.service.http2.raw import CONVERT, PREFACE, RawClient, connect, request
from tests.service.http2.serving import Serving, celsius, convert_body
from tests.service.http2.test_calls import BODY
from tests.service.http2.wiretap import Wiretap

REQUEST = BODY[5:]
LAST_OF_A_NOTICE = (1 << 31) - 1


class Load:
    """A grpcio client on a connection of its own that sends nothing twice, until a call fails."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answered = 0
        self.refused: list[grpc.RpcError] = []
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _call(self) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            convert: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CONVERT)
            while not self.refused:
                for call in [convert.future(REQUEST, timeout=20) for _ in range(30)]:
                    try:
                        assert celsius(call.result()) == pytest.approx([10.0])
                        self.answered += 1
                    except grpc.RpcError as error:
                        self.refused.append(error)


def drain_under_load(models: Models, pause_seconds: float) -> int:
    """Drain a front while two clients call, check the wire against both sides, and return the number of answers."""
    with Serving(models) as serving, Wiretap(serving.address) as tap:
        loads = [Load(tap.address) for _ in range(2)]
        while sum(load.answered for load in loads) < 100 or not all(load.answered for load in loads):
            time.sleep(0.001)
        time.sleep(pause_seconds)  # not to wait for anything: each drain meets the load at another point
        assert serving.drain(20)
        for load in loads:
            load.join()
        sent = 0
        for wire in tap.wires:
            assert wire.ended == wire.opened, "a call that was sent was not answered"
            assert wire.last_streams == [LAST_OF_A_NOTICE, max(wire.opened)]
            sent += len(wire.opened)
        assert sum(load.answered for load in loads) == sent == serving.tally.ended[CONVERT, Code.OK]
        assert {error.code() for load in loads for error in load.refused} == {grpc.StatusCode.UNAVAILABLE}
        return sent


def test_every_call_on_the_wire_is_answered(models: Models) -> None:
    """Of calls that meet a drain, those that were sent are answered; what a client loses, it never sent."""
    generator = random.Random(15)  # noqa: S311 - seeded on purpose
    for _ in range(12):
        drain_under_load(models, generator.uniform(0, 0.01))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_call_on_the_wire_is_answered_over_many_drains(models: Models) -> None:
    """The same over five hundred drains."""
    generator = random.Random(16)  # noqa: S311 - seeded on purpose
    answered = sum(drain_under_load(models, generator.uniform(0, 0.01)) for _ in range(500))
    print(f"500 drains, {answered} calls on the wire, all answered")  # noqa: T201 - the figures are what it is for


def test_drain_meets_a_greeting(models: Models) -> None:
    """A client whose greeting was under way when the drain began has the calls answered that it sent with it."""
    limits = Http2Limits(linger_seconds=20)  # as long as this client takes to find its words
    with Serving(models, limits) as serving, RawClient(serving.address, greet=False) as client:
        client.acknowledge_pings = client.acknowledge_settings = False
        while serving.ask(lambda: serving.front.connections) != 1:
            pass
        draining = threading.Thread(target=serving.drain, args=(20,))
        draining.start()
        client.wait(lambda: len(client.goaways) == 1)
        stream, call = client.call_bytes(request(), BODY)
        client.send(PREFACE + SettingsFrame(0).serialize() + call)
        assert client.finish(stream).status == Code.OK
        assert client.goaways[0].last_stream_id == LAST_OF_A_NOTICE
        client.send(PingFrame(0, b"draining", flags={"ACK"}).serialize())
        client.wait_closed()
        client.socket.close()
        draining.join()


def test_drain_meets_connections_that_are_being_opened(models: Models) -> None:
    """Connections that come in the moment of a drain are closed, and none is left to the garbage collector."""
    for _ in range(4):
        with Serving(models, Http2Limits(linger_seconds=0.05)) as serving, contextlib.ExitStack() as opened:
            clients = [opened.enter_context(connect(serving.address)) for _ in range(20)]
            serving.drain(20)
            for client in clients:
                client.settimeout(20)
                with contextlib.suppress(ConnectionResetError):
                    while client.recv(1 << 16):
                        pass
            assert serving.ask(lambda: serving.front.connections) == 0


def test_drain_does_not_wait_for_who_never_greets(models: Models) -> None:
    """A connection that is silent does not hold a drain up for its whole time."""
    limits = Http2Limits(linger_seconds=0.1)
    with Serving(models, limits) as serving, RawClient(serving.address, greet=False) as client:
        while serving.ask(lambda: serving.front.connections) != 1:
            pass
        assert serving.drain(60)
        client.wait_closed()


@pytest.mark.usefixtures("transport")
def test_drain_waits_for_who_reads_slowly(models: Models, tmp_path: Path) -> None:
    """An answer of megabytes is not cut off while its client takes it, however much slower than the linger."""
    limits = Http2Limits(linger_seconds=0.1)
    address = f"unix:{tmp_path}/front.sock"  # its buffers do not grow
    with Serving(models, limits, address=address) as serving, RawClient(address, settings={4: 1 << 30}) as client:
        client.open_windows()
        serving.dataplane.go.clear()
        stream = client.call(convert_body(*[50.0] * 1_000_000))
        while serving.ask(lambda: serving.front.calls) != 1:
            pass
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(serving.drain(30)))
        draining.start()
        client.wait(lambda: len(client.goaways) == 2)
        serving.dataplane.go.set()
        while serving.ask(lambda: serving.front.calls):
            pass
        time.sleep(1.0)  # what a linger of 0.1 s would not survive
        assert client.finish(stream).status == Code.OK
        assert len(celsius(client.answers[stream].message)) == 1_000_000
        client.wait_closed()
        client.socket.close()
        draining.join()
        assert drained == [True]


def test_peer_that_speaks_on_as_its_last_answer_leaves(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a peer sends between its last answer's leaving and our noticing is no misuse: its connection just ends."""
    flush = Peer.flush
    spoken: list[Peer] = []

    def flush_and_hear(peer: Peer) -> None:
        flush(peer)
        finished = peer._http2.finished  # noqa: SLF001 - the very moment is meant
        if finished and peer._calls and not spoken:  # noqa: SLF001 - the same
            spoken.append(peer)
            peer.data_received(WindowUpdateFrame(0, window_increment=10).serialize())

    monkeypatch.setattr(Peer, "flush", flush_and_hear)
    with Serving(models) as serving, RawClient(serving.address, settings={4: 1 << 30}) as client:
        client.open_windows()
        serving.dataplane.go.clear()
        stream = client.call(convert_body(*[50.0] * 100_000))  # for a worker: the loop goes on
        while serving.ask(lambda: serving.front.calls) != 1:
            pass
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(serving.drain, 30)
            client.wait(lambda: len(client.goaways) == 2)
            serving.dataplane.go.set()
            assert client.finish(stream).status == Code.OK
            client.wait_closed()
            client.socket.close()
            assert drained.result()
    assert len(spoken) == 1
    assert [goaway.error_code for goaway in client.goaways] == [0, 0]
    assert serving.tally.closed == {Closed.DRAINING: 1}


def test_calls_of_a_client_that_is_gone_do_not_outlive_the_front(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    """Large ones that waited for the one that is run are given up, and nothing is told of a fault."""
    with Serving(models, Http2Limits(lane_bytes=1)) as serving:
        serving.dataplane.go.clear()
        body = convert_body(*[50.0] * 17_000)
        with RawClient(serving.address) as client:
            for _ in range(3):
                client.call(body)
            while serving.ask(lambda: serving.front.bytes_in_hand) < 3 * (len(body) - 5):
                pass
        draining = threading.Thread(target=serving.drain, args=(20,))
        draining.start()
        while serving.ask(lambda: serving.front.connections):
            pass
        for _ in range(10):  # the drain goes on, until nothing is left but the one that is run
            serving.ask(lambda: None)
        serving.dataplane.go.set()
        draining.join()
        assert serving.tally.batches == []
    assert not caplog.records

"""Who is cut where bytes or calls press for long: the decisions, and what comes of them over real sockets."""

import contextlib
import math
import struct

import pytest
from hyperframe.frame import SettingsFrame
from hypothesis import given
from hypothesis import strategies as st

from service.closed import Closed
from service.errors import Shed
from service.http2 import Http2Limits
from service.http2.stalls import Flow, Idle, Watch, idle_holders, slow_holders
from service.models import Models
from service.status import Code
from tests.service.http2.raw import RawClient, request
from tests.service.http2.serving import Serving, convert_body
from tests.service.http2.test_calls import BODY, assert_honest
from tests.service.http2.test_interop import STREAM, streaming

ENHANCE_YOUR_CALM = 11
MIB = 1 << 20
FLOWS = st.dictionaries(
    st.integers(0, 20), st.builds(Flow, st.integers(0, 1_000), st.integers(0, 1_000), st.floats(0.1, 10))
)


def test_watch() -> None:
    """The time counts from when it began to press, and begins anew after every break."""
    watch = Watch()
    assert watch.pressed_seconds(1.0, pressed=False) == 0.0
    assert [watch.pressed_seconds(now, pressed=True) for now in (2.0, 3.5, 9.0)] == [0.0, 1.5, 7.0]
    assert watch.pressed_seconds(10.0, pressed=False) == 0.0
    assert watch.pressed_seconds(11.0, pressed=True) == 0.0


def test_those_who_take_nothing_are_cut_first() -> None:
    """Then who takes least; who will soon be done, and who holds nothing, never."""
    flows = {
        "takes little": Flow(900, 1, 1.0),
        "takes nothing": Flow(100, 0, 1.0),
        "takes none of much": Flow(200, 0, 1.0),
        "soon done": Flow(5_000, 1_000, 1.0),
        "has nothing": Flow(0, 0, 1.0),
    }
    order = ["takes none of much", "takes nothing", "takes little"]
    assert slow_holders(flows, 10_000, 60.0) == order
    assert slow_holders(flows, 201, 60.0) == order[:2]
    assert slow_holders(flows, 200, 60.0) == order[:1]
    assert slow_holders(flows, 0, 60.0) == []


@given(FLOWS, st.integers(-10, 5_000))
def test_no_more_are_cut_than_need_be(flows: dict[int, Flow], excess: int) -> None:
    """One fewer would not be enough, and all who are left would be done in time where it is still too much."""
    chosen = slow_holders(flows, excess, 60.0)
    freed = [flows[who].waiting_bytes for who in chosen]
    assert sum(freed[:-1]) < excess or not chosen
    assert all(flows[who].seconds_to_go > 60.0 for who in chosen)
    if sum(freed) < excess:
        left = [flow for who, flow in flows.items() if who not in chosen]
        assert all(not flow.waiting_bytes or flow.seconds_to_go <= 60.0 for flow in left)


def test_most_idle_calls_are_cut_first() -> None:
    """Of as many, those that have been idle for longest; connections whose calls all move, never."""
    idle = {"few": Idle(3, 1.0), "many": Idle(90, 9.0), "as many": Idle(90, 8.0), "none": Idle(0, math.inf)}
    assert idle_holders(idle, 1_000) == ["as many", "many", "few"]
    assert idle_holders(idle, 91) == ["as many", "many"]
    assert idle_holders(idle, 1) == ["as many"]
    assert idle_holders(idle, 0) == []


def test_hoarders_of_calls_are_cut(models: Models) -> None:
    """Who opened calls and sent nothing loses them; who has calls that move, and who has few, are left alone."""
    limits = Http2Limits(max_calls=64, stall_seconds=0.5)
    with Serving(models, limits, [streaming()]) as serving, contextlib.ExitStack() as opened:
        busy, quiet, *hoarders = [opened.enter_context(RawClient(serving.address)) for _ in range(7)]
        moving = [busy.call(convert_body(50.0), request(STREAM), end=False) for _ in range(12)]
        few = quiet.call(convert_body(50.0), request(STREAM), end=False)
        while serving.ask(lambda: serving.front.calls) < 13:
            busy.drain(0.01)
        for hoarder in hoarders:
            hoarder.try_send(b"".join(hoarder.headers_frame(request(STREAM), hoarder.new_stream()) for _ in range(40)))
        while not any(hoarder.goaway for hoarder in hoarders):
            for stream in moving:
                busy.send(busy.data_frame(stream, convert_body(50.0)))
            assert_honest(serving.address)
            for client in (busy, quiet, *hoarders):
                client.drain(0.005)
        assert {each.goaway.error_code for each in hoarders if each.goaway} == {ENHANCE_YOUR_CALM}
        while serving.ask(lambda: serving.front.calls) > 48:
            for stream in moving:
                busy.send(busy.data_frame(stream, convert_body(50.0)))
            busy.drain(0.02)
        for client, streams in ((busy, moving), (quiet, [few])):
            for stream in streams:
                client.send(client.data_frame(stream, b"", end=True))
                assert client.finish(stream).status == Code.OK
        sheds = serving.ask(lambda: dict(serving.tally.sheds))
        assert sheds.keys() == {Shed.CALLS, Shed.STALLED}
        assert serving.ask(lambda: set(serving.tally.closed)) <= {Closed.STALLED, Closed.PEER}


def test_slow_answers_of_ours_speak_against_nobody(models: Models) -> None:
    """Calls that wait for a model that takes long are not cut, however many, and however long."""
    limits = Http2Limits(max_calls=16, stall_seconds=0.2, inline_bytes=1)
    with Serving(models, limits) as serving, RawClient(serving.address) as client, RawClient(serving.address) as other:
        serving.dataplane.go.clear()
        calls = [(each, each.call(BODY)) for each in (client, other) for _ in range(7)]
        while serving.ask(lambda: serving.front.calls) < 14:
            client.drain(0.01)
        for _ in range(3):  # looks
            looked = serving.ask(lambda: serving.front._looked)  # noqa: SLF001 - nobody else knows of it
            while serving.ask(lambda: serving.front._looked) == looked:  # noqa: SLF001 - as above
                client.drain(0.02)
        serving.dataplane.go.set()
        assert {each.finish(stream).status for each, stream in calls} == {Code.OK}
        assert not serving.ask(lambda: serving.tally.sheds)


@pytest.mark.parametrize("kind", ["answers", "requests"])
def test_readers_that_take_nothing_are_cut_until_there_is_room(models: Models, kind: str) -> None:
    """Though honest calls give bytes back all the while, and also where requests are never finished."""
    limits = Http2Limits(
        max_bytes_in_hand=8 * MIB, max_connection_bytes_in_hand=2 * MIB, max_message_bytes=MIB, stall_seconds=0.5
    )
    with Serving(models, limits) as serving, contextlib.ExitStack() as opened:
        honest = opened.enter_context(RawClient(serving.address))
        honest.open_windows()  # its many answers are taken
        holders = [
            opened.enter_context(RawClient(serving.address, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
            for _ in range(30)
        ]
        body = convert_body(*[50.0] * 75_000)  # 300 kB each way
        whole = body if kind == "answers" else struct.pack(">BI", 0, MIB) + body
        for holder in holders:
            holder.try_send(holder.call_bytes(request(), whole, end=kind == "answers")[1])
        while serving.ask(lambda: serving.front.bytes_in_hand) < 4 * MIB:
            for holder in holders:
                holder.drain(0.001)
        codes = {honest.unary(BODY).status for _ in range(3)}
        while serving.ask(lambda: serving.front.bytes_in_hand) >= 4 * MIB:
            codes.add(honest.unary(BODY).status)
        assert codes <= {Code.OK, Code.RESOURCE_EXHAUSTED}
        assert [honest.unary(BODY).status for _ in range(20)] == [Code.OK] * 20
        while not any(holder.goaway for holder in holders):
            for holder in holders:
                holder.drain(0.001)
        cut = [holder.goaway.error_code for holder in holders if holder.goaway]
        assert set(cut) == {ENHANCE_YOUR_CALM}
        assert serving.ask(lambda: serving.tally.sheds[Shed.STALLED]) > 0 or kind == "answers"

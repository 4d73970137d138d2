"""What the parent and a worker say to each other, over real socketpairs."""

import asyncio
import socket
import struct
import threading
from typing import get_args

import pytest

from service.errors import NotReadyError
from service.workers.control import (
    Ask,
    Channel,
    Drain,
    Ended,
    Failed,
    Heard,
    Heeded,
    Leaving,
    Message,
    Over,
    Report,
    Start,
    State,
    Survey,
    Surveyed,
    Tell,
    Told,
    Whole,
    encode,
    read,
)
from service.workers.siblings import Siblings, SiblingsError

MESSAGES: list[Message] = [
    Start(1, '{"workers": 1}', {"topic": ["content", None]}),
    Ask(7),
    Told(1, "topic", {"a": 1.5}),
    Heeded(2, {"1": "no version of it can be loaded"}),
    Whole(ready=False, answering=["linear", "linear/stable"], models=["linear", "mlp"]),
    Surveyed(4, [["linear", 1, [[0, 0.5]]]]),
    Drain(),
    State(ready=True, answering=["linear/1"], models=["linear"]),
    Failed("no CUDA here: °"),
    Over(3),
    Report(7, {"numbers": {"x": [[["a"], 1.0]]}}, [{"collections": 1}], [["linear", 1, []]]),
    Tell(3, "topic", "content"),
    Heard(4, "its file cannot be read"),
    Survey(5),
    Leaving(),
    Ended(finished=False),
]


def test_every_kind_is_tried_here() -> None:
    """A message that is added is tested."""
    assert {type(message) for message in MESSAGES} == set(get_args(Message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_worker_reads_what_was_written(message: Message) -> None:
    """Also where it comes byte by byte; and the end of the stream is told as such."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs)
        with ours:
            for byte in encode(message):
                ours.send(bytes([byte]))
            assert channel.receive() == message
        assert channel.receive() is None
        channel.close()


async def test_the_parent_reads_all_in_order() -> None:
    """What many threads might send at once arrives whole, in order, up to the end of the stream."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    with theirs:
        channel = Channel(theirs)
        for message in MESSAGES * 50:
            channel.send(message)
        received = [await read(reader) for _ in range(len(MESSAGES) * 50)]
        channel.close()
    assert received == MESSAGES * 50
    assert await read(reader) is None
    writer.close()
    await writer.wait_closed()


def test_a_message_that_breaks_off_is_the_end() -> None:
    """Whoever is killed while writing is gone; what it wrote of a message is nothing."""
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs)
        with ours:
            ours.sendall(struct.pack("!I", 100) + b'["Ask"')
        assert channel.receive() is None
        channel.close()


def test_sending_to_nobody_ends_quietly() -> None:
    """A worker whose parent is gone does not fail on what it still wanted to say."""
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        channel = Channel(theirs)
        channel.send(Leaving())
        channel.send(Leaving())
        channel.close()


def test_siblings_hear_what_was_told_before_and_then_the_rest() -> None:
    """Each topic's last content first, then everything in the order told, and all of it, whatever a listener does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        siblings = Siblings(channel)
        heard: list[tuple[str, object]] = []

        def listen(topic: str, content: object) -> None:
            heard.append((topic, content))
            if topic == "b":
                raise ValueError("a listener's fault")
            if content == 10:
                raise NotReadyError("its file is gone")

        siblings.listen(listen)
        siblings.hear(Told(5, "b", 2))
        siblings.catch_up({"a": 1})
        assert heard == [("a", 1), ("b", 2)]
        for number in range(6, 106):
            siblings.hear(Told(number, "c", number))
        problems = {5: "a fault, ValueError; its log tells more", 10: "its file is gone"}
        expected = b"".join(encode(Heard(number, problems.get(number, ""))) for number in range(5, 106))
        assert ours.recv(len(expected), socket.MSG_WAITALL) == expected
        assert heard[2:] == [("c", number) for number in range(6, 106)]
        channel.close()


def test_telling_waits_until_all_have_heeded() -> None:
    """It returns what the parent says of each, and says so itself where nothing comes in time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        siblings = Siblings(channel)
        assert siblings.tell("d", [1], seconds=0) == ["not every worker did it within 0 seconds"]
        answers: list[list[str]] = []
        telling = threading.Thread(target=lambda: answers.append(siblings.tell("d", [2])))
        telling.start()
        expected = encode(Tell(1, "d", [1])) + encode(Tell(2, "d", [2]))
        assert ours.recv(len(expected), socket.MSG_WAITALL) == expected
        siblings.answered(Heeded(1, {}))
        assert not answers
        siblings.answered(Heeded(2, {"1": "its disk is full"}))
        telling.join()
        assert answers == [["worker 1: its disk is full"]]
        channel.close()


def test_a_survey_waits_for_its_own_answer() -> None:
    """It returns what the parent gathered under its number, and raises where that does not come in time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        siblings = Siblings(channel)
        with pytest.raises(SiblingsError, match="within 0 seconds"):
            siblings.survey(seconds=0)
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(siblings.survey()))
        asking.start()
        expected = encode(Survey(1)) + encode(Survey(2))
        assert ours.recv(len(expected), socket.MSG_WAITALL) == expected
        siblings.answered(Surveyed(1, ["late"]))
        siblings.answered(Surveyed(2, [["linear", 1]]))
        asking.join()
        assert answers == [[["linear", 1]]]
        channel.close()

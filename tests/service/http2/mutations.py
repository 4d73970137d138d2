"""Conversations in HTTP/2 that a seeded generator makes up and damages: frames of every kind, in sense and nonsense."""

import random
import struct

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.service.http2.raw import CONVERT, PREFACE, framed, request
from tests.service.http2.serving import convert_body

MAX_WINDOW = (1 << 31) - 1


def conversation(generator: random.Random) -> bytes:
    """What one client sends: a greeting, frames that mostly make calls, and damage in most of them."""
    encoder = Encoder()
    parts = [PREFACE, SettingsFrame(0, settings={3: 100}).serialize()]
    stream = 1
    for _ in range(generator.randrange(1, 8)):
        parts.append(_call(generator, encoder, stream) if generator.random() < 0.6 else _oddity(generator, stream))
        stream += 2
    out = bytearray(b"".join(parts))
    if generator.random() < 0.8:
        damage(out, generator)
    return bytes(out)


def damage(out: bytearray, generator: random.Random) -> None:
    """Damage a conversation in a few places, mostly behind its preface."""
    spared = len(PREFACE) if generator.random() < 0.9 else 0
    for _ in range(generator.randrange(1, 10)):
        _damage_once(out, generator, spared)


def _call(generator: random.Random, encoder: Encoder, stream: int) -> bytes:
    """A call: whole, in pieces, or with a message that makes no sense."""
    path = generator.choice([CONVERT, CONVERT, "/no/method", "", "/" + "x" * generator.randrange(3_000)])
    extra = generator.choice([(), (("grpc-timeout", "5m"),), (("grpc-encoding", "gzip"),), (("x-bin", "?"),)])
    block = encoder.encode(request(path, *extra))
    cut = generator.randrange(len(block)) if generator.random() < 0.3 else len(block)
    frames: list[Frame] = [HeadersFrame(stream, block[:cut])]
    if cut < len(block):
        frames.append(ContinuationFrame(stream, block[cut:]))
    frames[-1].flags.add("END_HEADERS")
    body = generator.choice(
        [
            convert_body(*[50.0] * generator.randrange(1, 2_000)),
            framed(generator.randbytes(generator.randrange(200)), generator.choice([0, 0, 1, 2])),
            struct.pack(">BI", 0, generator.randrange(1 << 32)) + generator.randbytes(10),
            b"",
        ]
    )
    frames.extend(DataFrame(stream, body[at : at + 4_000]) for at in range(0, len(body), 4_000))
    if generator.random() < 0.7:
        frames[-1 if isinstance(frames[-1], DataFrame) else 0].flags.add("END_STREAM")
    if generator.random() < 0.2:
        frames.append(RstStreamFrame(stream, generator.randrange(16)))
    return b"".join(frame.serialize() for frame in frames)


def _oddity(generator: random.Random, stream: int) -> bytes:
    """A frame that carries no call, mostly one that is allowed."""
    other = generator.choice([0, stream, max(1, stream - 2), generator.randrange(1 << 31)])
    frames = [
        SettingsFrame(0, settings={generator.randrange(1, 8): generator.choice([0, 1, 16_384, 65_535, MAX_WINDOW])}),
        PingFrame(0, generator.randbytes(8)),
        GoAwayFrame(0, generator.randrange(1 << 31), generator.randrange(16)),
        DataFrame(stream, generator.randbytes(30)),
        PriorityFrame(stream, depends_on=generator.randrange(1 << 31), stream_weight=generator.randrange(256)),
        RstStreamFrame(stream, generator.randrange(1 << 32)),
    ]
    chosen = generator.randrange(len(frames) + 2)
    if chosen < len(frames):
        return bytes(frames[chosen].serialize())
    if chosen == len(frames):
        frame = WindowUpdateFrame(other)
        frame.window_increment = generator.randrange(1, 1 << 31)
        return bytes(frame.serialize())
    payload = generator.randbytes(generator.randrange(40))
    head = struct.pack(">I", len(payload))[1:] + bytes((generator.randrange(256), generator.randrange(256)))
    return head + struct.pack(">I", other) + payload


def _damage_once(out: bytearray, generator: random.Random, spared: int) -> None:
    """Change, drop, repeat or insert a few bytes, or a frame, behind the first."""
    if len(out) <= spared:
        return
    at = generator.randrange(spared, len(out))
    action = generator.randrange(5)
    if action == 0:
        out[at] = generator.randrange(256)
    elif action == 1:
        del out[at : at + generator.randrange(1, 20)]
    elif action == 2:
        out[at:at] = out[spared : spared + generator.randrange(1, 60)]
    elif action == 3:
        out[at:at] = generator.randbytes(generator.randrange(1, 12))
    else:
        out[at:at] = WindowUpdateFrame(0, window_increment=1).serialize()

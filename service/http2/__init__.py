"""The fast front: gRPC over HTTP/2 on asyncio and libnghttp2, where each turn of the event loop is one batch.

One stage a file, from the socket inwards: `front` listens and drains, `connection` is one peer. What it is made of:
`line` is the socket with ngh2's side of it, `incoming` what its peer sent, `outgoing` what it is sent, `open_calls` the
calls in between, `backlog` what waits until there is room, `hand` how much that is. No other file knows ngh2.
`headers`, `messages` and `compression` are gRPC's wire format. `streams` is what all calls have in common; `whole` are
those that came in one piece, `unary` the other unary ones, `streaming` those that stream, and `opening` tells which is
which. `burst` is the batch, `aside` what a worker does for one call. `limits` states every bound; `budget`, `ages`,
`pace`, `stalls` and `deadlines` keep them.

How often the bytes of a large message are copied in this process, beside what the codec and the model do (with these:
docs/attacks.md, "Bounds"):

- in: the loop's read buffer → ngh2's DATA payloads → the joined message (`messages.Assembler`): two copies;
- out: the parts of the answer → one framed message (`messages.frame`) → ngh2's frames → its output → the `bytes` it
  returns: four. ngh2 would turn a view into bytes by itself, so joining costs nothing; the last three are its own. They
  are made 256 KiB at a time: whole bursts took twice as long, though one copy fewer, since what ngh2 grows to hold them
  it copies again as it grows.
"""

from service.http2.front import Http2Front
from service.http2.limits import Http2Limits
from service.http2.tls import Certificates

__all__ = ["Certificates", "Http2Front", "Http2Limits"]

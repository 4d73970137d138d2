"""The fast front: gRPC over HTTP/2 on asyncio, where each turn of the event loop is one batch.

One stage a file, from the socket inwards: `front` listens and drains, `connection` is one peer. What it is made of:
`line` is the socket, `session` what HTTP/2 makes of its bytes and `sending` of ours, `incoming` what its peer sent,
`outgoing` what it is sent, `open_calls` the calls in between, `backlog` what waits until there is room, `hand` how much
that is. The session knows neither sockets nor gRPC's messages: `frames` are the bytes of RFC 9113, `field_blocks` and
`huffman` those of RFC 7541, and `requests` tells which header lists are allowed.
`headers`, `messages` and `compression` are gRPC's wire format. `streams` is what all calls have in common; `whole` are
those that came in one piece, `unary` the other unary ones, `streaming` those that stream, and `opening` tells which is
which. `burst` is the batch, `aside` what a worker does for one call. `limits` states every bound; `budget`, `ages`,
`pace`, `stalls` and `deadlines` keep them.

How often the bytes of a large message are copied in this process, beside what the codec and the model do (with these:
docs/attacks.md, "Bounds"):

- in: the loop's read buffer → the bytes it hands on → the payload of each frame → the joined message
  (`messages.Assembler`): three copies. Payloads are copied since a view of a few bytes would keep all that was read
  with them; the price is one pass, in the cache;
- out: none. The prefix and the parts of a large answer stay where they are (`messages.framed_parts`), the session cuts
  views of them into frames, and the loop gives them to the system as they are, 256 KiB at a time.
"""

from service.http2.front import Http2Front
from service.http2.limits import Http2Limits
from service.http2.tls import Certificates

__all__ = ["Certificates", "Http2Front", "Http2Limits"]

"""The fast front: gRPC over HTTP/2 on asyncio and libnghttp2, where each turn of the event loop is one batch.

One stage a file, from the socket inwards: `front` listens and drains, `connection` is one peer and the only file that
knows ngh2, `headers` and `messages` are gRPC's wire format, `streams` are calls, `whole` those that came in one piece,
`burst` is the batch. `limits` states every bound; `budget`, `ages`, `pace` and `deadlines` are what keeps them.

How often the bytes of a large message are copied in this process, beside what the codec and the model do:

- in: the loop's read buffer → ngh2's DATA payloads → the joined message (`messages.Assembler`): two copies;
- out: the parts of the answer → one framed message (`messages.frame`) → ngh2's output → the `bytes` it returns: three.
  ngh2 would turn a view into bytes by itself, so joining costs nothing; the last two are its own.
"""

from service.http2.front import Http2Front
from service.http2.limits import Http2Limits
from service.http2.tls import Certificates

__all__ = ["Certificates", "Http2Front", "Http2Limits"]

"""The fast front: gRPC over HTTP/2 on asyncio and libnghttp2, where each turn of the event loop is one batch.

One stage a file, from the socket inwards: `front` listens and drains, `connection` is one peer and the only file that
knows ngh2, `headers` and `messages` are gRPC's wire format, `streams` are calls, `burst` is the batch. `limits` states
every bound; `budget`, `ages`, `pace` and `deadlines` are what keeps them.
"""

from service.http2.front import Http2Front
from service.http2.limits import Http2Limits
from service.http2.tls import Certificates

__all__ = ["Certificates", "Http2Front", "Http2Limits"]

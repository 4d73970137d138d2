"""A call that is certainly in flight."""

from queue import SimpleQueue

import grpc

from proto.quicksilver.v1 import converter_pb2 as api
from proto.quicksilver.v1.converter_pb2_grpc import ConverterServiceStub


class Stream:
    """A ConvertStream that lasts until it is told to end."""

    def __init__(self, channel: grpc.Channel, *, model: str = "", timeout_seconds: float = 60) -> None:
        self._model = model
        self._requests: SimpleQueue[api.ConvertStreamRequest | None] = SimpleQueue()
        self.call = ConverterServiceStub(channel).ConvertStream(iter(self._requests.get, None), timeout=timeout_seconds)

    def convert(self, fahrenheit: float) -> float:
        """Send a temperature, and return the answer."""
        request = api.ConvertRequest(fahrenheit=[fahrenheit], model=self._model)
        self._requests.put(api.ConvertStreamRequest(request=request))
        return next(self.call).response.celsius[0]

    def end(self) -> grpc.StatusCode:
        """Send no more, and return the status of the call."""
        self._requests.put(None)
        assert list(self.call) == []
        return self.call.code()

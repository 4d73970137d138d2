"""Our own front with nothing behind it: a unary call is answered with its own bytes. PORT."""

import signal
import sys
import tempfile
from pathlib import Path

from proto.repository import Repository
from service.calls import Context, UnaryMethod
from service.config import load_settings
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.fronts import make_front
from service.metrics import Metrics
from service.models import Models
from service.runs import BatchLimits

PATH = "/benchmarks.Echo/Echo"


def echo(body: bytes, _: Context) -> bytes:
    """Give the bytes back."""
    return body


def serve(port: int, empty: Path) -> None:
    """Serve until SIGTERM."""
    models = Models(Repository(empty), EngineOptions())
    method = UnaryMethod(PATH, echo)
    metrics = Metrics([method], models)
    settings = load_settings({"repository": empty, "listen": f"127.0.0.1:{port}", "transport": "http2"}, None, {})
    front = make_front(settings, {PATH: method}, Dataplane(models, metrics, BatchLimits()), metrics)
    front.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    front.stop(0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with tempfile.TemporaryDirectory() as directory:
        serve(int(sys.argv[1]), Path(directory))

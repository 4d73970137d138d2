"""A worker as it is served with, whose start can be made to fail, and which writes down what its siblings tell it.

The directory to work with is in `MEDDLE`. While a file `broken` is in it, workers die as they start. What is told of
`topic` goes into a file named for the worker's place; what is told of `ask` makes each tell its place under `answer`.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.workers import worker
from service.workers.control import Channel, Start


class Meddled(worker.Worker):
    """The worker, with an ear of ours."""

    def __init__(self, channel: Channel, handoff: Any, start: Start) -> None:  # noqa: ANN401 - passed on
        super().__init__(channel, handoff, start)
        self._file = Path(os.environ["MEDDLE"], str(start.slot))
        self.siblings.listen(self._hear)

    def _hear(self, topic: str, content: Any) -> None:  # noqa: ANN401 - whatever was told
        if topic == "ask":
            self.siblings.tell("answer", self._file.name, seconds=0)  # to wait here were to wait for itself
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{topic}={content}\n")


def main(arguments: Sequence[str]) -> int:
    """Run it, or die."""
    if Path(os.environ["MEDDLE"], "broken").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    worker.Worker = Meddled  # type: ignore[misc] # the one that main makes
    return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a server's processes hold: threads, descriptors, memory, read from /proc."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

SETTLED_SECONDS = 30


@dataclass(frozen=True)
class Footprint:
    """What the processes of a server hold."""

    threads: int
    descriptors: int
    resident_bytes: int

    @classmethod
    def of(cls, process: int) -> "Footprint":
        """Measure a process and all its children."""
        family = [process, *_children(process)]
        status = [Path(f"/proc/{each}/status").read_text() for each in family]
        return cls(
            threads=sum(_field(text, "Threads") for text in status),
            descriptors=sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in family),
            resident_bytes=sum(_field(text, "VmRSS") * 1024 for text in status),
        )


def _field(status: str, name: str) -> int:
    (line,) = [line for line in status.splitlines() if line.startswith(name + ":")]
    return int(line.split()[1])


def _children(process: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            children += [int(child) for child in task.read_text().split()]
    return [each for child in children for each in (child, *_children(child))]

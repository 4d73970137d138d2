"""Prints what the project and some of its extras require: requirements.py pyproject.toml EXTRA...

An image installs these before our own code is copied in, so that a change of the code installs nothing again.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: Path, extras: list[str]) -> list[str]:
    """The requirements of a project's base and of the extras named.

    Raises:
        ValueError: it has no such extra.
    """
    table = tomllib.loads(project.read_text("utf-8"))["project"]
    known: dict[str, list[str]] = table["optional-dependencies"]
    unknown = sorted(set(extras) - set(known))
    if unknown:
        raise ValueError(f"{project} has no extra {', '.join(unknown)}: there are {', '.join(known)}")
    return [*table["dependencies"], *(line for extra in extras for line in known[extra])]


if __name__ == "__main__":
    try:
        print("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])))
    except ValueError as error:
        sys.exit(f"requirements: {error}")

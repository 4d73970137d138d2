"""Writes the dashboards' JSON beside this file; with `--check`, tells whether it is what would be written."""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import models, serving, training

DIRECTORY = Path(__file__).parent / "dashboards"


def written() -> dict[Path, str]:
    """Every dashboard's file, and the text that belongs in it."""
    return {DIRECTORY / f"{part.__name__.rpartition('.')[2]}.json": _text(part.dashboard()) for part in _PARTS}


_PARTS = (serving, models, training)


def _text(dashboard: Dashboard) -> str:
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(dashboard.build()) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or compare them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    check = parser.parse_args(arguments).check
    files = written()
    if check:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
        stale += [path.name for path in sorted(DIRECTORY.glob("*.json")) if path not in files]
        if stale:
            sys.stderr.write(f"not what deploy/grafana writes: {', '.join(stale)}; run python -m deploy.grafana\n")
        return bool(stale)
    DIRECTORY.mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

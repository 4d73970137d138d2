"""Writes the rules of deploy/prometheus as Prometheus' operator takes them; with `--check`, only compares."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules"
WRITTEN: Final = Path(__file__).parent / "overlays" / "production" / "rules.yaml"
HEAD: Final = "# Written by python -m deploy.kubernetes, from deploy/prometheus/rules: change them there.\n"


def groups() -> list[dict[str, Any]]:
    """The groups of every file of rules, in the order of the files' names."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [group for file in files for group in file["groups"]]


def written() -> str:
    """The PrometheusRule that holds them all."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "quicksilver", "labels": {"app.kubernetes.io/name": "quicksilver"}},
        "spec": {"groups": groups()},
    }
    return HEAD + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=120)


def main(arguments: list[str] | None = None) -> int:
    """Write the file, or compare it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kubernetes", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file differs")
    if not parser.parse_args(arguments).check:
        WRITTEN.write_text(written(), "utf-8")
        return 0
    is_stale = not WRITTEN.exists() or WRITTEN.read_text("utf-8") != written()
    if is_stale:
        sys.stderr.write(f"{WRITTEN.name} is not what deploy/prometheus/rules say; run python -m deploy.kubernetes\n")
    return int(is_stale)


if __name__ == "__main__":
    sys.exit(main())

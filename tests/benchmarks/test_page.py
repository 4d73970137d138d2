"""The page that a run writes."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, page
from benchmarks.peers import ALL
from benchmarks.plan import FULL
from benchmarks.run import Runner
from benchmarks.summary import REQUIREMENTS, Spread

MLSERVER = "mlserver"


@pytest.mark.parametrize(
    ("value", "text"), [(0.04711, "0.0471"), (1.5, "1.50"), (34.567, "34.57"), (123.4, "123"), (51_234.9, "51,235")]
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    """Small numbers keep three digits, large ones none after the point."""
    assert page.significant(value) == text


def test_a_range_is_shown_where_rounds_differ() -> None:
    """One round has a figure; several have a median with its range; none has a dash."""
    assert page.ranged(Spread(2, 2, 2)) == "2.00"
    assert page.ranged(Spread(0.002, 0.001, 0.003), 1e6) == "2,000 (1,000–3,000)"
    assert page.ranged(None) == "–"


def test_tables_have_as_many_cells_as_columns() -> None:
    """A table has a rule under its head, and numbers to the right."""
    lines = page.table(["server", "rate"], [["ours", "1"], ["theirs", "2"]]).splitlines()
    assert lines == ["| server | rate |", "| --- | ---: |", "| ours | 1 |", "| theirs | 2 |"]


def results() -> dict[str, Any]:
    """A run of two servers and one workload, as small as one can be."""
    samples = {
        "requests_per_second": 1000.0,
        "cpu_seconds_per_100k": 2.0,
        "requests": 9,
        "errors": 0,
        "foreign_cores": 0.1,
    }
    return {
        "rounds": 1,
        "seconds": 1,
        "machine": {
            "date": "2000-01-01",
            "processor": "abacus",
            "cores": 2,
            "memory_gib": 1,
            "kernel": "0",
            "system": "none",
            "python": "3",
            "h2load": "1",
            "revision": "abc",
            "versions": {"quicksilver": {"onnxruntime": "1"}},
            "installed_bytes": {"quicksilver": 1 << 20},
        },
        "busy_cores": [0.0, 0.5],
        "skipped": {"mlserver": "it is not installed"},
        "samples": {"quicksilver": {"small": [samples]}, "triton_1": {"small": [{**samples, "errors": 3}]}},
        "starts": {"quicksilver": [{"start_seconds": 1.0, "peak_bytes": 1 << 20}]},
        "failures": {
            "triton_1": ["it\nended in /opt/some/where.py, line 1"],
            "triton_2": [
                "ServerFailedError: it ended with status -11: in /opt/a/b 4# 0x000055C12932A8CB",
                "ServerFailedError: it ended with status 1: no such model",
            ],
        },
        "growth": {},
        "models": {},
        "workers": {},
        "limits": [{"onnxruntime_seconds": {"1": 1e-6}, "copy_bytes_per_second": 1e9}],
        "training": {
            "linear": {"epochs": 10, "fit_seconds": 2.0, "floor_seconds": 1.0},
            "closed_form_seconds": 1e-5,
        },
    }


def test_a_page_says_what_was_not_measured(tmp_path: Path) -> None:
    """A run in which little worked gives a page that names what was skipped, what failed, and what nobody knows."""
    page.write_page(results(), tmp_path / "performance.md", {"plot": "A plot"})
    text = (tmp_path / "performance.md").read_text("utf-8")
    assert "**MLServer** was skipped: it is not installed" in text
    assert "**Triton, no batching, 1 instance**: it ended in …, line 1" in text
    assert "**Triton, no batching, 2 instances**: ServerFailedError: it ended with status -11 (SIGSEGV)\n" in text
    assert "**Triton, no batching, 2 instances**: ServerFailedError: it ended with status 1: no such model" in text
    assert f"0 met, 0 missed, {len(REQUIREMENTS)} not measured" in text
    assert "![A plot](performance/plot.png)" in text
    errors_of_triton = next(line for line in text.splitlines() if line.startswith("| Triton, no batching, 1 instance"))
    assert errors_of_triton.endswith("| – | 3 |")


def test_what_a_run_leaves_out_is_told(tmp_path: Path) -> None:
    """Servers that were not asked for are on the page as well, with the reason; those that were are looked for."""
    runnable, skipped = Runner(tmp_path, tmp_path, FULL).servers([MLSERVER])
    assert not runnable
    assert skipped.pop(MLSERVER).startswith("it is not installed")
    assert skipped == {server.key: "it was left out of this run" for server in ALL if server.key != MLSERVER}


def test_growth_with_models_is_drawn(tmp_path: Path) -> None:
    """A step that failed has no point; one point alone makes no line."""
    clean = {"cpu_seconds_per_100k": 2.0, "requests": 9, "errors": 0}
    grown = {
        **results(),
        "models": {"1": clean, "10": {**clean, "cpu_seconds_per_100k": 3.0}, "100": {**clean, "errors": 1}},
    }
    assert "growth_models" in figures.draw_all(grown, tmp_path)
    assert (tmp_path / "growth_models.png").read_bytes().startswith(b"\x89PNG")
    assert "growth_models" not in figures.draw_all({**results(), "models": {"1": clean}}, tmp_path)

"""`quicksilver observations`: files into stores and out of them, and what is said of files that are wrong."""

from pathlib import Path

import pytest

from proto.observations import ObservationStore
from service.observation_commands import run


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of SQLite."""
    return f"sqlite:///{tmp_path}/observations.db"


def _say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command: the exit code, and what it wrote."""
    code = run(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_what_is_exported_is_imported_again(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a hand-written file to a store, out of it, and into another: the same observations, byte by byte."""
    given = tmp_path / "given.csv"
    given.write_text(
        "fahrenheit,celsius,observed_at,source\n"
        "35.7,0.5,2026-03-01T12:00:00Z,wall\n"
        '55.9,14.0,2026-03-01T13:00:00.125+01:00,"the ""old"" one"\n'
    )
    other = f"sqlite:///{tmp_path}/other.db"
    files = [tmp_path / "first.csv", tmp_path / "second.csv"]
    for file, store, source in ((files[0], url, given), (files[1], other, files[0])):
        imported = _say(capsys, "import", str(source), "--store", store)
        assert imported[1] == "2 observations: 2 are new, 0 were there already\n", imported
        assert _say(capsys, "export", str(file), "--store", store)[0] == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    again = _say(capsys, "import", str(given), "--store", url)
    assert again[1] == "2 observations: 0 are new, 2 were there already\n"
    late = _say(capsys, "export", "--store", url, "--until", "2026-03-01T12:00:00.1", "--since", "1772366400")
    assert [line.split(",")[1] for line in late[1].splitlines()] == ["fahrenheit", "35.7"]


def test_a_file_is_stored_in_the_order_of_its_time(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the order of its lines, and over more than one transaction; a line that conflicts is still named."""
    file = tmp_path / "reversed.csv"
    lines = [f"o{number},50,10,{number}.5,s" for number in reversed(range(2500))]
    file.write_text("\n".join(["id,fahrenheit,celsius,observed_at_seconds,source", *lines]))
    assert _say(capsys, "import", str(file), "--store", url)[0] == 0
    with ObservationStore.open(url) as store:
        stored = [known for columns in store.arrivals() for known in columns.id]
    assert stored == [f"o{number}" for number in range(2500)]
    file.write_text("\n".join(["id,fahrenheit,celsius,observed_at_seconds,source", *lines[:-1], "o0,51,10,0.5,s"]))
    assert (
        f"{file}, line 2501: another observation has the id 'o0'"
        in _say(capsys, "import", str(file), "--store", url)[2]
    )


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nan,1,0,s", "line 3: fahrenheit: nan is not a temperature"),
        ("50,-300,0,s", "line 3: celsius: -300 is below absolute zero"),
        ("50,10,soon,s", "line 3: observed_at_seconds: 'soon' is no number"),
        ("50,10,0", "line 3: line: has not as many values"),
        ("50,10,0,", "line 3: source: is empty"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_stored(
    url: str, tmp_path: Path, line: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole file is looked at before the first line is stored."""
    file = tmp_path / "wrong.csv"
    file.write_text(f"fahrenheit,celsius,observed_at_seconds,source\n50,10,0,s\n{line}\n")
    done = _say(capsys, "import", str(file), "--store", url)
    assert done[0] == 1
    assert named in done[2]
    assert "there is no store" in _say(capsys, "stats", "--store", url)[2]


def test_an_import_needs_a_store_or_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without either, the error names both, and without a server that answers, its address."""
    monkeypatch.delenv("QUICKSILVER_SERVER", raising=False)
    monkeypatch.delenv("QUICKSILVER_OBSERVATIONS", raising=False)
    file = tmp_path / "one.csv"
    file.write_text("fahrenheit,celsius,observed_at_seconds,source\n50,10,0,s\n")
    assert "--store URL or --server HOST:PORT" in _say(capsys, "import", str(file))[2]
    nobody = _say(capsys, "import", str(file), "--server", "127.0.0.1:1")
    assert nobody[0] == 1
    assert "127.0.0.1:1" in nobody[2]

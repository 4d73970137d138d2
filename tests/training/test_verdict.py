"""A verdict says all it knows, in JSON for programs and on a page for people, whatever it came to."""

import dataclasses
import json
from pathlib import Path

import pytest

from proto.artefact import Interval
from proto.repository import MODEL_FILE, Repository
from tests.service.artefacts import make_artefact
from tests.training.crash_publish import accepted, plan_in
from tests.training.pages_read import Page
from training.acceptance import publish_accepted
from training.challengers import Figures
from training.champion import read_champion
from training.errors import ChampionError
from training.gate import Check, GroupErrors, SourceErrors
from training.job_lock import locked
from training.observed import SourceCounts
from training.verdict import (
    ACCEPTED,
    JSON_FILE,
    NOT_ENOUGH_DATA,
    REJECTED,
    ChallengerFigures,
    ChampionFigures,
    ObservationFigures,
    PartFigures,
    Verdict,
    as_json,
    summary,
)
from training.verdict_files import KEPT_REPORTS, reports, write_report
from training.verdict_page import page

FIT = Figures("mlp", 2, 0.5, 120, 0.31)


def judged(root: Path, *, with_champion: bool = True) -> Verdict:
    """A rejection with every figure there can be."""
    their = 0.5 if with_champion else None
    return dataclasses.replace(
        accepted(plan_in(root), b""),
        outcome="rejected",
        reasons=("the <b>bound</b> is passed",),
        base_data="built-in",
        observations=ObservationFigures(
            300,
            250,
            1.7e9,
            {"a<i>": SourceCounts(200, 40, 10, 150)},
            {"training": PartFigures(150, 1.7e9, 1.7e9 + 60, ("a<i>",)), "held_out": PartFigures(0, None, None, ())},
        ),
        champion=ChampionFigures(3, "linear", "ab" * 32, None) if with_champion else None,
        challenger=ChallengerFigures(FIT, "cd" * 32, 4096, 25, 250, 0.2, 0.3, 1.7e9, Interval(0.7, 0.8, "m"), 3e-6),
        candidates=(FIT,),
        checks=(Check("absolute bound", passed=False, asked="at most 2 °C", found="3.1 °C"),),
        errors_by_source=(SourceErrors("a<i>", 60, 3.1, their),),
        errors_over_time=(GroupErrors(1.7e9, 1.7e9 + 9, 3.1, their), GroupErrors(1.7e9 + 9, 1.7e9 + 19, 3.0, their)),
    )


@pytest.mark.parametrize("with_champion", [True, False])
def test_page_shows_every_figure_and_escapes_names(tmp_path: Path, *, with_champion: bool) -> None:
    """With a champion and without: sources, checks, fits and files stand on a page that fetches nothing."""
    shown = Page(page(judged(tmp_path, with_champion=with_champion)).decode())
    assert shown.outside_references() == []
    assert ["a<i>", "200", "40", "10", "150"] in shown.rows
    assert ["absolute bound", "at most 2 °C", "3.1 °C", "NO"] in [
        [cell.replace("\xa0", " ") for cell in row] for row in shown.rows
    ]
    assert ["a<i>", "60", "3.100", "0.500" if with_champion else "–"] in shown.rows
    assert ["mlp", "2", "0.5", "120", "0.3100"] in shown.rows
    assert "the <b>bound</b> is passed" in shown.text
    assert "cd" * 32 in shown.text
    assert ("ab" * 32 in shown.text) == with_champion
    assert len(shown.images()) == 2


def test_json_holds_the_same(tmp_path: Path) -> None:
    """Every field under its name, with the schema's version; nothing that JSON does not know."""
    verdict = judged(tmp_path)
    found = json.loads(as_json(verdict))
    assert found.pop("schema_version") == 1
    assert found == json.loads(json.dumps(dataclasses.asdict(verdict)))
    assert set(found) == {field.name for field in dataclasses.fields(Verdict)}


def test_summary_and_exit_codes(tmp_path: Path) -> None:
    """The lines name what failed and why; each outcome has its code."""
    verdict = judged(tmp_path)
    said = "\n".join(summary(verdict))
    assert "FAILED         absolute bound: 3.1 °C" in said
    assert "because        the <b>bound</b> is passed" in said
    assert "champion       version 3" in said
    outcomes = [dataclasses.replace(verdict, outcome=each) for each in ("accepted", "rejected", "not_enough_data")]
    assert [each.exit_code for each in outcomes] == [ACCEPTED, REJECTED, NOT_ENOUGH_DATA]


def test_first_version_of_a_name_needs_no_label(tmp_path: Path) -> None:
    """Without a champion the accepted version becomes stable by itself, its verdict beside it."""
    plan = plan_in(tmp_path)
    plan.repository.root.mkdir()
    model = make_artefact()
    with locked(plan):
        first = dataclasses.replace(accepted(plan, model), label=None)
        made = publish_accepted(plan, first, model, None, plan.repository.labels_state("linear"))
    repository = Repository(tmp_path / "models")
    assert (made.version, made.remark) == (1, None)
    assert repository.labels("linear") == {"stable": 1}
    assert repository.model_path("linear", 1).with_name(JSON_FILE).is_file()


def test_a_champion_that_changed_meanwhile_stops_the_publishing(tmp_path: Path) -> None:
    """What was judged against a version that answers no more is not published."""
    plan = plan_in(tmp_path)
    plan.repository.publish("linear", make_artefact())
    model, state = make_artefact(offset_celsius=1.0), plan.repository.labels_state("linear")
    with locked(plan), pytest.raises(ChampionError, match="was changed while"):
        publish_accepted(plan, accepted(plan, model), model, None, state)
    assert plan.repository.versions("linear") == [1]


def test_labels_that_changed_meanwhile_stop_the_publishing(tmp_path: Path) -> None:
    """Whoever gave a label while a challenger was judged is not overruled, also where the same version answers."""
    plan = plan_in(tmp_path)
    plan.repository.publish("linear", make_artefact())
    champion, state = read_champion(plan.repository, "linear"), plan.repository.labels_state("linear")
    plan.repository.set_label("linear", "canary", plan.repository.publish("linear", make_artefact(offset_celsius=2.0)))
    model = make_artefact(offset_celsius=1.0)
    with locked(plan), pytest.raises(ChampionError, match="labels of 'linear' were changed while"):
        publish_accepted(plan, accepted(plan, model), model, champion, state)
    assert plan.repository.versions("linear") == [1, 2]
    assert plan.repository.labels("linear") == {"stable": 1, "canary": 2}
    assert not plan.intent_path.exists()


@pytest.mark.parametrize("case", ["champion", "label", "nothing"])
def test_a_label_is_given_late_only_where_nothing_was_decided_meanwhile(tmp_path: Path, case: str) -> None:
    """Else the intent goes, and why is said; the version stays."""
    plan = plan_in(tmp_path)
    plan.repository.publish("linear", make_artefact())
    former = read_champion(plan.repository, "linear")

    def refuse(_label: str, _version: int, _state: str) -> None:
        raise ChampionError("not now")

    with locked(plan) as remark:
        assert remark is None
        cut_off = dataclasses.replace(plan, give_label=refuse)
        model, state = make_artefact(offset_celsius=1.0), plan.repository.labels_state("linear")
        made = publish_accepted(cut_off, accepted(plan, model), model, former, state)
    assert made.version == 2
    third = plan.repository.publish("linear", make_artefact(offset_celsius=2.0))
    if case != "nothing":
        plan.repository.set_label("linear", "stable" if case == "champion" else "canary", third)
    before = plan.repository.labels("linear")
    with locked(plan) as remark:
        pass
    with locked(plan) as again:
        assert again is None
    if case == "nothing":
        assert remark is None
        assert plan.repository.labels("linear") == before | {"canary": 2}
    else:
        assert remark is not None
        assert "linear/2 is not labelled 'canary': labels were changed" in remark
        assert plan.repository.labels("linear") == before


def test_old_reports_go(tmp_path: Path) -> None:
    """So many are kept, the newest; rounds of one second have names of their own, and rejected files lie with them."""
    verdict = dataclasses.replace(judged(tmp_path), errors_over_time=())
    for second in range(KEPT_REPORTS):
        place = tmp_path / f"20200101T00{second // 60:02}{second % 60:02}Z-rejected"
        place.mkdir()
        (place / JSON_FILE).write_text("{}")
    pages = [write_report(tmp_path, verdict, b"model") for _ in range(2)]
    kept = reports(tmp_path)
    assert len(kept) == KEPT_REPORTS
    assert [path.parent for path in pages] == kept[-2:]
    assert (kept[-1] / MODEL_FILE).read_bytes() == b"model"

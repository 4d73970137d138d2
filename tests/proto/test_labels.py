"""The file of labels: what it says, and what it remembers."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.labels import HISTORY_LENGTH, Labels
from proto.traffic import CANARY, CanaryTraffic

NAMES = st.sampled_from(["stable", "canary", "labels", "previous", "removed_up_to", "canary_traffic", "stable_moves"])
VERSIONS = st.integers(1, 30)
TRAFFIC = st.one_of(st.just(CanaryTraffic(shadow=True)), st.floats(0, 1).map(CanaryTraffic))


@st.composite
def labels(draw: st.DrawFn) -> Labels:
    """Labels after any number of moves, rollbacks and removals."""
    made = Labels()
    for label, version, step in draw(st.lists(st.tuples(NAMES, VERSIONS, st.integers(0, 3)), max_size=40)):
        if step == 0:
            made = made.removing(version)
        elif step == 1 and (earlier := made.before(label, range(1, 31))) is not None:
            made = made.rolled_back(label, earlier)
        elif step == 2 and label in made.current and len(made.current) > 1:
            made = made.without(label)
        else:
            made = made.moved(label, version).promoted(version / 3)
        if label == CANARY:
            made = made.canary_given(version * 3.0)
    return replace(made, traffic=draw(TRAFFIC))


@given(labels())
def test_reading_and_writing_are_inverse(made: Labels) -> None:
    """Whatever happened to labels, the file says all of it, and no history grows over its bound."""
    assert Labels.parse(made.text()) == made
    assert all(0 < len(history) <= HISTORY_LENGTH for history in made.previous.values())
    assert made.previous.keys() <= made.current.keys()


@given(st.dictionaries(NAMES, VERSIONS))
def test_a_plain_object_of_labels_is_read(plain: dict[str, int]) -> None:
    """Files written before there was a history, or by hand, need no more than label → version."""
    assert Labels.parse(json.dumps(plain)) == Labels(plain)


@given(st.lists(VERSIONS, min_size=2, max_size=HISTORY_LENGTH))
def test_rollbacks_go_back_step_by_step(moves: list[int]) -> None:
    """Each rollback undoes the latest move, down to the first version that the label named."""
    made = Labels()
    distinct = [moves[0]]
    for version in moves:
        made = made.moved("stable", version)
        if version != distinct[-1]:
            distinct.append(version)
    for expected in distinct[-2::-1]:
        earlier = made.before("stable", range(1, 31))
        assert earlier == expected
        made = made.rolled_back("stable", earlier)
    assert made.current["stable"] == distinct[0]
    assert made.before("stable", range(1, 31)) is None


def test_a_rollback_skips_versions_that_are_gone() -> None:
    """What was removed meanwhile is no target."""
    made = Labels().moved("stable", 1).moved("stable", 2).moved("stable", 3)
    assert made.before("stable", [1, 3]) == 1
    assert made.rolled_back("stable", 1) == Labels({"stable": 1})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting"),
        ("[]", "not an object"),
        ("1", "not an object"),
        ('{"stable": 0}', "0 is not a whole number from 1"),
        ('{"Stable": 1}', "'Stable' is not a label"),
        ('{"labels": []}', r"\[\] is not a whole number"),
        ('{"labels": {"stable": true}}', "True is not a whole number from 1"),
        ('{"labels": {}, "x": {}}', "unknown key 'x'"),
        ('{"labels": {}, "previous": []}', "'previous' is not an object"),
        ('{"labels": {}, "previous": {"stable": 1}}', "1 is not a list of versions"),
        ('{"labels": {}, "previous": {"stable": [0]}}', "0 is not a whole number from 1"),
        ('{"labels": {}, "removed_up_to": -1}', "-1 is not a whole number from 0"),
        ('{"labels": {}, "removed_up_to": "1"}', "'1' is not a whole number from 0"),
        ('{"labels": {}, "canary_traffic": 1}', "1 is not a rule for a canary"),
        ('{"labels": {}, "canary_traffic": {"x": 1}}', "unknown key 'x'"),
        ('{"labels": {}, "canary_traffic": {"share": 1.5}}', "a number from 0 to 1, not 1.5"),
        ('{"labels": {}, "canary_traffic": {"share": NaN}}', "a number from 0 to 1, not nan"),
        ('{"labels": {}, "canary_traffic": {"share": true}}', "True is not a share"),
        ('{"labels": {}, "canary_traffic": {"shadow": 1}}', "1 is neither true nor false"),
        ('{"labels": {}, "canary_traffic": {"share": 1, "shadow": true}}', "not both"),
        ('{"labels": {}, "stable_moves": []}', "'stable_moves' is not an object"),
        ('{"labels": {}, "stable_moves": {"x": 1}}', "unknown key 'x'"),
        ('{"labels": {}, "stable_moves": {"promotions": -1}}', "-1 is not a whole number from 0"),
        ('{"labels": {}, "stable_moves": {"last_seconds": Infinity}}', "inf is not a time"),
        ('{"labels": {}, "canary_since_seconds": -1}', "-1 is not a time"),
        ('{"labels": {}, "canary_since_seconds": "1"}', "'1' is not a time"),
    ],
)
def test_what_is_no_file_of_labels_is_refused(text: str, reason: str) -> None:
    """A guess about what answers would be worse than none."""
    with pytest.raises(ValueError, match=reason):
        Labels.parse(text)


def test_a_canary_is_as_old_as_its_label_on_that_version() -> None:
    """What moves the label, or takes it away, begins anew; the same again, other labels and traffic do not."""
    given = Labels({"stable": 1}).moved(CANARY, 2).canary_given(100.0)
    assert given.canary_since_seconds == 100.0
    assert given.moved(CANARY, 2).canary_given(200.0).canary_since_seconds == 100.0
    assert given.moved("stable", 2).promoted(200.0).removing(1).canary_since_seconds == 100.0
    moved = given.moved(CANARY, 3)
    assert moved.canary_since_seconds == 0.0
    assert moved.canary_given(200.0).rolled_back(CANARY, 2).canary_since_seconds == 0.0
    assert given.without(CANARY).canary_since_seconds == 0.0

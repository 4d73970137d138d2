"""`quicksilver models label | unlabel | canary | rollback | remove`: run as the command that they are."""

from collections.abc import Callable

import pytest

import quicksilver
from proto.repository import Repository
from proto.traffic import CanaryTraffic

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(repository: Repository, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on `repository`; gives its exit code, and what it said on stdout and stderr."""

    def call(action: str, *words: str) -> tuple[int, str, str]:
        code = quicksilver.main(["models", action, *words, "--repository", str(repository.root)])
        return code, *capsys.readouterr()

    return call


def test_a_label_moves_forward_and_back(run: Run, repository: Repository) -> None:
    """Several labels are set at once; a rollback goes to where the label was."""
    code, said, _ = run("label", "linear", "stable=2", "canary=2", "--device", "cpu")
    assert (code, said) == (0, "linear: stable is version 2\nlinear: canary is version 2\n")
    assert run("rollback", "linear") == (0, "linear: stable is version 1 again\n", "")
    assert repository.labels("linear") == {"stable": 1, "canary": 2}
    assert run("unlabel", "linear", "canary")[0] == 0
    assert repository.labels("linear") == {"stable": 1}


def test_a_canary_gets_a_share_or_copies_or_nothing(run: Run, repository: Repository) -> None:
    """Each rule takes the place of the one before, and is in the repository when the command ends."""
    run("label", "linear", "canary=2", "--device", "cpu")
    for words, said, traffic in [
        (("--share", "0.1"), "answers 0.1 of the requests", CanaryTraffic(share=0.1)),
        (("--shadow",), "runs in the shadow", CanaryTraffic(shadow=True)),
        (("--off",), "gets nothing", CanaryTraffic()),
    ]:
        assert run("canary", "linear", *words) == (0, f"linear: canary {said}\n", "")
        assert repository.label_history("linear").traffic == traffic


def test_no_label_moves_to_a_version_that_does_not_verify(run: Run, repository: Repository) -> None:
    """The reason is told, and no label of the command moves, not even one whose version is good."""
    repository.publish("linear", b"broken")
    code, said, complained = run("label", "linear", "canary=2", "stable=3")
    assert (code, said) == (1, "")
    assert "linear/3 does not verify, so no label moves to it: ONNX Runtime cannot load" in complained
    assert repository.labels("linear") == {"stable": 1}


def test_no_rollback_to_a_version_that_no_longer_verifies(run: Run, repository: Repository) -> None:
    """A file that was damaged since is found before anything moves."""
    repository.set_label("linear", "stable", 2)
    repository.model_path("linear", 1).write_bytes(b"damaged")
    code, _, complained = run("rollback", "linear")
    assert code == 1
    assert "linear/1 does not verify" in complained
    assert repository.labels("linear") == {"stable": 2}


def test_a_version_is_removed_unless_it_is_labelled(run: Run, repository: Repository) -> None:
    """The refusal names the label."""
    assert run("remove", "linear", "2") == (0, "linear: version 2 is removed\n", "")
    code, _, complained = run("remove", "linear", "1")
    assert (code, complained) == (1, "quicksilver models: linear/1 is labelled stable: move the label first\n")
    assert repository.versions("linear") == [1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("label", "linear", "stable=9"), "no version 9 of 'linear'"),
        (("label", "absent", "stable=1"), "no version 1 of 'absent'"),
        (("label", "linear", "Stable=1"), "'Stable' is not a valid name"),
        (("label", "../linear", "stable=1"), "'../linear' is not a valid name"),
        (("canary", "linear", "--shadow"), "no label 'canary'"),
        (("rollback", "linear"), "no version is known that 'stable'"),
        (("rollback", "linear", "--label", "canary"), "no label 'canary'"),
        (("unlabel", "linear", "stable"), "the last label"),
        (("remove", "linear", "9"), "no version 9"),
    ],
)
def test_what_cannot_be_done_is_one_line(run: Run, words: tuple[str, ...], reason: str) -> None:
    """Exit code 1, and stderr says why."""
    code, said, complained = run(*words)
    assert (code, said) == (1, "")
    assert reason in complained
    assert complained.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("label", "linear"),
        ("label", "linear", "stable"),
        ("label", "linear", "stable=0"),
        ("remove", "x", "-1"),
        ("canary", "linear"),
        ("canary", "linear", "--share", "1.1"),
        ("canary", "linear", "--share", "nan"),
        ("canary", "linear", "--off", "--shadow"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2

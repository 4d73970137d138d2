"""What becomes of an accepted challenger: it is published with its verdict, and gets its label, once.

A job may be killed between any two steps, and publishing and labelling are two. So which label is to be given is
written down before, in the repository, where every later job finds it: an *intent*. It is taken away when the label
was given. Where one is found, the job that wrote it was killed, and what it had not done yet is done, if nothing else
was decided since: labels that were changed in any way, be it by that job itself, by a promotion, a rejection or a
person, are left as they are. A label is thus never given twice, and never over somebody's head.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from proto.repository import STABLE, RepositoryError
from training import places, verdict_files
from training.champion import Champion, current_version
from training.errors import ChampionError, TrainingError
from training.plan import Plan, Round
from training.verdict import PAGE_FILE, Verdict


@dataclass(frozen=True, slots=True)
class Intent:
    """A label that the version with a certain file is to get."""

    sha256: str
    label: str
    newer_than: int
    """The version is newer than this: an older one may hold the same file, and had its own decision."""
    labels_state: str
    """Of the labels when this was written down; see `Repository.labels_state`."""

    def write(self, path: Path) -> None:
        """Put it on disk, whole and synced."""
        places.replace_file(path, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read one; None where there is none.

        Raises:
            ChampionError: the file is no intent. Nobody but a job writes there.
        """
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ChampionError(f"{path} does not say which label a version is to get: remove it") from error


def publish_accepted(plan: Plan, verdict: Verdict, model: bytes, champion: Champion | None, labels_state: str) -> Round:
    """Publish the file of an accepted challenger with its verdict, and label it. The lock must be held.

    `labels_state` is that of the beginning of the round: whoever changed a label since, decided without its verdict.

    Raises:
        ChampionError: another version answers by now than the one that it was judged against, or labels were changed.
        TrainingError, RepositoryError: it cannot be published.
    """
    if current_version(plan.repository, plan.name) != (None if champion is None else champion.version):
        raise ChampionError(f"the champion of {plan.name!r} was changed while its challenger was judged: try again")
    if plan.repository.labels_state(plan.name) != labels_state:
        raise ChampionError(f"the labels of {plan.name!r} were changed while its challenger was judged: try again")
    if verdict.label is not None and verdict.challenger is not None:
        _prepare(plan, verdict.label, verdict.challenger.sha256, champion, labels_state)
    version = plan.deliver(model, verdict_files.contents(verdict))
    remark = _finish(plan, version)
    beside = plan.repository.model_path(plan.name, version).with_name(PAGE_FILE)
    report = beside if beside.is_file() else verdict_files.write_report(plan.directory, verdict)
    return Round(verdict, report, version, remark)


def _prepare(plan: Plan, label: str, sha256: str, champion: Champion | None, labels_state: str) -> None:
    """Write down which label is to be given.

    A champion that answers as the newest version of a model without labels becomes `stable` first: the version that is
    published now would answer in its place at once, and after another label came nobody would.
    """
    if champion is not None and not plan.repository.labels(plan.name):
        plan.give_label(STABLE, champion.version, labels_state)
        labels_state = _state_of(plan, {STABLE: champion.version})
    newest = max(plan.repository.versions(plan.name), default=0)
    Intent(sha256, label, newer_than=newest, labels_state=labels_state).write(plan.intent_path)


def _state_of(plan: Plan, labels: Mapping[str, int]) -> str:
    """The state of labels that are as they should be.

    Raises:
        ChampionError: somebody changed them.
    """
    state = plan.repository.labels_state(plan.name)
    if plan.repository.labels(plan.name) != labels:
        raise ChampionError(f"the labels of {plan.name!r} were changed while its challenger was published: try again")
    return state


def finish_interrupted(plan: Plan) -> str | None:
    """Give the label that a killed job had written down, where its version is there. The lock must be held.

    Returns what is to be said, where something is: that the label could not be given, and that the next job tries
    again, or that it is not given any more.

    Raises:
        ChampionError: what is written down is no intent.
    """
    return _finish(plan, None)


def _finish(plan: Plan, published: int | None) -> str | None:
    """Give the label that is written down to the version just published, or to the one that is found by its file."""
    intent = Intent.read(plan.intent_path)
    if intent is None:
        return None
    version = _version_of(plan, intent) if published is None else published
    remark = None
    if version is not None and plan.repository.labels(plan.name).get(intent.label) != version:
        try:
            remark = _give(plan, intent, version)
        except (TrainingError, RepositoryError, OSError) as error:
            return (
                f"{plan.name}/{version} could not be labelled {intent.label!r}, which the next job tries again: {error}"
            )
    plan.intent_path.unlink()
    return remark


def _give(plan: Plan, intent: Intent, version: int) -> str | None:
    """Give the label where nobody touched any since; else say that it is not given."""
    if plan.repository.labels_state(plan.name) != intent.labels_state:
        return (
            f"{plan.name}/{version} is not labelled {intent.label!r}: labels were changed after it was accepted, "
            "and are left as they are"
        )
    plan.give_label(intent.label, version, intent.labels_state)
    return None


def _version_of(plan: Plan, intent: Intent) -> int | None:
    """The version that holds the very file of an intent."""
    for version in reversed(plan.repository.versions(plan.name)):
        if version <= intent.newer_than:
            break
        with contextlib.suppress(FileNotFoundError):
            model = plan.repository.model_path(plan.name, version).read_bytes()
            if hashlib.sha256(model).hexdigest() == intent.sha256:
                return version
    return None

"""The whole lifecycle against a simple model of it: any order of publishing, labelling, looking, loading, restarting.

The model knows nothing of files or sessions: it says which versions should answer, which label means which, and which
versions should still be in memory. The real thing is a repository on disk, and sessions that are run.
"""

import contextlib
import tempfile
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proto.repository import LABELS_FILE, MODEL_FILE, LabelledError, Repository, UnknownModelError, VersionExistsError
from service.catalogue import VersionState
from service.control import RepositoryControl
from service.engine import EngineOptions
from service.errors import AlreadyExistsError, InvalidRequestError, NotReadyError, ServiceError
from service.loading import LoadedVersion
from service.models import Models, VersionPolicy
from tests.service.artefacts import exact_celsius, make_artefact

CPU = EngineOptions(device="cpu")
NAMES = st.sampled_from(["linear", "mlp"])
LABELS = st.sampled_from(["stable", "canary"])
FAHRENHEIT = 50.0
BROKEN = b"broken"


@dataclass
class Expected:
    """What should be true of one model. Offsets, in °C, tell its versions apart; that of a broken one is None."""

    disk: dict[int, float | None] = field(default_factory=dict)
    greatest: int = 0
    """The greatest number that was ever published."""
    labels: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    in_effect: dict[str, int] = field(default_factory=dict)
    told: bool = False
    """Whether a load was asked for, where that decides."""

    def works(self, version: int) -> bool:
        """Whether a version can be had, from disk or because it is in memory."""
        return version in self.memory or self.disk.get(version) is not None

    def move(self, label: str, version: int) -> None:
        """Let a label name a version."""
        before = self.labels.get(label)
        if before is not None and before != version:
            self.history.setdefault(label, []).append(before)
        self.labels[label] = version

    def target_of_rollback(self, label: str) -> int | None:
        """Where a rollback goes."""
        for version in reversed(self.history.get(label, [])):
            if version in self.disk and version != self.labels.get(label):
                return version
        return None

    def follow(self, latest: int | None) -> None:
        """Catch up with the disk."""
        chosen: set[int] = set()
        for version in sorted(self.disk, reverse=True):
            if latest is not None and len({number for number in chosen if self.works(number)}) == latest:
                break
            chosen.add(version)
        self.in_effect = {
            label: target if self.works(target) or not self.works(self.in_effect.get(label, target))
            else self.in_effect[label]
            for label, target in self.labels.items()
        }  # fmt: skip
        wanted = chosen | set(self.labels.values()) | set(self.in_effect.values())
        offsets = {version: self.memory.get(version, self.disk.get(version)) for version in wanted}
        self.memory = {version: offset for version, offset in offsets.items() if offset is not None}


def answer_of(version: LoadedVersion) -> float:
    """What a version makes of 50 °F."""
    return float(version.engine.run([np.array([[FAHRENHEIT]], np.float32)])[0][0, 0])


class Lifecycle(RuleBasedStateMachine):
    """A repository and the models in memory, beside what should be true of them."""

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.ExitStack()
        self.repository = Repository(self.exit.enter_context(tempfile.TemporaryDirectory()))
        self.expected: dict[str, Expected] = {}
        self.running: list[tuple[LoadedVersion, float]] = []
        """Versions that runs are under way on, with what they must answer."""
        self.seen: list[weakref.ref[LoadedVersion]] = []
        self.contents = 0

    def teardown(self) -> None:
        """Remove the repository."""
        self.exit.close()

    @initialize(explicit=st.booleans(), latest=st.sampled_from([1, 2, None]))
    def begin(self, *, explicit: bool, latest: int | None) -> None:
        """Start a server over an empty repository."""
        self.explicit = explicit
        self.latest = latest
        self.start()

    def start(self) -> None:
        """Start the models anew, as a process does."""
        policy = VersionPolicy(latest=self.latest)
        self.models = Models(self.repository, CPU, policy=policy, explicit=() if self.explicit else None)
        self.models.load()
        self.control = RepositoryControl(
            self.models, self.repository, CPU, "explicit" if self.explicit else "watch", drain_seconds=0
        )

    def look(self) -> None:
        """Look at the repository, in fact and in expectation."""
        self.models.refresh()
        for expected in self.expected.values():
            if not self.explicit:
                expected.follow(self.latest)

    def content(self, *, works: bool) -> tuple[bytes, float | None]:
        """A file that no other version has."""
        self.contents += 1
        return (make_artefact(offset_celsius=self.contents), float(self.contents)) if works else (BROKEN, None)

    # On disk ----------------------------------------------------------------------------------------------------------

    @rule(name=NAMES, works=st.sampled_from([True, True, False]), look=st.booleans())
    def publish(self, name: str, *, works: bool, look: bool) -> None:
        """A trainer publishes a version, good or broken."""
        content, offset = self.content(works=works)
        expected = self.expected.setdefault(name, Expected())
        number = self.repository.publish(name, content)
        assert number == expected.greatest + 1
        if not expected.labels:
            expected.move("stable", number)
        expected.greatest = number
        expected.disk[number] = offset
        if look:
            self.look()

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), label=LABELS, look=st.booleans())
    def label(self, data: st.DataObject, label: str, *, look: bool) -> None:
        """Somebody moves a label, to a good version or to a broken one."""
        name, version = self.draw_version(data)
        self.repository.set_label(name, label, version)
        self.expected[name].move(label, version)
        if look:
            self.look()

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), label=LABELS, look=st.booleans())
    def roll_back(self, data: st.DataObject, label: str, *, look: bool) -> None:
        """Somebody takes the last move of a label back, where there is one to take back."""
        name = data.draw(st.sampled_from(sorted(self.expected)))
        expected = self.expected[name]
        target = expected.target_of_rollback(label)
        if target is None:
            with pytest.raises(UnknownModelError):
                self.repository.roll_back(name, label)
            return
        assert self.repository.roll_back(name, label) == target
        history = expected.history[label]
        while history.pop() != target:
            pass
        expected.labels[label] = target
        if look:
            self.look()

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), look=st.booleans())
    def remove(self, data: st.DataObject, *, look: bool) -> None:
        """Somebody removes a version, which is refused where a label names it."""
        name, version = self.draw_version(data)
        expected = self.expected[name]
        if version in expected.labels.values():
            with pytest.raises(LabelledError):
                self.repository.remove(name, version)
            return
        self.repository.remove(name, version)
        del expected.disk[version]
        with pytest.raises(VersionExistsError):
            self.repository.publish(name, b"another", version=version)
        if look:
            self.look()

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def damage_labels(self, data: st.DataObject) -> None:
        """Somebody leaves half a file of labels for a while: whoever serves goes on with those in effect."""
        name = data.draw(st.sampled_from(sorted(self.expected)))
        self.look()
        path = self.repository.root / name / LABELS_FILE
        whole = path.read_bytes()
        path.write_bytes(whole[:5])
        self.models.refresh()
        self.check_all()
        path.write_bytes(whole)

    def draw_version(self, data: st.DataObject) -> tuple[str, int]:
        """A version that is on disk."""
        name = data.draw(st.sampled_from(sorted(self.expected)))
        return name, data.draw(st.sampled_from(sorted(self.expected[name].disk)))

    # In memory --------------------------------------------------------------------------------------------------------

    @rule()
    def refresh(self) -> None:
        """The watcher looks."""
        self.look()

    @rule()
    def restart(self) -> None:
        """The process is killed and started anew: what is on disk is all that it knows."""
        del self.models
        self.running.clear()
        for expected in self.expected.values():
            expected.memory, expected.in_effect, expected.told = {}, {}, False
        self.start()
        self.look()

    @rule(name=NAMES, works=st.booleans(), version=st.none() | st.integers(1, 8))
    def send(self, name: str, version: int | None, *, works: bool) -> None:
        """A retraining job sends a file: it is refused unless it is good and new, and served when it is not."""
        expected = self.expected.get(name, Expected())
        content, offset = self.content(works=works)
        if version is not None and version in expected.disk:
            with pytest.raises(AlreadyExistsError):
                self.control.load(name, {version: {MODEL_FILE: content}})
            return
        if not works:
            with pytest.raises(InvalidRequestError):
                self.control.load(name, {version: {MODEL_FILE: content}})
            return
        if version is not None and version <= self.repository.label_history(name).removed_up_to:
            with pytest.raises(AlreadyExistsError):
                self.control.load(name, {version: {MODEL_FILE: content}})
            return
        (number,) = self.control.load(name, {version: {MODEL_FILE: content}})
        assert number == (expected.greatest + 1 if version is None else version)
        self.expected[name] = expected
        if not expected.labels:
            expected.move("stable", number)
        expected.disk[number] = offset
        expected.greatest = max(expected.greatest, number)
        expected.told = True
        expected.follow(self.latest)

    @rule(name=NAMES)
    def load(self, name: str) -> None:
        """A caller asks for a load."""
        expected = self.expected.get(name)
        if expected is not None:
            expected.told = True
            expected.follow(self.latest)
        if expected is not None and expected.memory:
            self.control.load(name, {})
        else:
            with pytest.raises(ServiceError, match=r"no model|can be loaded"):
                self.control.load(name, {})

    @precondition(lambda self: self.explicit)
    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        """A caller asks for an unload."""
        if name not in self.models.catalogue.models:
            with pytest.raises(ServiceError, match="no model"):
                self.control.unload(name)
            return
        self.control.unload(name)
        expected = self.expected[name]
        expected.memory, expected.in_effect, expected.told = {}, {}, False

    @rule(name=NAMES)
    def begin_run(self, name: str) -> None:
        """A run begins on the version that answers by default."""
        with contextlib.suppress(ServiceError):
            version = self.models.catalogue.resolve(name, None)
            self.running.append((version, self.expected[name].memory[version.version]))

    @precondition(lambda self: self.running)
    @rule()
    def end_run(self) -> None:
        """A run ends, with the answer of the version that it began on, whatever became of that meanwhile."""
        version, offset = self.running.pop()
        assert answer_of(version) == pytest.approx(exact_celsius(FAHRENHEIT) + offset, abs=1e-3)

    # What must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def check_all(self) -> None:
        """Every version, label and default answers as it should, or says why not."""
        if not hasattr(self, "models"):
            return
        for name, expected in self.expected.items():
            if name in self.models.catalogue.models:
                for version in range(1, expected.greatest + 2):
                    self.check_answer(name, version, expected.memory.get(version))
                for label, target in expected.in_effect.items():
                    self.check_answer(name, label, expected.memory.get(target))
                if "stable" in expected.in_effect:
                    self.check_answer(name, None, expected.memory.get(expected.in_effect["stable"]))

    def check_answer(self, name: str, choice: int | str | None, offset: float | None) -> None:
        """A choice answers with an offset, or not at all where there is none."""
        if offset is None:
            with pytest.raises((NotReadyError, ServiceError)):
                self.models.catalogue.resolve(name, choice)
            return
        version = self.models.catalogue.resolve(name, choice)
        assert answer_of(version) == pytest.approx(exact_celsius(FAHRENHEIT) + offset, abs=1e-3)

    @invariant()
    def nothing_retired_is_kept(self) -> None:
        """A version is in memory where it answers or a run is under way on it, and nowhere else."""
        if not hasattr(self, "models"):
            return
        held = [version for model in self.models.catalogue.models.values() for version in model.loaded]
        alive = {id(version) for version in held} | {id(version) for version, _ in self.running}
        known = {id(reference()) for reference in self.seen}
        self.seen += [weakref.ref(version) for version in held if id(version) not in known]
        del held
        assert {id(version) for reference in self.seen if (version := reference())} <= alive

    @invariant()
    def states_are_told(self) -> None:
        """What does not answer is listed with a reason."""
        if not hasattr(self, "models"):
            return
        for model in self.models.catalogue.models.values():
            for entry in model.versions.values():
                assert entry.state is VersionState.READY or entry.reason


Lifecycle.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLifecycle: Any = Lifecycle.TestCase

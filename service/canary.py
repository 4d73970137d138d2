"""Gives canaries what their rules say: a share of the requests that name no version, or copies of what was answered."""

import copy
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

import structlog

from proto.traffic import is_for_canary, place_of_id, place_of_number
from service.calls import Request
from service.catalogue import Trial
from service.engine import Tensor
from service.errors import ServiceError
from service.models import LoadedVersion, Models
from service.runs import Bound, Diverted
from service.shadow import Copy, Shadow
from service.snapshot import Distribution, Labels

log = structlog.get_logger(__name__)

REQUEST_ID_KEY = "x-request-id"
"""The key of a call's metadata that names a request whose message does not."""


class Canaries:
    """Applies the rules of the catalogue's trials. Every method may be called by any thread.

    Guarantees: a request goes to a canary only where it names no version; with the same id it goes where it went
    before, in every process; and where the canary cannot answer it, the stable version does. Copies are made only of
    what was answered, and none of them can delay or fail a request (see `Shadow`).
    """

    def __init__(self, models: Models, shadow: Shadow) -> None:
        self._models = models
        self._shadow = shadow
        self._lock = threading.Lock()
        self._calls: Counter[Labels] = Counter()
        self._fallbacks: Counter[Labels] = Counter()
        self._copies: dict[Request, Copy] = {}
        """What waits for the answer to be given; every request is delivered, so nothing stays here."""
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    # Told by the dataplane --------------------------------------------------------------------------------------------

    def divert(self, calls: Sequence[Bound], trials: Mapping[LoadedVersion, Trial]) -> list[Bound]:
        """Give those of the calls to canaries that shall go there; `Diverted` are the calls that went."""
        divided: list[Bound] = []
        for call in calls:
            trial = trials.get(call.version)
            if trial is None or not trial.traffic.share or call.query.choice is not None:
                divided.append(call)
            else:
                divided += self._divide(call, trial)
        return divided

    def fell_back(self, version: LoadedVersion, requests: int) -> None:
        """Learn that a canary failed so many requests, which the stable version has answered."""
        self._count(self._fallbacks, version, requests)

    def answered(self, trial: Trial, calls: Sequence[Bound], outputs: Sequence[Tensor]) -> None:
        """Learn of a run of a stable version: once the answers are given, its canary may run on copies."""
        if not trial.traffic.shadow:
            return
        start = 0
        for call in calls:
            rows = slice(start, start + call.rows)
            start += call.rows
            if call.query.choice is None:
                own = [output if len(calls) == 1 else output[rows].copy() for output in outputs]
                self._copies[call.requests[-1]] = Copy(trial, call.tensors, own, call.rows)

    def delivered(self, requests: Sequence[Request]) -> None:
        """Learn that requests have their answers: now their copies may wait for their run."""
        if not self._copies:
            return
        for request in requests:
            made = self._copies.pop(request, None)
            if made is not None:
                self._shadow.offer(made)

    def stop(self) -> None:
        """Run nothing more in the shadow."""
        self._shadow.stop()

    # Asked for metrics ------------------------------------------------------------------------------------------------

    def add_to(
        self,
        numbers: MutableMapping[str, dict[Labels, float]],
        distributions: MutableMapping[str, dict[Labels, Distribution]],
    ) -> None:
        """Add what was counted of the versions that are loaded."""
        catalogue = self._models.catalogue
        trials = list(catalogue.trials.values())
        with self._lock:
            tried = {_labels(trial.canary): 0.0 for trial in trials if trial.traffic.share}
            numbers["quicksilver_canary_calls"] = {**tried, **self._calls}
            numbers["quicksilver_canary_fallback_calls"] = {**tried, **self._fallbacks}
        numbers["quicksilver_canary_share"] = {_labels(trial.canary): trial.traffic.share for trial in trials}
        for model in catalogue.models.values():
            numbers["quicksilver_promotions"][model.name,] = model.moves.promotions
            numbers["quicksilver_rollbacks"][model.name,] = model.moves.rollbacks
        self._shadow.add_to(numbers, distributions, _held(self._models))

    def forget_retired(self) -> None:
        """Drop what was counted of versions that are no longer loaded, after the models changed."""
        held = _held(self._models)
        with self._lock:
            for counts in (self._calls, self._fallbacks):
                for key in counts.keys() - held:
                    del counts[key]
        self._shadow.forget_but(held)

    # The share --------------------------------------------------------------------------------------------------------

    def _divide(self, call: Bound, trial: Trial) -> list[Bound]:
        """Part a call's requests into those of the stable version and those of its canary."""
        chosen = [is_for_canary(place, trial.traffic.share) for place in self._places(call, trial)]
        if not any(chosen):
            return [call]
        asked = call if all(chosen) else call.only(chosen)
        query = copy.copy(call.query)  # what binding notes in a query is of one version
        try:
            query.bind(trial.canary)
        except ServiceError:  # it cannot give what is asked for: no interval, perhaps
            self._count(self._fallbacks, trial.canary, len(asked.requests))
            return [call]
        self._count(self._calls, trial.canary, len(asked.requests))
        parts = [asked] if trial.canary.rows_independent else asked.parts(1)
        diverted: list[Bound] = [
            Diverted(part.requests, query, trial.canary, part.tensors, part.rows, trial.stable, part.query)
            for part in parts
        ]
        return diverted if asked is call else [call.only([not each for each in chosen]), *diverted]

    def _places(self, call: Bound, trial: Trial) -> Iterator[float]:
        """Where each request lies in [0, 1): by its id, by that of its call's metadata, or by its number."""
        salt = str(trial.canary).encode()[-64:]
        for request in call.requests:
            identity = call.query.of(request.body).identity or _id_in_metadata(request)
            yield place_of_id(identity, salt) if identity else place_of_number(next(self._numbers[call.version.name]))

    def _count(self, counts: Counter[Labels], version: LoadedVersion, requests: int) -> None:
        """Count requests of a version; those of one that was retired meanwhile would make a series anew."""
        with self._lock:
            if self._models.catalogue.holds(version):
                counts[_labels(version)] += requests


def _id_in_metadata(request: Request) -> bytes:
    for key, value in request.metadata:
        if key == REQUEST_ID_KEY:
            return value.encode() if isinstance(value, str) else value
    return b""


def _held(models: Models) -> set[Labels]:
    return {_labels(version) for model in models.catalogue.models.values() for version in model.loaded}


def _labels(version: LoadedVersion) -> Labels:
    return version.name, str(version.version)

"""A version from its file into memory: read once, made into a session, verified, warmed.

Nothing here decides what is loaded, or when. What comes out answers right in this process, on this device.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from proto.artefact import Artefact, ArtefactError, GoldenVectors, Interval, NotAnArtefactError, from_metadata
from proto.model_config import ModelConfig, read_config
from proto.repository import Repository
from service import independence
from service.engine import Engine, EngineError, EngineOptions, Graph, TensorSpec
from service.placement import Placement
from service.placing import Place, PlacedEngine, can_be_placed, measured

log = structlog.get_logger(__name__)

WARM_BATCHES: Final = (1, 2, 32, 1024)
"""Rows of the runs that warm a session, so that no caller pays for its first allocations."""


_FEW_VALUES: Final = 32
"""Up to here Python compares numbers faster than NumPy begins to."""
NONE: Final = np.broadcast_to(np.False_, (1 << 40,))
"""As many rows as there may ever be, none of them outside: one byte in memory, the base of every slice as well."""

DEFAULT_CONFIG: Final = ModelConfig()
"""What is assumed of a model where its operator says nothing."""


class VerificationError(Exception):
    """A version must not be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells one state of a file from another without reading it. Two equal ones: nobody wrote in between."""

    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take it from what the file system says of the file."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The bytes of a model file, all of one state of it."""

    content: bytes
    sha256: str
    """Hash of the content, hexadecimal."""
    signature: Signature | None
    """None for bytes that never were a file."""

    @classmethod
    def of(cls, content: bytes, signature: Signature | None = None) -> Self:
        """Take the bytes, and hash them."""
        return cls(content, hashlib.sha256(content).hexdigest(), signature)


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A version that answered its golden vectors right in this process, on the device that serves it."""

    name: str
    version: int
    engine: Graph
    artefact: Artefact | None
    """What the file states of itself; None for a plain ONNX file."""
    sha256: str
    size_bytes: int
    config: ModelConfig
    """What the operator says of the model."""
    rows_independent: bool
    """Whether an answer depends on its own row alone, so that calls may share a run: as declared, and as probed."""
    golden_deviation_celsius: float | None = None
    """Largest difference of an answer from its golden vector; None where the file has none."""
    placement: Placement | None = None
    """Where runs go, by their rows; None where there is one place."""

    @cached_property
    def converts(self) -> bool:
        """Whether it takes one float32 a row and gives one."""
        return _one_float(self.engine.inputs) and _one_float(self.engine.outputs)

    @cached_property
    def interval(self) -> Interval | None:
        """The prediction interval that the file states."""
        return None if self.artefact is None else self.artefact.interval

    @cached_property
    def domain(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Least and greatest value of each input column in training; None where the file does not state them."""
        return None if self.artefact is None else _domain(self.artefact)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """The training domain of a model with one input column, where it is stated."""
        if self.domain is None or len(self.domain[0]) != 1:
            return None
        return float(self.domain[0][0]), float(self.domain[1][0])

    def outside(self, rows: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Tell which rows of `[N, columns]` lie outside the training domain; None where it is not stated."""
        if self.domain is None:
            return None
        if self.range is not None and _all_within(rows, *self.range):
            return NONE[: len(rows)]
        return outside_of(rows, *self.domain)


def outside_of(rows: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which rows of `[N, columns]` have a value outside its column's range; NaN is outside of any."""
    table = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    columns = np.ascontiguousarray(table.T)  # NumPy begins anew with every row, however short
    inside = np.logical_and(columns >= low[:, np.newaxis], columns <= high[:, np.newaxis]).all(axis=0)
    return np.logical_not(inside)


def _all_within(rows: NDArray[np.float32], low: float, high: float) -> bool:
    """Whether all values lie within a range; NaN does not."""
    if rows.size <= _FEW_VALUES:
        return all([low <= value <= high for value in rows.ravel().tolist()])  # noqa: C419 - quicker than a generator
    return bool(rows.min() >= low and rows.max() <= high)


def signature_of(path: Path) -> Signature | None:
    """Look at a file without reading it; None where there is none."""
    try:
        return Signature.of(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_model(path: Path) -> ModelFile:
    """Read a file once, whole.

    Raises:
        OSError: it cannot be read.
        VerificationError: it was written to meanwhile, so that its parts may not belong together.
    """
    with path.open("rb") as file:
        before = Signature.of(os.fstat(file.fileno()))
        content = file.read()
        after = Signature.of(os.fstat(file.fileno()))
    if before != after or len(content) != after.size_bytes:
        raise VerificationError("the file was written to while it was read; published files never change")
    return ModelFile.of(content, after)


def load_version(repository: Repository, name: str, number: int, options: EngineOptions) -> LoadedVersion:
    """Read a version of a repository and its model's configuration, and load it as `load_model` does.

    Raises:
        OSError: the file cannot be read.
        ModelConfigError: the configuration is not what it should be.
        EngineError: ONNX Runtime cannot load it, or not on the device asked for.
        VerificationError: it changed while it was read, its metadata is wrong, or a golden vector came out wrong.
    """
    file = read_model(repository.model_path(name, number))
    return load_model(name, number, file, options, read_config(repository.root / name))


def load_model(
    name: str, number: int, file: ModelFile, options: EngineOptions, config: ModelConfig = DEFAULT_CONFIG
) -> LoadedVersion:
    """Make the session of a file, prove that it answers right on this device, and warm it.

    Where there are several places to run it, such as CPU and CUDA, each has a session that is proved and warmed, and
    runs go where they were measured to be faster.

    Raises:
        EngineError: ONNX Runtime cannot load it, or not on the device asked for.
        VerificationError: its metadata is wrong, or a golden vector came out wrong.
    """
    rivals = options.rivals()
    first = Engine(file.content, replace(options, device="cpu") if rivals else options)
    artefact = _read_artefact(first)
    deviation = _prove(first, artefact)
    model = f"{name}/{number}"
    places = [Place("cpu", first), *_rivals(model, file, artefact, rivals)] if can_be_placed(first) else []
    engine, placement = _place(model, places, artefact, options.max_shared_rows) if len(places) > 1 else (first, None)
    declared = config.rows_independent
    return LoadedVersion(
        name=name,
        version=number,
        engine=engine,
        artefact=artefact,
        sha256=file.sha256,
        size_bytes=len(file.content),
        config=config,
        rows_independent=independence.agreed(engine, artefact, declared=declared, model=model),
        golden_deviation_celsius=deviation,
        placement=placement,
    )


def _prove(engine: Engine, artefact: Artefact | None) -> float | None:
    """Verify and warm a session where the file says how; return how far its answers were off at most, in °C."""
    if artefact is None:
        return None
    deviation = verify(engine, artefact.golden)
    warm(engine, artefact.golden)
    return deviation


def _rivals(
    model: str, file: ModelFile, artefact: Artefact | None, rivals: Mapping[str, EngineOptions]
) -> Iterator[Place]:
    """The rivals that can be had and answer right."""
    for place, options in rivals.items():
        try:
            engine = Engine(file.content, options)
            _prove(engine, artefact)
        except (EngineError, VerificationError) as error:
            log.warning("a place is not used", model=model, place=place, reason=str(error))
        else:
            yield Place(place, engine)


def _place(
    model: str, places: Sequence[Place], artefact: Artefact | None, max_shared_rows: int
) -> tuple[Graph, Placement | None]:
    """Let several sessions be one engine, by what is measured; the first alone where no rows are known to try."""
    first = places[0].engine
    rows = independence.rows_for(first, artefact)
    if rows is None:
        return first, None
    placement = measured(places, rows, max_shared_rows)
    log.info(
        "placement measured",
        model=model,
        from_rows=dict(placement.ranges()),
        same_bits=placement.same_bits,
        seconds={each.rows: dict(zip(placement.places, each.seconds, strict=True)) for each in placement.measured},
    )
    return PlacedEngine([place.engine for place in places], placement), placement


def verify(engine: Engine, golden: GoldenVectors) -> float:
    """Let a session answer the golden vectors of its file, and return the largest difference, in °C.

    Raises:
        VerificationError: an answer lies outside the tolerance the file states, or the graph does not take the rows.
    """
    try:
        answers = engine.run([np.array(golden.inputs, dtype=np.float32)])[0]
    except Exception as error:  # whatever ONNX Runtime raises: the file's graph and its metadata do not agree
        raise VerificationError(f"its golden vectors cannot be run: {error}") from error
    if mismatch := golden.mismatch(answers.ravel().tolist()):
        raise VerificationError(mismatch)
    return float(np.abs(answers.ravel() - np.array(golden.outputs)).max())


def warm(engine: Engine, golden: GoldenVectors) -> None:
    """Run batches of several sizes and forget the answers."""
    row = np.array(golden.inputs[:1], dtype=np.float32)
    for rows in WARM_BATCHES:
        engine.run([np.repeat(row, rows, axis=0)])


def _read_artefact(engine: Engine) -> Artefact | None:
    try:
        return from_metadata(engine.metadata)
    except NotAnArtefactError:
        return None
    except ArtefactError as error:
        raise VerificationError(str(error)) from error


def _one_float(specs: tuple[TensorSpec, ...]) -> bool:
    return len(specs) == 1 and specs[0].dtype is np.float32 and specs[0].shape == (None, 1)


def _domain(artefact: Artefact) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    low = np.array([column.minimum for column in artefact.columns], dtype=np.float32)
    high = np.array([column.maximum for column in artefact.columns], dtype=np.float32)
    return low, high

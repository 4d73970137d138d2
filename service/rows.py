"""The rows of a run: joined, checked against physics and the training domain, handed out and encoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.calls import Body, Request
from service.engine import Tensor
from service.errors import OutsideDomainError, ServiceError, without_frames
from service.faults import tell_fault
from service.loading import NONE
from service.models import LoadedVersion
from service.query import Answer, OnExtrapolation, check_temperatures, possible
from service.runs import Bound


@dataclass(slots=True)
class Batch:
    """The rows of all calls of a run: one array an input, and which rows lie outside the training domain."""

    tensors: list[Tensor]
    outside: NDArray[np.bool_] | None
    inside: bool
    """Whether it is known that none does."""


def join(version: LoadedVersion, calls: Sequence[Bound]) -> Batch:
    """Put the rows of all calls one after the other; no copy where there is one call, and its rows lie as they should.

    Rows off their type's boundary are moved here and no sooner: just before they are checked and run, which then find
    them in the cache.
    """
    if len(calls) == 1:
        tensors = [tensor if tensor.flags.aligned else tensor.copy() for tensor in calls[0].tensors]
    else:
        tensors = [np.concatenate(columns) for columns in zip(*(call.tensors for call in calls), strict=True)]
    outside = version.outside(tensors[0]) if tensors else None
    return Batch(tensors, outside, inside=outside is not None and (outside.base is NONE.base or not outside.any()))


def refuse_rows(calls: Sequence[Bound], batch: Batch) -> bool:
    """Set the outcome of calls whose rows must not be run, and tell whether there were any.

    All rows are looked at together; the single calls only where something is wrong with one of them.
    """
    # Inside the training domain nothing is impossible.
    if batch.inside or not calls:
        return False
    tensors, outside = batch.tensors, batch.outside
    impossible = any(call.query.fahrenheit for call in calls) and not possible(tensors[0]).all()
    if not impossible and outside is None:
        return False
    start = 0
    for call in calls:
        for request in call.requests:
            rows = slice(start, start + call.rows_each)
            start += call.rows_each
            try:
                _check_rows(call, tensors[0][rows], None if outside is None else outside[rows])
            except ServiceError as error:
                request.outcome = without_frames(error)
    return any(request.outcome is not None for call in calls for request in call.requests)


def _check_rows(call: Bound, rows: Tensor, outside: NDArray[np.bool_] | None) -> None:
    if call.query.fahrenheit:
        check_temperatures(rows.ravel())
    if outside is None or call.query.on_extrapolation is not OnExtrapolation.REJECT or not outside.any():
        return
    index = int(outside.argmax())
    domains = zip(*(column.tolist() for column in call.version.domain or ()), strict=True)
    ranges = ", ".join(f"{low:.6g} … {high:.6g}" for low, high in domains)
    raise OutsideDomainError(
        f"row {index}, {', '.join(f'{value:.9g}' for value in rows[index].tolist())}, "
        f"lies outside what {call.version} was trained on: {ranges}"
    )


def hand_out(version: LoadedVersion, calls: Sequence[Bound], outputs: list[Tensor], batch: Batch) -> None:
    """Give each call its own rows of the outputs, encoded."""
    whole = Answer(version, outputs, batch.outside, batch.inside)
    start = 0
    for call in calls:
        answer = whole if len(calls) == 1 else whole.part(slice(start, start + call.rows))
        start += call.rows
        if len(call.requests) > 1:
            _encode_all(call, answer)
        else:
            call.requests[0].outcome = _encode(call, call.requests[0], answer)


def _encode_all(call: Bound, answer: Answer) -> None:
    """Encode the answers to requests that differ in their values alone: together, or else each for itself."""
    rows = call.rows_each
    try:
        bodies = call.requests[0].codec.encode_alike(call.query, answer, call.requests, rows)
    except Exception:  # noqa: BLE001 - whatever it is, it will be told where each is encoded alone
        bodies = None
    if bodies is not None:
        for request, body in zip(call.requests, bodies, strict=True):
            request.outcome = body
        return
    for index, request in enumerate(call.requests):
        request.outcome = _encode(call, request, answer.part(slice(index * rows, (index + 1) * rows)))


def _encode(call: Bound, request: Request, answer: Answer) -> Body | ServiceError:
    try:
        return request.codec.encode(call.query.of(request.body), answer)
    except ServiceError as error:
        return without_frames(error)
    except Exception as fault:  # noqa: BLE001 - whatever it is, it concerns this call alone
        facts = {"model": call.version.name, "version": call.version.version}
        return tell_fault(fault, "answer could not be encoded", [request], **facts)

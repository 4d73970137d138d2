"""Arrays in, messages out, and back."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import ArrayLike, NDArray

from proto.quicksilver.v1 import converter_pb2 as api
from service.client_errors import InvalidRequestError, OutsideDomainError
from service.conversion import Choice, Options, at_callers_index, encode_request, join_answers, temperatures
from service.status import Code

NUMBER_KINDS = ["f2", "f4", "f8", ">f4", ">f8", ">i2", "i1", "i4", "i8", "u1", "u8", np.longdouble]


@given(
    arrays.arrays(
        dtype=st.one_of(
            arrays.floating_dtypes(sizes=(16, 32)), arrays.integer_dtypes(), arrays.unsigned_integer_dtypes()
        ),
        shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_any_array_becomes_float32_of_the_same_shape(given_array: NDArray[Any]) -> None:
    """Whatever the dtype, byte order and shape, the values are those that NumPy itself rounds to float32."""
    rows = temperatures(given_array)
    assert rows.shape == given_array.shape
    assert rows.dtype == np.dtype(np.float32)
    assert rows.dtype.isnative
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(rows, given_array.astype(np.float32))


@pytest.mark.parametrize("dtype", NUMBER_KINDS)
def test_every_kind_of_real_number_is_taken(dtype: Any) -> None:  # noqa: ANN401 - whatever NumPy calls a dtype
    """Whole numbers and floats of any width and byte order."""
    assert temperatures(np.array([1, 50, 100], dtype=dtype)).tolist() == [1, 50, 100]


@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        (98.6, np.float32(98.6)),
        ([[1, 2], [3, 4.5]], np.array([[1, 2], [3, 4.5]])),
        (range(3), np.arange(3)),
        ([Decimal("1.5"), Fraction(1, 2)], np.array([1.5, 0.5])),
        ([2**70], np.array([2.0**70])),
        ([], np.zeros(0)),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (np.arange(12.0).reshape(3, 4).T, np.arange(12).reshape(3, 4).T),
        (np.arange(12.0)[::-3], np.arange(12)[::-3]),
        (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6).reshape(2, 3)),
    ],
)
def test_nestings_and_views_keep_their_order(given_values: ArrayLike, expected: ArrayLike) -> None:
    """Scalars, lists, exact numbers, and arrays that are transposed, strided or empty."""
    rows = temperatures(given_values)
    np.testing.assert_array_equal(rows, np.asarray(expected, dtype=np.float32))
    assert rows.flags.c_contiguous


def test_a_read_only_array_is_not_touched() -> None:
    """The caller's array is read where it lies."""
    mine = np.array([1.0, 2.0], dtype=np.float32)
    mine.setflags(write=False)
    assert temperatures(mine) is mine


@pytest.mark.parametrize("values", ["32", ["32"], [True], [1j], np.array(["2020-01-01"], dtype="M8[D]"), [b"1"]])
def test_what_is_no_real_number_is_a_type_error(values: Any) -> None:  # noqa: ANN401 - wrong on purpose
    """Text is not parsed, and truth is not counted."""
    with pytest.raises(TypeError, match="must be real numbers"):
        temperatures(values)


def test_ragged_lists_are_a_value_error() -> None:
    """A nesting has one shape or is refused."""
    with pytest.raises(ValueError, match="inhomogeneous"):
        temperatures([[1.0], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("values", "field"),
    [([1, 1e39], "fahrenheit[1]"), ([[1, 2], [-1e300, 1e39]], "fahrenheit[1, 0]"), (1e39, "fahrenheit[0]")],
)
def test_a_value_beyond_float32_is_named(values: ArrayLike, field: str) -> None:
    """It would travel as infinity, which is not what the caller gave."""
    with pytest.raises(InvalidRequestError, match="beyond float32") as caught:
        temperatures(values)
    assert list(caught.value.violations) == [field]


def test_nan_and_infinity_are_the_servers_to_refuse() -> None:
    """What the caller gave as such goes out as such."""
    assert np.isposinf(temperatures([math.inf]))[0]
    assert np.isnan(temperatures([math.nan]))[0]


@given(
    rows=arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_nan=False)),
    choice=st.one_of(
        st.just(Choice()),
        st.builds(Choice, model=st.sampled_from(["", "linear"]), version=st.integers(1, 2**63 - 1)),
        st.builds(Choice, model=st.just("mlp"), label=st.sampled_from(["stable", "canary"])),
    ),
    interval=st.booleans(),
)
def test_a_request_is_what_protobuf_itself_reads(rows: NDArray[np.float32], choice: Choice, interval: bool) -> None:  # noqa: FBT001 - a strategy's value
    """The floats that we write ourselves and the fields that protobuf writes make one message."""
    request = api.ConvertRequest.FromString(encode_request(choice, Options(interval, "ignore"), rows))
    assert list(request.fahrenheit) == rows.tolist()
    assert (request.model, request.interval) == (choice.model, interval)
    assert request.on_extrapolation == api.ON_EXTRAPOLATION_IGNORE
    named = request.WhichOneof("choice")
    assert (getattr(request, named) if named else None) == (choice.version or choice.label)


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_a_version_that_no_request_can_carry_is_a_value_error(version: int) -> None:
    """Versions are whole numbers from 1 that fit into 64 bits."""
    with pytest.raises(ValueError, match="whole number from 1"):
        Choice(version=version)


def test_a_version_and_a_label_exclude_each_other() -> None:
    """A request names one of them."""
    with pytest.raises(ValueError, match="not both"):
        Choice(version=1, label="stable")


def test_an_unknown_option_is_a_value_error() -> None:
    """The message names the options there are."""
    with pytest.raises(ValueError, match="flag, reject, ignore"):
        Options(on_extrapolation="panic")  # type: ignore[arg-type] # wrong on purpose


def test_defaults_join_only_what_names_nothing() -> None:
    """A call that names a model gets no default version of another model."""
    default = Choice("linear", version=3)
    assert Choice().or_default(default) == default
    assert Choice("mlp").or_default(default) == Choice("mlp")
    assert Choice(version=2).or_default(default) == Choice("linear", version=2)


def _answer(celsius: list[float], outside: list[int], status: api.DomainStatus.ValueType) -> api.ConvertResponse:
    interval = api.PredictionInterval(coverage=0.8, celsius_lower=celsius, celsius_upper=celsius)
    return api.ConvertResponse(
        model="m", version=4, celsius=celsius, interval=interval, domain_status=status, extrapolated_rows=outside
    )


def test_answers_are_joined_in_order_and_shape() -> None:
    """Values, bounds and flags of all requests land where their rows were."""
    answers = [
        _answer([1, 2, 3, 4], [3], api.DOMAIN_STATUS_OUTSIDE),
        _answer([5, 6], [], api.DOMAIN_STATUS_INSIDE),
    ]
    conversion = join_answers(answers, Options(interval=True), (3, 2))
    assert conversion.celsius.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert conversion.lower is not None
    assert conversion.lower.shape == (3, 2)
    assert conversion.outside is not None
    assert conversion.outside.tolist() == [[False, False], [False, True], [False, False]]
    assert (conversion.model, conversion.version, conversion.coverage) == ("m", 4, 0.8)


@pytest.mark.parametrize("status", [api.DOMAIN_STATUS_UNKNOWN, api.DOMAIN_STATUS_UNSPECIFIED])
def test_an_unknown_domain_is_none(status: api.DomainStatus.ValueType) -> None:
    """Nobody knows is not the same as inside."""
    assert join_answers([_answer([1], [], status)], Options(), (1,)).outside is None


@pytest.mark.parametrize(
    ("message", "start", "shape", "expected"),
    [
        ("fahrenheit[2]: nan is not a temperature", 10, (100,), "fahrenheit[12]: nan is not a temperature"),
        ("fahrenheit[2]: nan is not a temperature", 10, (10, 10), "fahrenheit[1, 2]: nan is not a temperature"),
        ("fahrenheit[0]: nan is not a temperature", 0, (), "fahrenheit[0]: nan is not a temperature"),
        ("row 2, 212, lies outside", 10, (100,), "row 12, 212, lies outside"),
        ("row 2, 212, lies outside", 10, (10, 10), "row [1, 2], 212, lies outside"),
        ("no row 2 here", 10, (100,), "no row 2 here"),
    ],
)
def test_an_error_names_the_callers_index(message: str, start: int, shape: tuple[int, ...], expected: str) -> None:
    """The server counts from the beginning of a request, the caller in what was given."""
    field = message.partition(":")[0]
    error = at_callers_index(OutsideDomainError(Code.OUT_OF_RANGE, message, {field: "why"}), start, shape)
    assert error.message == expected
    assert list(error.violations) == [expected.partition(":")[0]]
    assert type(error) is OutsideDomainError

"""Which requests a canary gets: the choice is even, and sticks."""

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from proto.traffic import is_for_canary, place_of_id, place_of_number

SHARES = st.floats(0, 1)
IDS = st.binary(max_size=64)


@given(IDS, IDS, SHARES, SHARES)
def test_a_caller_stays_where_it_is_while_the_share_grows(
    request_id: bytes, salt: bytes, one: float, two: float
) -> None:
    """The choice follows from the id alone, and a greater share takes nobody back who was in a smaller one."""
    less, more = sorted((one, two))
    place = place_of_id(request_id, salt[:64])
    assert 0 <= place < 1
    assert place == place_of_id(request_id, salt[:64])
    assert is_for_canary(place, less) <= is_for_canary(place, more)
    assert not is_for_canary(place, 0)
    assert is_for_canary(place, 1)


@given(st.integers(0, 2**32), SHARES, st.sampled_from([b"linear/2", b"mlp/7"]))
def test_ids_are_spread_evenly(start: int, share: float, salt: bytes) -> None:
    """Of 4,000 ids of a kind that callers send, the share goes to the canary, within five standard deviations."""
    for ids in ([str(start + n) for n in range(4000)], [str(uuid.UUID(int=(start + n) << 64)) for n in range(4000)]):
        chosen = sum(is_for_canary(place_of_id(each.encode(), salt), share) for each in ids)
        assert abs(chosen - 4000 * share) <= 5 * np.sqrt(4000 * share * (1 - share)) + 1


@given(IDS)
def test_another_canary_is_tried_by_others(request_id: bytes) -> None:
    """The salt moves every id, so that not the same callers are the first every time."""
    assert place_of_id(request_id, b"linear/2") != place_of_id(request_id, b"linear/3")


@given(st.integers(0, 2**31), st.integers(1, 2000), SHARES)
def test_of_requests_without_an_id_the_share_is_exact(first: int, requests: int, share: float) -> None:
    """In any run of them the canary gets its share but for a few requests, however short the run is."""
    chosen = sum(is_for_canary(place_of_number(first + number), share) for number in range(requests))
    assert abs(chosen - requests * share) <= 2 + np.log2(requests)

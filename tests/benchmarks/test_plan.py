"""The plan of a run."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plan
from benchmarks.peers import ALL


@given(servers=st.integers(1, 20), rounds=st.integers(0, 8))
def test_every_server_has_its_turn_once_a_round(servers: int, rounds: int) -> None:
    """Rounds follow one another, and each holds every server exactly once."""
    order = plan.interleaved(range(servers), rounds)
    assert [index for index, _ in order] == [index for index in range(rounds) for _ in range(servers)]
    for index in range(rounds):
        assert sorted(server for of_round, server in order if of_round == index) == list(range(servers))


@given(servers=st.integers(3, 20))
def test_rounds_begin_with_different_servers(servers: int) -> None:
    """No server has the same place in all of three rounds."""
    order = plan.interleaved(range(servers), 3)
    assert len({order[index * servers][1] for index in range(3)}) == 3


def test_a_short_plan_measures_some_of_what_the_full_one_does() -> None:
    """The workloads that a short run names exist, and only they are chosen."""
    assert plan.QUICK.workloads is not None
    assert plan.QUICK.workloads <= {workload.key for workload in plan.OURS}
    assert {workload.key for workload in plan.chosen(plan.QUICK, plan.OURS)} == plan.QUICK.workloads
    assert plan.QUICK.servers is not None
    assert plan.QUICK.servers <= {server.key for server in ALL}
    assert plan.chosen(plan.FULL, plan.OURS) == list(plan.OURS)


def test_servers_can_make_the_calls_of_their_workloads() -> None:
    """Whatever call a server's workload makes, the server says how it is spoken; keys are unique."""
    for server in ALL:
        assert {workload.call for workload in server.workloads} <= set(server.exchanges), server.key
    assert len({server.key for server in ALL}) == len(ALL)


def test_growth_goes_by_powers_of_ten() -> None:
    """Every growth of a full run takes at least four steps, each ten times the one before."""
    for growth in plan.FULL.growth:
        sizes = [int(step.key.rpartition("_")[2]) for step in growth.steps]
        assert len(sizes) >= 4
        assert all(larger == 10 * smaller for smaller, larger in itertools.pairwise(sizes))

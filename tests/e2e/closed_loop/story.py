"""What happens in the loop, each step checked: calm, drift and jump, alarm, challenger, shadow, promotion, poison."""

import time
from dataclasses import replace
from typing import Final

import numpy as np

from proto.observation import Observation
from proto.observations import ObservationStore
from proto.repository import CANARY, STABLE
from service.snapshot import MIN_WINDOW_ROWS
from tests.e2e.closed_loop import alarms
from tests.e2e.closed_loop.alarms import Firing
from tests.e2e.closed_loop.world import HISTORY_DAYS, JUMP_DAY, THERMOMETER, Mark, Pace, Poison, World
from tests.poison import lying, shuffled

WHOLE: Final = Pace(history_rows=200, rows=20, day_seconds=2.0, job_options=("--seeds", "1", "--epochs", "250"))
SECOND_JUMP_FAHRENHEIT: Final = 3.0
BATCH_DAYS: Final = 6
BATCH_ROWS_PER_DAY: Final = 170
MOST_TRIAL_DAYS: Final = 60
SETTLED_DAYS: Final = 5
CALM_DAYS: Final = 5
GOOD_CELSIUS: Final = 0.6
"""A mean error that only a version fitted to the thermometer as it is has: the truths scatter by 0.3 °C."""
ACCEPTED, REJECTED = 0, 3


def calm(world: World) -> None:
    """At first nothing alarms, and a job finds nothing to do."""
    world.live(CALM_DAYS)
    live_error, drift = alarms.threshold(alarms.LIVE_ERROR), alarms.threshold(alarms.INPUT_DRIFT)
    assert world.eventually(lambda: 0 < world.worst("quicksilver_live_mae_celsius", 1) < 1.5)
    assert world.eventually(lambda: world.worst("quicksilver_drift_window_rows", 1) >= MIN_WINDOW_ROWS)
    assert not world.is_above(live_error, 1)
    assert not world.is_above(drift, 1)


def drift_and_alarm(world: World) -> None:
    """The thermometer drifts, and jumps; a server dies in the middle of the stream; live error and inputs alarm."""
    live_error, drift = alarms.threshold(alarms.LIVE_ERROR), alarms.threshold(alarms.INPUT_DRIFT)
    world.fault(2 * world.pace.history_rows + 30, lambda: world.kill_server(0))
    if world.database is not None:
        world.fault(7 * world.pace.history_rows, world.kill_database)
    world.live(int(HISTORY_DAYS) - CALM_DAYS)
    world.servers.revive()
    world.turns.append(Mark(JUMP_DAY, "it jumps"))
    assert world.eventually(lambda: world.is_above(live_error, 1)), "the live error does not alarm"
    assert world.eventually(lambda: world.is_above(drift, 1)), "the inputs do not alarm"


def challenge(world: World, version: int, *options: str, mark: str) -> None:
    """A job publishes a challenger, which first runs in the shadow alone, and answers nobody."""
    stable = version - 1
    done = world.retrain(*options)
    assert done.returncode == ACCEPTED, done.stdout + done.stderr
    assert "--if-drift" not in options or "linear: drift: " in done.stdout
    assert world.repository.labels("linear") == {STABLE: stable, CANARY: version}
    world.models("canary", "linear", "--shadow")
    world.turns.append(Mark(world.day, mark))


def shadow_and_promote(world: World, version: int) -> None:
    """It runs on copies until observations prove it better, then answers by itself, and the error falls."""
    assert world.eventually(lambda: world.worst("quicksilver_shadow_rows_total", version) > 0)
    last = world.day + MOST_TRIAL_DAYS
    done = world.promote()
    while done.returncode == 4:
        assert world.day < last, f"still not promoted: {done.stdout}"
        assert world.load.versions[version] == 0, "in the shadow it answers nobody"
        world.live(1)
        done = world.promote()
    assert done.returncode == 0, done.stdout + done.stderr
    world.turns.append(Mark(world.day, f"version {version}\npromoted"))
    assert world.repository.labels("linear") == {STABLE: version}
    assert world.eventually(lambda: world.asking.convert(np.array([50.0])).version == version)
    answers = world.load.versions[version]
    assert world.eventually(lambda: world.load.versions[version] > answers + 20)
    world.live(SETTLED_DAYS)
    assert world.answered[-1].version == version
    assert world.answered[-1].error_celsius < GOOD_CELSIUS
    assert world.eventually(lambda: world.worst("quicksilver_live_mae_celsius", version) < GOOD_CELSIUS)


def first_half(world: World) -> None:
    """From a new thermometer to the second version."""
    calm(world)
    drift_and_alarm(world)
    challenge(world, 2, "--if-drift", mark="alarms; version 2\naccepted, in the shadow")
    world.fault(world.pace.rows // 2, lambda: world.kill_server(1))
    shadow_and_promote(world, 2)
    world.servers.revive()


def whole(world: World, firing: Firing) -> None:
    """All of it: with Prometheus' own alarms, kills of all that can be killed, and a poisoned batch."""
    calm(world)
    nothing = world.retrain("--if-drift")
    assert (nothing.returncode, "nothing to do" in nothing.stdout) == (0, True), nothing.stdout + nothing.stderr
    assert not {version for name, version in firing() if name in {alarms.LIVE_ERROR, alarms.INPUT_DRIFT}}
    drift_and_alarm(world)
    wanted = {(alarms.LIVE_ERROR, "1"), (alarms.INPUT_DRIFT, "1")}
    assert world.eventually(lambda: wanted <= firing()), firing()
    world.kill_job("--if-drift", after_line="epoch")
    assert world.repository.labels("linear") == {STABLE: 1}
    challenge(world, 2, "--if-drift", mark="alarms; version 2\naccepted, in the shadow")
    world.fault(world.pace.rows // 2, lambda: world.kill_server(1))
    shadow_and_promote(world, 2)
    world.servers.revive()
    poisoned(world)
    mended(world)


def poisoned(world: World) -> None:
    """One of three sources lies: the batch is rejected, and would be accepted, were it true."""
    began = time.time()
    world.thermometer = replace(world.thermometer, jump_fahrenheit=THERMOMETER.jump_fahrenheit + SECOND_JUMP_FAHRENHEIT)
    world.turns.append(Mark(world.day, "it jumps again,\na source lies"))
    world.fault(500, world.kill_database)
    true = _batch(world, lying)
    rejected = world.retrain(*_since(began))
    assert rejected.returncode == REJECTED, rejected.stdout + rejected.stderr
    assert "the sources agree" in rejected.stdout
    assert world.repository.labels("linear") == {STABLE: 2}
    world.turns.append(Mark(world.day, "challenger\nrejected"))
    control = world.retrain_elsewhere("control", began, true, *_since(began))
    assert control.returncode == ACCEPTED, control.stdout + control.stderr
    noise = world.retrain_elsewhere("noise", began, shuffled(true), *_since(began))
    assert noise.returncode == REJECTED, noise.stdout + noise.stderr


def mended(world: World) -> None:
    """The source is mended: what comes from then on is accepted."""
    began = time.time()
    world.fault(400, lambda: world.kill_server(0))
    _batch(world, None)
    world.servers.revive()
    challenge(world, 3, *_since(began), mark="source mended; version 3\naccepted, in the shadow")
    shadow_and_promote(world, 3)


def _batch(world: World, poison: Poison | None) -> list[Observation]:
    """Some days in which more is observed."""
    usual = world.pace
    world.pace = replace(usual, rows=BATCH_ROWS_PER_DAY)
    true = world.live(BATCH_DAYS, poison)
    world.pace = usual
    return true


def _since(seconds: float) -> tuple[str, str]:
    """A window that begins so early that a job may start slowly: a few older rows do no harm."""
    return ("--window", f"{time.time() - seconds + 60:.0f}s")


# What must hold in the end --------------------------------------------------------------------------------------------


def check_all_held(world: World) -> None:
    """No call failed; each answer is that of the version it names; what was acknowledged is stored, as it was sent."""
    world.load.stop()
    assert world.load.failures == []
    for version, kept in world.load.kept.items():
        fahrenheit, celsius = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        again = world.asking.convert(fahrenheit, version=version)
        assert again.version == version
        np.testing.assert_allclose(celsius, again.celsius, rtol=0, atol=1e-4)
    with ObservationStore.open(world.url) as store:
        stored = {one.id: one.reported() for one in store.observations()}
    assert world.reporter.acknowledged == set(world.reporter.sent)
    assert stored == {one.id: one.reported() for one in world.reporter.sent.values()}


def told(world: World) -> str:
    """The figures of a run."""
    return (
        f"{world.load.answers} calls of the load answered, none failed, {world.load.repeated} asked again; by version "
        f"{dict(sorted(world.load.versions.items()))}; {len(world.reporter.acknowledged)} observations acknowledged, "
        f"none lost; kills: {[f'{kill.text} on day {kill.day:g}' for kill in world.kills]}; "
        f"refused meanwhile: {sorted(set(world.refusals))}"
    )

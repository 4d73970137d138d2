"""The closed loop, end to end: drift is noticed, mended on proof, and nothing made worse, while everybody is served."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.closed_loop import begin, live_through


@pytest.mark.soak
@pytest.mark.timeout(600)  # three jobs, each of which fits, exports, and starts a server
def test_a_better_version_takes_over_and_a_poisoned_one_does_not(tmp_path: Path) -> None:
    """Through drift, retraining, promotion and poison no call of a steady load fails, and each names its version."""
    with ExitStack() as stack:
        loop = begin(tmp_path, stack)
        live_through(loop)
        loop.load.stop()
    assert loop.load.failures == []
    assert set(loop.load.versions) == {1, 2}
    assert {each.version for each in loop.answered} == {1, 2}

"""Lives through the whole loop, tells its figures, and draws it: `python -m tests.e2e.closed_loop PICTURE.png`."""

import os
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from tests.databases.postgres import Postgres
from tests.e2e.closed_loop import alarms, story
from tests.e2e.closed_loop.picture import draw
from tests.e2e.closed_loop.world import begin


def main(picture: Path) -> None:
    """Live through it, and draw it."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as root, closing(Postgres()) as database, ExitStack() as ending:
        world = begin(Path(root), database.new_database(), story.WHOLE, ending, database)
        firing = ending.enter_context(alarms.prometheus(Path(root) / "prometheus", world.servers.http_addresses))
        story.whole(world, firing)
        story.check_all_held(world)
        picture.write_bytes(draw(world))
        print(story.told(world))  # noqa: T201 - the figures


if __name__ == "__main__":
    main(Path(sys.argv[1]))

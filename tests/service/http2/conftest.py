"""Fixtures: models loaded once, and fronts on free ports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models import Models
from tests.service.http2.raw import RawClient
from tests.service.http2.serving import Serving, load_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The exact converter."""
    root: Path = tmp_path_factory.mktemp("models")
    return load_models(root)


@pytest.fixture
def serving(models: Models) -> Iterator[Serving]:
    """A front with the limits it ships with."""
    with Serving(models) as started:
        yield started


@pytest.fixture
def client(serving: Serving) -> Iterator[RawClient]:
    """A raw client of it."""
    with RawClient(serving.address) as connected:
        yield connected

"""Fixtures: models loaded once, and fronts on free ports."""

from collections.abc import Iterator

import pytest

from service.models import Models
from tests.service.http2.authority import Authority
from tests.service.http2.raw import RawClient
from tests.service.http2.rules import LIMITS, METHODS
from tests.service.http2.serving import Secured, Serving, load_models, secured


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The exact converter."""
    return load_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    """A certificate of localhost's, and who trusts it."""
    return Secured.by(Authority(tmp_path_factory.mktemp("tls"), "authority"))


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test goes over: first without TLS, then with it."""
    if request.param == "plain":
        yield
        return
    with secured(request.getfixturevalue("certified")):
        yield


@pytest.fixture(params=["uvloop", "asyncio"])
def serving(models: Models, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A front with the limits it ships with, on either loop."""
    with Serving(models, loop=request.param) as started:
        yield started


@pytest.fixture
def client(serving: Serving) -> Iterator[RawClient]:
    """A raw client of it."""
    with RawClient(serving.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def ruled(models: Models) -> Iterator[Serving]:
    """A front for all cases of the rules of HTTP/2, with calls that never end and answers of any size."""
    with Serving(models, LIMITS, METHODS) as started:
        yield started


@pytest.fixture(scope="module")
def bystander(ruled: Serving) -> Iterator[RawClient]:
    """A client whose connection stays open meanwhile."""
    with RawClient(ruled.address) as connected:
        yield connected

"""The reference front under gRPC's interop cases: the suite that the fast front passes as well."""

from collections.abc import Iterator

import pytest

from proto.repository import Repository
from service.dataplane import Dataplane
from service.engine import EngineOptions
from service.front_grpcio import GrpcioFront, GrpcioOptions
from service.metrics import Metrics
from service.models import Models
from service.runner import Runner
from service.version_policy import VersionPolicy
from tests.service.interop import InteropSuite, methods


class TestInterop(InteropSuite):
    """The reference front under gRPC's interop cases."""

    @pytest.fixture
    def address(self, repository: Repository) -> Iterator[str]:
        """Where the test service is."""
        options = EngineOptions(device="cpu")
        models = Models(repository, options, policy=VersionPolicy(), default_model="linear")
        served = {method.path: method for method in methods()}
        metrics = Metrics(served.values(), models)
        runner = Runner(
            Dataplane(models, metrics), max_waiting_calls=1_000, max_waiting_bytes=1 << 26, long_run_rows=1 << 12
        )
        front = GrpcioFront(served, runner, metrics, GrpcioOptions(address="127.0.0.1:0"))
        yield front.start()
        front.stop(5)

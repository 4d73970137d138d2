"""Nobody is starved by those who open calls and send nothing: the command as it is shipped, with one worker and two."""

import contextlib
from pathlib import Path

import pytest
from hyperframe.frame import SettingsFrame

from proto.repository import Repository
from service.client import Converter
from tests.e2e.processes import serving
from tests.service.artefacts import make_artefact
from tests.service.http2.raw import RawClient, request

STREAM = "/quicksilver.v1.ConverterService/ConvertStream"
ENHANCE_YOUR_CALM = 11
HOARDERS = 16


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_that_send_nothing_starve_nobody(tmp_path: Path, workers: int) -> None:
    """Others are answered though all places that anybody may have are taken; then the hoarders lose theirs."""
    repository = Repository(tmp_path / "models")
    repository.publish("linear", make_artefact())
    with serving(repository.root, "--workers", str(workers)) as server, contextlib.ExitStack() as opened:
        hoarders = [opened.enter_context(RawClient(server.address)) for _ in range(HOARDERS * workers)]
        allowed = {hoarder.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] for hoarder in hoarders}
        assert allowed == {1024 // workers}
        for hoarder in hoarders:
            calls = [hoarder.headers_frame(request(STREAM), hoarder.new_stream()) for _ in range(1024 // workers)]
            hoarder.try_send(b"".join(calls))
        while not any(hoarder.goaway for hoarder in hoarders):
            with Converter(server.address) as converter:
                assert list(converter.convert([50.0]).celsius) == pytest.approx([10.0])
            for hoarder in hoarders:
                hoarder.drain(0.005)
        assert {each.goaway.error_code for each in hoarders if each.goaway} == {ENHANCE_YOUR_CALM}
        assert server.metric('quicksilver_shed_calls_total{reason="stalled"}') > 0
        assert server.get("/readyz")[0] == 200

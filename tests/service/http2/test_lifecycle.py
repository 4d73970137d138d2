"""Listening, draining, ageing, TLS: the front around its connections."""

import contextlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import SettingsFrame

from proto.quicksilver.v1 import converter_pb2 as api
from service.address import AddressError
from service.closed import Closed
from service.errors import Shed
from service.http2 import Certificates, Http2Limits
from service.http2.tls import CertificatesError
from service.models import Models
from service.status import Code
from tests.service.http2.authority import Authority, secure, trusting
from tests.service.http2.raw import CONVERT, PREFACE, RawClient, request
from tests.service.http2.serving import Serving, celsius, convert_body, server_process
from tests.service.http2.test_calls import BODY, assert_honest
from tests.service.http2.test_interop import STREAM, Converting, streaming

REQUEST = BODY[5:]


def convert(channel: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    """The method Convert, in bytes."""
    return channel.unary_unary(CONVERT)


def test_unix_socket(models: Models, tmp_path: Path) -> None:
    """A Unix socket serves as well, takes the place of one that nobody listens on, and is removed in the end."""
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Serving(models, address=f"unix:{path}") as serving:
        assert serving.address == f"unix:{path}"
        assert_honest(serving.address)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            assert celsius(convert(channel)(REQUEST, timeout=60)) == pytest.approx([10.0])
    assert not path.exists()


def test_address_in_use(models: Models, serving: Serving, tmp_path: Path) -> None:
    """An address that somebody listens on is named in the error, and left alone."""
    with (
        pytest.raises(AddressError, match=f"{serving.address}: Address already in use"),
        Serving(models, address=serving.address),
    ):
        pass
    path = f"unix:{tmp_path}/front.sock"
    with Serving(models, address=path) as first:
        with pytest.raises(AddressError, match="Address already in use"), Serving(models, address=path):
            pass
        assert_honest(first.address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:port", "unix:/no/such/directory/x.sock", "256.0.0.1:80"])
def test_address_that_is_none(models: Models, address: str) -> None:
    """An address that cannot be listened on is refused with its name."""
    with (
        pytest.raises(AddressError, match=address.rsplit(":", maxsplit=1)[-1].rsplit("/", maxsplit=1)[-1]),
        Serving(models, address=address),
    ):
        pass


def test_many_connect_at_once(serving: Serving) -> None:
    """Hundreds of connections that come at once are all accepted."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(RawClient(serving.address, greet=False)) for _ in range(500)]
        while serving.ask(lambda: serving.front.connections) != 500:
            pass
        assert_honest(serving.address)
        assert not any(client.closed for client in clients)


def test_connections_over_the_limit(models: Models) -> None:
    """Connections over the limit are closed at once; those that are there go on."""
    with Serving(models, Http2Limits(max_connections=3)) as serving, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(RawClient(serving.address)) for _ in range(3)]
        with RawClient(serving.address, greet=False) as late:
            late.wait_closed()
        assert clients[0].unary(BODY).status == Code.OK
        assert serving.tally.connections == 4
        assert serving.tally.closed == {Closed.FULL: 1}


def test_out_of_descriptors() -> None:
    """A server that runs out of descriptors says so once, and goes on when there are some again."""
    with server_process(max_descriptors=64) as server:
        with contextlib.ExitStack() as opened:
            first = opened.enter_context(RawClient(server.address))
            for _ in range(100):
                opened.enter_context(RawClient(server.address, greet=False))
            assert first.unary(BODY).status == Code.OK
            first.drain(0.5)
        assert_honest(server.address)
        server.process.terminate()
        _, logged = server.process.communicate(timeout=60)
        assert logged.count("connections cannot be accepted for now") <= 2
        assert len(logged) < 20_000


# Draining -------------------------------------------------------------------------------------------------------------


def test_drain_finishes_what_was_begun(models: Models) -> None:
    """A front that drains answers what was sent, takes nothing new, and says which calls it took."""
    with Serving(models, Http2Limits(inline_bytes=1)) as serving, RawClient(serving.address) as client:
        serving.dataplane.go.clear()
        streams = [client.call(BODY) for _ in range(50)]
        client.drain(0.1)
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(serving.drain(20)))
        draining.start()
        client.wait(lambda: len(client.goaways) == 2)
        assert client.goaways[0].last_stream_id == (1 << 31) - 1
        assert client.goaways[1].last_stream_id == streams[-1]
        with pytest.raises(OSError, match="refused"):
            RawClient(serving.address)
        serving.dataplane.go.set()
        assert [client.finish(stream).status for stream in streams] == [Code.OK] * 50
        client.wait_closed()
        client.socket.close()
        draining.join()
        assert drained == [True]


def test_call_that_crosses_the_notice(models: Models) -> None:
    """A call that was on its way when the notice went out is answered."""
    with Serving(models) as serving, RawClient(serving.address) as client:
        client.acknowledge_pings = False
        draining = threading.Thread(target=serving.drain, args=(20,))
        draining.start()
        client.wait(lambda: len(client.goaways) == 1)
        assert client.unary(BODY).status == Code.OK
        client.socket.close()
        draining.join()


def test_answers_just_given_arrive(models: Models) -> None:
    """None of five hundred answers is lost when the front stops right after it gave them, and is sent more besides."""
    with Serving(models) as serving, RawClient(serving.address, settings={4: 1 << 24}) as client:
        client.open_windows()
        calls = [client.call_bytes(request(), convert_body(*[50.0] * 500)) for _ in range(500)]
        client.send(b"".join(out for _, out in calls))
        while serving.tally.ended.get((CONVERT, Code.OK), 0) < 500:
            pass
        draining = threading.Thread(target=serving.drain, args=(20,))
        draining.start()
        client.open_windows(0, 1)
        assert [client.finish(stream).status for stream, _ in calls] == [Code.OK] * 500
        client.wait_closed()
        client.socket.close()
        draining.join()


@pytest.mark.parametrize("held_up", [False, True], ids=["in time", "late"])
def test_drain_that_takes_too_long(models: Models, held_up: bool) -> None:  # noqa: FBT001 - a parameter
    """Calls that do not end in time are told UNAVAILABLE, and the handler learns that they are over; also where the
    front finds at once that the time is over and that a connection's is.
    """  # noqa: D205 - one sentence
    with Serving(models, methods=[streaming()]) as serving, RawClient(serving.address) as client:
        stream = client.call(b"", request(STREAM), end=False)
        while serving.ask(lambda: serving.front.calls) != 1:
            pass
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(serving.drain(0.3)))
        draining.start()
        if held_up:
            client.wait(lambda: client.goaways)
            serving.ask(lambda: time.sleep(0.6))
        assert client.finish(stream).status == Code.UNAVAILABLE
        client.wait_closed()
        client.socket.close()
        draining.join()
        assert drained == [False]
        assert Converting.last.over.wait(60)
        assert serving.tally.sheds == {Shed.DRAINING: 1}
        assert serving.tally.closed == {Closed.DRAINING: 1}


def test_rolling_restarts(models: Models, tmp_path: Path) -> None:
    """Over four restarts of two servers, a client that retries UNAVAILABLE as gRPC does loses no call."""
    addresses = [f"unix:{tmp_path}/{name}.sock" for name in "ab"]
    retry = (  # both attempts go to one address: to a server, or to its heir
        '{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":5,'
        '"initialBackoff":"0.05s","maxBackoff":"0.2s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}'
    )
    failures: list[grpc.RpcError] = []
    answered = [0, 0]
    stop = threading.Event()

    def load(index: int) -> None:
        options = [("grpc.service_config", retry), ("grpc.max_reconnect_backoff_ms", 100)]
        options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(addresses[index], options=options) as channel:
            while not stop.is_set():
                calls = [convert(channel).future(REQUEST, timeout=60, wait_for_ready=True) for _ in range(20)]
                for call in calls:
                    try:
                        call.result()
                        answered[index] += 1
                    except grpc.RpcError as error:
                        failures.append(error)

    with contextlib.ExitStack() as running:
        servers = [running.enter_context(contextlib.ExitStack()) for _ in addresses]
        for server, address in zip(servers, addresses, strict=True):
            server.enter_context(Serving(models, address=address))
        threads = [threading.Thread(target=load, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(4):
            before = answered[turn % 2]
            while answered[turn % 2] < before + 100:
                time.sleep(0.001)
            servers[turn % 2].close()
            servers[turn % 2].enter_context(Serving(models, address=addresses[turn % 2]))
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert min(answered) > 200


def ended(serving: Serving) -> Counter[Closed]:
    """Why connections ended, once none is open."""
    while serving.ask(lambda: serving.front.connections):
        pass
    return serving.tally.closed


# As time passes -------------------------------------------------------------------------------------------------------


def connected_with_a_call(serving: Serving, body: bytes, path: str, *, end: bool) -> tuple[RawClient, int]:
    """A client whose greeting and call lie there before its connection is accepted, however slow the machine is."""

    def connect() -> tuple[RawClient, int]:  # on the front's loop, which accepts nothing meanwhile
        client = RawClient(serving.address, greet=False)
        stream, call = client.call_bytes(request(path), body, end=end)
        client.send(PREFACE + SettingsFrame(0).serialize() + call)
        return client, stream

    return serving.ask(connect)


def test_old_connection_is_drained(models: Models) -> None:
    """A connection past its age is drained: what is open is finished, and then it closes."""
    with Serving(models, Http2Limits(max_age_seconds=0.2)) as serving:
        client, stream = connected_with_a_call(serving, BODY, CONVERT, end=True)
        assert client.finish(stream).status == Code.OK
        client.wait_closed()
        assert [goaway.error_code for goaway in client.goaways] == [0, 0]
        client.socket.close()
        assert ended(serving) == {Closed.AGE: 1}


def test_calls_outlive_their_connections_age_by_a_grace(models: Models) -> None:
    """Calls that do not end within the grace of an old connection are told UNAVAILABLE."""
    limits = Http2Limits(max_age_seconds=0.1, age_grace_seconds=0.2)
    with Serving(models, limits, [streaming()]) as serving:
        client, stream = connected_with_a_call(serving, b"", STREAM, end=False)
        assert client.finish(stream).status == Code.UNAVAILABLE
        client.wait_closed()
        client.socket.close()
        assert ended(serving) == {Closed.AGE: 1}
        assert serving.tally.sheds == {Shed.CONNECTION_AGE: 1}


def test_idle_connection_is_drained(models: Models) -> None:
    """A connection without a call is drained after a while; one with a call is not."""
    with (
        Serving(models, Http2Limits(max_idle_seconds=0.2), [streaming()]) as serving,
        RawClient(serving.address) as idle,
    ):
        busy, stream = connected_with_a_call(serving, b"", STREAM, end=False)
        idle.wait_closed()
        busy.drain(0.6)
        assert not busy.goaways
        busy.reset(stream)
        busy.wait_closed()
        for client in (idle, busy):
            client.socket.close()
        assert ended(serving) == {Closed.IDLE: 2}


@pytest.mark.parametrize("why", [Closed.AGE, Closed.IDLE], ids=lambda why: why.value)
@pytest.mark.parametrize(
    ("grace_seconds", "drain_seconds", "cut_by"),
    [(60, 0.3, Shed.DRAINING), (0.5, 60, Shed.CONNECTION_AGE), (60, 60, None)],
    ids=["the server's time is over", "the connection's time is over", "in time"],
)
def test_server_that_stops_as_a_connection_drains(
    models: Models,
    why: Closed,
    grace_seconds: float,
    drain_seconds: float,
    cut_by: Shed | None,
) -> None:
    """A connection that was asked to leave before goes for that reason, and is cut by whichever time ends first."""
    limits = Http2Limits(age_grace_seconds=grace_seconds)
    limits = replace(limits, max_age_seconds=0.1) if why is Closed.AGE else replace(limits, max_idle_seconds=0.1)
    with Serving(models, limits, [streaming()]) as serving, RawClient(serving.address) as client:
        client.acknowledge_pings = False  # so that a call may cross the notice
        client.wait(lambda: client.goaways)
        stream = client.call(b"", request(STREAM), end=False)
        while serving.ask(lambda: serving.front.calls) != 1:
            pass
        drained: list[bool] = []
        draining = threading.Thread(target=lambda: drained.append(serving.drain(drain_seconds)))
        draining.start()
        while not serving.ask(lambda: serving.front._draining):  # noqa: SLF001 - nobody else knows it
            pass
        if cut_by is None:
            client.reset(stream)
        else:
            assert client.finish(stream).status == Code.UNAVAILABLE
        client.wait_closed()
        client.socket.close()
        draining.join()
        assert drained == [cut_by is not Shed.DRAINING]
        assert serving.tally.sheds == ({} if cut_by is None else {cut_by: 1})
        assert serving.tally.closed == {Closed.DRAINING if cut_by is Shed.DRAINING else why: 1}


def test_keepalive(models: Models) -> None:
    """A silent peer is pinged; one that answers is pinged again and stays, one that does not is dropped."""
    patient, strict = (
        Http2Limits(keepalive_seconds=0.1),
        Http2Limits(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1),
    )
    with Serving(models, patient) as serving, RawClient(serving.address) as there:
        there.wait(lambda: there.asked == 3)  # the second comes once the first was answered
        assert there.unary(BODY).status == Code.OK
        assert serving.ask(lambda: serving.front.connections) == 1
    with Serving(models, strict) as serving, RawClient(serving.address, greet=False) as gone:
        gone.acknowledge_pings = gone.acknowledge_settings = False
        gone.send(PREFACE + SettingsFrame(0).serialize())
        gone.wait_closed()
        gone.socket.close()
        assert gone.asked == 1
        assert ended(serving) == {Closed.KEEPALIVE: 1}


# TLS ------------------------------------------------------------------------------------------------------------------


def converts(channel: grpc.Channel) -> bool:
    """Whether a call over a channel is answered."""
    with channel:
        try:
            convert(channel)(REQUEST, timeout=60)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise
        return True


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that everybody trusts."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def serving_tls(models: Models, authority: Authority) -> Iterator[Serving]:
    """A front that speaks TLS and wants no certificates of clients."""
    with Serving(models, certificates=Certificates(*authority.issue("server"))) as started:
        yield started


def test_tls(models: Models, authority: Authority) -> None:
    """Over TLS, large messages too are answered, and who speaks plainly is not."""
    with Serving(models, certificates=Certificates(*authority.issue("server"))) as serving:
        with secure(serving.address, authority) as channel:
            values = [float(value) for value in range(50_000)]
            message = api.ConvertRequest(fahrenheit=values).SerializeToString()
            answer = convert(channel)(message, timeout=60)
            assert celsius(answer) == pytest.approx([(value - 32) * 5 / 9 for value in values], rel=1e-4, abs=1e-3)
        assert not converts(grpc.insecure_channel(serving.address))
        assert serving.ask(lambda: serving.front.connections) >= 0


def test_mutual_tls(models: Models, authority: Authority, tmp_path: Path) -> None:
    """With mutual TLS, only clients with a certificate of the right authority are served."""
    certificates = Certificates(*authority.issue("server"), client_authorities=authority.certificate)
    other = Authority(tmp_path, "other")
    with Serving(models, certificates=certificates) as serving:
        assert converts(secure(serving.address, authority, authority.issue("client")))
        assert not converts(secure(serving.address, authority))
        assert not converts(secure(serving.address, authority, other.issue("stranger")))


def test_certificates_are_read_anew(models: Models, authority: Authority, tmp_path: Path) -> None:
    """When the files change, new connections get the new certificate, and those that are open go on."""
    certificate, key = authority.issue("server")
    certificates = Certificates(certificate, key)
    with Serving(models, certificates=certificates) as serving, secure(serving.address, authority) as before:
        call = convert(before)
        call(REQUEST, timeout=60)
        successor = Authority(tmp_path, "successor")
        new_certificate, new_key = successor.issue("heir")
        new_key.replace(key)
        certificate.write_bytes(new_certificate.read_bytes())
        assert serving.ask(certificates.refresh)
        assert converts(secure(serving.address, successor))
        assert not converts(secure(serving.address, authority))
        call(REQUEST, timeout=60)
        certificate.write_text("not a certificate")
        assert not serving.ask(certificates.refresh)
        assert converts(secure(serving.address, successor))


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


def client_context(version: ssl.TLSVersion, authority: Authority, own: tuple[Path, Path] | None) -> ssl.SSLContext:
    """What a client of one version of TLS trusts and shows."""
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    if own is not None:
        context.load_cert_chain(*own)
    return context


def converse(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bool, ssl.SSLSession | None]:
    """Have a call answered over TLS, and tell whether the session was resumed, and which there is to resume next.

    Raises:
        ssl.SSLError, ConnectionError: the client is not admitted.
    """
    with RawClient(address, greet=False) as client:
        client.socket = secured = context.wrap_socket(client.socket, server_hostname="localhost", session=session)
        client.send(PREFACE + SettingsFrame(0).serialize())
        assert celsius(client.unary(BODY).message) == pytest.approx([10.0])
        return bool(secured.session_reused), secured.session


@VERSIONS
def test_sessions_are_resumed(serving_tls: Serving, authority: Authority, version: ssl.TLSVersion) -> None:
    """Where clients show no certificates, who comes back is spared a full handshake."""
    context = client_context(version, authority, None)
    resumed, session = converse(serving_tls.address, context)
    assert not resumed
    for _ in range(3):
        resumed, session = converse(serving_tls.address, context, session)
        assert resumed


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@VERSIONS
def test_authorities_that_are_gone_admit_nobody(
    models: Models, authority: Authority, tmp_path: Path, loop: str, version: ssl.TLSVersion
) -> None:
    """Clients of an authority that was taken out come in no more, with the session of an earlier visit neither."""
    former = Authority(tmp_path, "former")
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(former.certificate.read_bytes())
    certificates = Certificates(*authority.issue("server"), client_authorities=authorities)
    context = client_context(version, authority, former.issue("client"))
    other = client_context(version, authority, authority.issue("other"))
    with Serving(models, certificates=certificates, loop=loop) as serving:
        _, session = converse(serving.address, context)
        authorities.write_bytes(authority.certificate.read_bytes())
        assert serving.ask(certificates.refresh)
        converse(serving.address, other)
        for known in (session, None):
            with pytest.raises((ssl.SSLError, ConnectionError)):  # an alert, or the connection's end, if that is first
                converse(serving.address, context, known)
        converse(serving.address, other)


def test_no_tickets_where_clients_show_certificates(models: Models, authority: Authority) -> None:
    """A ticket would admit a client whose certificate has expired since, and be renewed each time."""
    certificates = Certificates(*authority.issue("server"), client_authorities=authority.certificate)
    own = authority.issue("client")
    with Serving(models, certificates=certificates) as serving:
        newer, older = (
            client_context(version, authority, own) for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)
        )
        _, session = converse(serving.address, newer)
        assert not converse(serving.address, newer, session)[0]
        _, session = converse(serving.address, older)
        assert session is not None
        assert not session.has_ticket


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    """Files that are missing or wrong are named."""
    with pytest.raises(CertificatesError, match=r"nothing\.crt"):
        Certificates(tmp_path / "nothing.crt", tmp_path / "nothing.key")


def test_handshake_never_finished(models: Models, authority: Authority) -> None:
    """A connection that does not finish its TLS handshake is closed after its time."""
    certificates = Certificates(*authority.issue("server"))
    with Serving(models, Http2Limits(handshake_seconds=0.3), certificates=certificates) as serving:
        with RawClient(serving.address, greet=False) as silent:
            silent.wait_closed()
        while not serving.ask(lambda: serving.tally.closed[Closed.HANDSHAKE]):
            pass
        assert converts(secure(serving.address, authority))

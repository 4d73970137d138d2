"""The command `quicksilver ready`: asks a server over grpc.health.v1 whether it answers, and waits for it if told to.

For scripts, and for container health checks in images that have no curl. It waits by watching, not by asking again.
"""

import sys
from collections.abc import Sequence

from service.arguments import Parser
from service.connection import Connection, ConnectionOptionsError, add_arguments

EXPLANATION = "Exit code 0: ready. 1: not ready, or no server there."


def parser() -> Parser:
    """The parser of `quicksilver ready`."""
    parser = Parser(prog="quicksilver ready", description="Tell whether a running server is ready.", epilog=EXPLANATION)
    add_arguments(parser)
    parser.add_argument("--model", metavar="NAME", help="ask about one model instead of the whole server")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait up to this long [0]")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        problem = wait_until_ready(Connection.of(options), _asked(options.model), options.wait)
    except ConnectionOptionsError as error:
        problem = str(error)
    if problem:
        print(f"quicksilver ready: {options.server}: {problem}", file=sys.stderr)  # noqa: T201 - the terminal asked
        return 1
    return 0


def _asked(model: str | None) -> str:
    """The name to ask grpc.health.v1 about."""
    if not model:
        return ""
    # The server's own code, ONNX Runtime with it, is half of this command's cost; a container asks every few seconds.
    from service.health import MODEL_PREFIX  # noqa: PLC0415 - see above

    return MODEL_PREFIX + model


def wait_until_ready(connection: Connection, service: str, wait_seconds: float) -> str | None:
    """Wait until a server says that it serves, and return None; or say why it did not within the time given.

    Raises:
        ConnectionOptionsError: a file of the connection cannot be read.
    """
    import grpc  # noqa: PLC0415 - takes a while to import
    from grpc_health.v1 import health_pb2 as pb  # noqa: PLC0415 - as above
    from grpc_health.v1.health_pb2_grpc import HealthStub  # noqa: PLC0415 - as above

    problem = "no answer in time"
    with connection.channel() as channel:
        watch = HealthStub(channel).Watch(
            pb.HealthCheckRequest(service=service), timeout=wait_seconds or 5.0, wait_for_ready=wait_seconds > 0
        )
        try:
            for answer in watch:
                if answer.status == pb.HealthCheckResponse.SERVING:
                    return None
                problem = pb.HealthCheckResponse.ServingStatus.Name(answer.status)
                if not wait_seconds:
                    break
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                problem = f"{error.code().name}: {error.details()}"
        finally:
            watch.cancel()
    return problem

"""The command `quicksilver`: finds the subcommand asked for and imports its package only then.

Serving needs no torch and training no grpc, so each side is imported when one of its commands is called. Where a side's
packages are missing, the error names the extra that brings them.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple


class Command(NamedTuple):
    """Where a subcommand lives, and the line that describes it."""

    module: str
    summary: str


COMMANDS: Final = {
    "train": Command("training.cli", "fit a converter, and export or publish it"),
    "evaluate": Command("training.cli", "errors, leave-one-out, interval: the models side by side"),
    "reproduce": Command("training.cli", "train as published and compare with the published figures"),
    "report": Command("training.cli", "write pictures and one HTML page about the fitted models"),
    "gallery": Command("training.cli", "write pictures of activation functions and of composed neurons"),
    "publish": Command("training.cli", "put a model file into a repository as a new version"),
    "retrain": Command("training.cli", "retrain on observations, and publish what proves better than the champion"),
    "serve": Command("service.cli", "serve the models of a repository over gRPC"),
    "ready": Command("service.cli", "tell whether a running server is ready, or wait until it is"),
    "convert": Command("service.cli", "convert temperatures with a running server"),
    "models": Command("service.cli", "list and describe a server's models; label, roll back, remove versions"),
    "promote": Command("service.cli", "promote a canary that proved better; roll back a stable that turned worse"),
    "observations": Command("service.cli", "store observations of true temperatures; write them out; count them"),
}

_DISTRIBUTION: Final = "quicksilver-serving"
_SIGNALLED: Final = 128
"""A shell's exit code for a process that a signal ended is this and the signal's number."""

# Which extra brings a package that only one side needs.
_EXTRAS: Final = {
    "onnxruntime": "cpu' or 'gpu",
    "torch": "training",
    "onnx": "training",
    "onnxscript": "training",
    "matplotlib": "training",
    "jinja2": "training",
    "pyarrow": "training",
    "psycopg": "postgresql",
}


def usage() -> str:
    """Return the text that `quicksilver --help` prints."""
    lines = [f"  {name:<12} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: quicksilver COMMAND [options]",
            "",
            "Trains Fahrenheit-to-Celsius converters, exports them to ONNX, and serves them over gRPC.",
            "",
            *lines,
            "",
            "'quicksilver COMMAND --help' describes a command; 'quicksilver --version' tells this version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the process's exit code: 2 for a command line that makes no sense."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help"}:
        print(usage())  # noqa: T201 - this is what was asked for
        return 0 if words else 2
    if words[0] == "--version":
        from importlib import metadata  # noqa: PLC0415 - its import is half of a start, in which Ctrl-C is a traceback

        print(metadata.version(_DISTRIBUTION))  # noqa: T201 - as above
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        return _complain(f"no command {words[0]!r}: there are {', '.join(COMMANDS)}", 2)
    return _run(command, words)


def _run(command: Command, words: list[str]) -> int:
    try:
        code: int = importlib.import_module(command.module).main(words)
        sys.stdout.flush()  # here, where a reader that has left is no fault
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _complain(f"{words[0]!r} needs {error.name!r}: install {_DISTRIBUTION} with the extra '{extra}'", 1)
    except BrokenPipeError:  # `quicksilver … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return _SIGNALLED + signal.SIGPIPE
    except KeyboardInterrupt:
        return _SIGNALLED + signal.SIGINT
    return code


def _complain(message: str, code: int) -> int:
    print(f"quicksilver: {message}", file=sys.stderr)  # noqa: T201 - the terminal is who asked
    return code


if __name__ == "__main__":
    sys.exit(main())

"""The command line of training: a thin table of commands. Each command's module is imported when it is called."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, cast

from proto.artefact import ArtefactError
from proto.repository import RepositoryError
from training.errors import TrainingError

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells count it: 128 and the number of SIGINT."""


class Subcommand(NamedTuple):
    """Which module runs a command, and what its help says."""

    module: str
    description: str


class _Module(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


COMMANDS: Final = {
    "train": Subcommand("training.train", "Fit a converter, and export or publish it."),
    "evaluate": Subcommand("training.evaluate", "Fit the kinds of converter and set their errors side by side."),
    "reproduce": Subcommand("training.reproduce", "Train as published and compare with the published figures."),
    "publish": Subcommand("training.publish", "Put a model file into a repository as a new version."),
    "retrain": Subcommand(
        "training.retrain", "Retrain a model on observations, and publish it where it proves better."
    ),
    "report": Subcommand("training.report", "Write pictures and one HTML page about the fitted models."),
    "gallery": Subcommand("training.gallery", "Write pictures of activation functions and of composed neurons."),
}


def main(words: Sequence[str]) -> int:
    """Run the command that `words` begin with, and return the exit code: 1 for a refusal, which is one line."""
    command = COMMANDS[words[0]]
    try:
        module = cast("_Module", importlib.import_module(command.module))
        parser = argparse.ArgumentParser(prog=f"quicksilver {words[0]}", description=command.description)
        module.add_arguments(parser)
        return module.run(parser.parse_args(words[1:]))
    except (TrainingError, RepositoryError, ArtefactError) as error:
        return _complain(words[0], str(error), 1)
    except BrokenPipeError:  # whoever read the output has left: the command `quicksilver` knows what to make of it
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _complain(words[0], f"{where}{error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _complain(words[0], "interrupted; nothing was left half-written", INTERRUPTED)


def _complain(command: str, message: str, code: int) -> int:
    print(f"quicksilver {command}: {message}", file=sys.stderr)  # noqa: T201 - the terminal is who asked
    return code

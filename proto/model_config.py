"""What an operator says of a model that its files do not: `models/<name>/config.json`, which may be absent.

One object with one key so far: `{"rows_independent": true}` states that each row of an input is answered on its own,
whatever other rows stand beside it, so that calls may share a run. The reader is strict, since a misspelt key would
otherwise be a setting that silently does nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "config.json"

_ROWS_INDEPENDENT: Final = "rows_independent"


class ModelConfigError(Exception):
    """A model's configuration is not what it should be; the message names the file and the key."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What an operator says of a model. The defaults are what is assumed where nothing is said."""

    rows_independent: bool = False
    """Whether an answer depends on its own row alone. Believed only where a probe agrees."""


def read_config(directory: Path) -> ModelConfig:
    """Read the configuration in a model's directory; the defaults where there is none.

    Raises:
        ModelConfigError: it is not JSON, not an object, has an unknown key, or a value of another type.
        OSError: it is there but cannot be read.
    """
    path = directory / CONFIG_FILE
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ModelConfig()
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{directory.name}/{CONFIG_FILE} is not UTF-8: {error}") from error
    try:
        return parse_config(text)
    except ValueError as error:
        raise ModelConfigError(f"{directory.name}/{CONFIG_FILE}: {error}") from error


def parse_config(text: str) -> ModelConfig:
    """Read a configuration.

    Raises:
        ValueError: as `read_config`, without the file's name.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - wrong text is a wrong value
    if unknown := sorted(content.keys() - {_ROWS_INDEPENDENT}):
        raise ValueError(f"unknown key {unknown[0]!r}: there is {_ROWS_INDEPENDENT}")
    rows_independent = content.get(_ROWS_INDEPENDENT, False)
    if not isinstance(rows_independent, bool):
        raise ValueError(f"{_ROWS_INDEPENDENT} is not true or false: {rows_independent!r}")  # noqa: TRY004 - as above
    return ModelConfig(rows_independent)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands there twice")
    return content

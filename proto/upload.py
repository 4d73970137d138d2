"""How a model file travels to a running server: a RepositoryModelLoad of the Open Inference Protocol that holds it.

Each file is a parameter `file:VERSION/model.onnx` of bytes, as Triton takes them, and so may be the verdict that let it
in: `file:VERSION/verdict.json` and `file:VERSION/verdict.html`. `next` in place of a version stands
for the number that comes next in the server's repository. The versions that were published come back as trailing
metadata.
"""

import re
from typing import Final

from proto.repository import MODEL_FILE, VERDICT_FILES

LOAD_METHOD: Final = "/inference.GRPCInferenceService/RepositoryModelLoad"
NEXT: Final = "next"
VERSIONS_KEY: Final = "quicksilver-versions"
"""Trailing metadata of the answer: the published versions, with commas between."""

_FILES: Final = (MODEL_FILE, *VERDICT_FILES)
_KEY: Final = re.compile(rf"file:([1-9][0-9]{{0,17}}|{NEXT})/({'|'.join(map(re.escape, _FILES))})")


def file_key(version: int | None, name: str = MODEL_FILE) -> str:
    """The key of the parameter that holds a version's file of this name; None for the version that comes next."""
    return f"file:{NEXT if version is None else version}/{name}"


def parse_file_key(key: str) -> tuple[int | None, str]:
    """The version of a file's key, None for the one that comes next, and the file's name.

    Raises:
        ValueError: it is no such key. Nothing else is ever made of a key: no path is built from it.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key[:80]!r} is not 'file:VERSION/{MODEL_FILE}' with a whole number from 1 or {NEXT!r}")
    return None if match[1] == NEXT else int(match[1]), match[2]

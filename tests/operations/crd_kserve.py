"""Checks objects of KServe, as YAML on standard input; runs where its SDK is installed.

The SDK's classes are made of the custom resources' schemas: which fields there are, by their names in JSON, and of what
type. Every field of an object is looked for, down to the leaves.
"""

import re
import sys
from typing import Any

import yaml
from kserve import models
from kubernetes.client import models as kubernetes

PRIMITIVES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "object": (object,),
}
KINDS = {
    "serving.kserve.io/v1alpha1": {"ServingRuntime": "V1alpha1ServingRuntime"},
    "serving.kserve.io/v1beta1": {"InferenceService": "V1beta1InferenceService"},
}


def check(value: Any, kind: str, where: str) -> None:  # noqa: ANN401 - whatever YAML says
    """Raise a ValueError that names the place where a value is not of a kind, in the generated code's own words."""
    inner = re.fullmatch(r"(list\[|dict\(str, )(.*)[\])]", kind)
    if inner is not None:
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, entry in entries:
            check(entry, inner[2], f"{where}.{key}")
    elif kind in PRIMITIVES:
        if not isinstance(value, PRIMITIVES[kind]):
            raise ValueError(f"{where} is {value!r}, not {kind}")
    else:
        check_fields(value, getattr(models, kind, None) or getattr(kubernetes, kind, None), where)


def check_fields(value: dict[str, Any], known: Any, where: str) -> None:  # noqa: ANN401 - a class of the SDK, or none
    """Check each field of an object. A quantity, which is a number or a text, has no class of its own."""
    if known is None:
        return
    names = {json_name: name for name, json_name in known.attribute_map.items()}
    for field, entry in value.items():
        if field not in names:
            raise ValueError(f"{where}.{field}: {known.__name__} has no such field")
        check(entry, known.openapi_types[names[field]], f"{where}.{field}")


checked = []
for found in yaml.safe_load_all(sys.stdin):
    kind = KINDS.get(found["apiVersion"], {}).get(found["kind"])
    if kind is not None:
        check_fields(found, getattr(models, kind), found["kind"])
        checked.append(found["kind"])
sys.stdout.write(" ".join(checked))

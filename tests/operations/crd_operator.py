"""Checks objects of Prometheus' operator, as YAML on standard input; runs where its published models are installed.

The models check types and patterns but ignore fields that they do not know, so an object must also come back as it was.
"""

import sys

import yaml
from cloudcoil.models.prometheus_operator import v1

KINDS = {"monitoring.coreos.com/v1": v1}

checked = []
for found in yaml.safe_load_all(sys.stdin):
    if found["apiVersion"] in KINDS:
        model = getattr(KINDS[found["apiVersion"]], found["kind"]).model_validate(found)
        given = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert given == found, f"fields that {found['kind']} has not: {given} is left of {found}"
        checked.append(found["kind"])
sys.stdout.write(" ".join(checked))

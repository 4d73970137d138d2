"""deploy/kubernetes: every overlay is what its schemas say, and its parts agree with each other and with the server.

Validated, not run: no cluster can be started where this is tested. kubectl puts the overlays together; Kubernetes' own
schemas, those of Prometheus' operator and those of KServe are held against them, strictly: unknown fields are errors.
"""

import functools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.__main__ import groups, main
from service.config import Settings, variable
from service.snapshot import FAMILIES, Gauge
from tests.environments import ROOT, install
from tests.operations.test_deployment import parse

MANIFESTS = ROOT / "deploy" / "kubernetes"
HERE = ROOT / "tests" / "operations"
COMPONENT = MANIFESTS / "components" / "closed_loop"
OVERLAYS = ("base", "overlays/production", "overlays/gpu", "overlays/kserve")
MARGIN_SECONDS = 5

Objects = dict[tuple[str, str], dict[str, Any]]

pytestmark = pytest.mark.timeout(900)  # the first run installs the tools, and KServe's SDK takes minutes


@pytest.fixture(scope="session")
def rendered(tools: Path) -> Callable[[str], str]:
    """What `kubectl kustomize` makes of an overlay."""

    @functools.cache
    def render(overlay: str) -> str:
        command: list[str | Path] = [tools / "kubectl", "kustomize", MANIFESTS / overlay]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return render


@pytest.fixture(scope="session")
def objects(rendered: Callable[[str], str]) -> Callable[[str], Objects]:
    """The objects of an overlay by kind and name."""

    def read(overlay: str) -> Objects:
        found = list(yaml.safe_load_all(rendered(overlay)))
        by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
        assert len(by_name) == len(found)
        return by_name

    return read


def _pods(found: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod templates' specs, by the kind that they stand in."""
    for (kind, _name), one in found.items():
        template = one["spec"].get("jobTemplate", one)["spec"].get("template") if "spec" in one else None
        if template is not None:
            yield kind, template["spec"]


def _piped(text: str, *command: str | Path) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_what_kubernetes_takes(
    tools: Path, rendered: Callable[[str], str], tmp_path: Path, overlay: str
) -> None:
    """Each object of Kubernetes' own kinds fits its schema, with no field that it does not have."""
    written = tmp_path / "rendered.yaml"
    written.write_text(rendered(overlay))
    said = _piped("", tools / "kubernetes-validate", "--strict", written)
    custom = [line for line in said.splitlines() if "find schema" in line]
    assert all("serving.kserve.io" in line or "monitoring.coreos.com" in line for line in custom), said


def test_the_schemas_would_find_a_mistake(tools: Path, rendered: Callable[[str], str], tmp_path: Path) -> None:
    """A misspelt field fails, so that the test before this one can."""
    written = tmp_path / "rendered.yaml"
    written.write_text(rendered("base").replace("readinessProbe:", "readynessProbe:"))
    command: list[str | Path] = [tools / "kubernetes-validate", "--strict", written]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_monitors_and_rules_are_what_the_operator_takes(tools: Path, rendered: Callable[[str], str]) -> None:
    """They fit the models of Prometheus' operator; ones with a misspelt field do not."""
    text = rendered("overlays/production")
    kinds = _piped(text, tools / "python", HERE / "crd_operator.py").split()
    assert sorted(kinds) == ["PrometheusRule", "ServiceMonitor", "ServiceMonitor"]
    for right, wrong, kind in (("jobLabel:", "jobLable:", "ServiceMonitor"), ("expr:", "exprr:", "PrometheusRule")):
        with pytest.raises(AssertionError, match=kind):
            _piped(text.replace(right, wrong), tools / "python", HERE / "crd_operator.py")


def test_the_inference_service_is_what_kserve_takes(rendered: Callable[[str], str]) -> None:
    """Runtime and service fit the classes of KServe's SDK; one with a misspelt field does not."""
    install(ROOT / "tests" / "clients" / "install.sh", "kserve")
    python = ROOT / ".venv-clients" / "kserve" / "bin" / "python"
    text = rendered("overlays/kserve")
    assert sorted(_piped(text, python, HERE / "crd_kserve.py").split()) == ["InferenceService", "ServingRuntime"]
    with pytest.raises(AssertionError, match="has no such field"):
        _piped(text.replace("storageUri:", "storageUrl:"), python, HERE / "crd_kserve.py")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_confined(objects: Callable[[str], Objects], overlay: str) -> None:
    """Not root, a read-only root, no capabilities, no token of the API server, bounded memory."""
    for kind, pod in _pods(objects(overlay)):
        assert (pod["automountServiceAccountToken"], pod["securityContext"]["runAsNonRoot"]) == (False, True), kind
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, kind
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True), kind
            assert context["capabilities"] == {"drop": ["ALL"]}, kind
            assert "memory" in container["resources"]["limits"], kind


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_adds_no_settings(objects: Callable[[str], Objects], overlay: str) -> None:
    """A Service called quicksilver would be a variable QUICKSILVER_PORT, which the server refuses: links are off."""
    found = objects(overlay)
    pods = [pod for _kind, pod in _pods(found)]
    pods += [one["spec"]["predictor"] for (kind, _name), one in found.items() if kind == "InferenceService"]
    assert [pod["enableServiceLinks"] for pod in pods] == [False] * len(pods)


def test_commands_are_those_that_there_are(objects: Callable[[str], Objects]) -> None:
    """Every command line of a container is one that `quicksilver` takes."""
    found = objects("overlays/kserve")
    containers = [container for _kind, pod in _pods(found) for container in pod["containers"]]
    containers += found["ServingRuntime", "quicksilver"]["spec"]["containers"]
    lines = [one["args"] for one in containers if "args" in one and "command" not in one]
    assert sorted(line[0] for line in lines) == ["promote", "retrain", "serve"]
    for line in lines:
        parse(line)


def test_the_first_training_passes_on_what_overlays_add(objects: Callable[[str], Objects], tmp_path: Path) -> None:
    """Its shell trains both models, each with the overlay's words, as a stand-in for the command tells."""
    told = tmp_path / "told"
    stand_in = tmp_path / "quicksilver"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >>{told}\n')
    stand_in.chmod(0o755)
    pod = objects("overlays/production")["Job", "quicksilver-train"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run([*container["command"], *container["args"]], env={"PATH": path}, check=True)
    lines = [line.split() for line in told.read_text().splitlines()]
    assert [line[1] for line in lines] == ["linear", "mlp"]
    for line in lines:
        assert line[-1] == container["args"][0]
        parse(line)


def test_jobs_tell_the_pushgateway(objects: Callable[[str], Objects]) -> None:
    """In production both jobs push to a Service that is there, and the policies at both ends let them."""
    found = objects("overlays/production")
    jobs = [found["Job", "quicksilver-train"], found["CronJob", "quicksilver-retrain"]["spec"]["jobTemplate"]]
    gateway = found["Service", "quicksilver-pushgateway"]["spec"]
    (port,) = gateway["ports"]
    for job in jobs:
        template = job["spec"]["template"]
        assert f"--push-to=http://quicksilver-pushgateway:{port['port']}" in template["spec"]["containers"][0]["args"]
        out = found["NetworkPolicy", "quicksilver-training"]["spec"]
        assert out["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert port["port"] in {allowed["port"] for rule in out["egress"] for allowed in rule["ports"]}
        (rule,) = found["NetworkPolicy", "quicksilver-pushgateway"]["spec"]["ingress"]
        (callers,) = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
        assert callers.items() <= template["metadata"]["labels"].items()
    pod = found["Deployment", "quicksilver-pushgateway"]["spec"]["template"]
    assert gateway["selector"].items() <= pod["metadata"]["labels"].items()
    assert {one["name"]: one["containerPort"] for one in pod["spec"]["containers"][0]["ports"]} == {
        port["targetPort"]: port["port"]
    }


def test_the_gateway_is_the_one_of_compose(objects: Callable[[str], Objects]) -> None:
    """One version of it, wherever it runs, scraped under the name that the rules know, with what jobs pushed kept."""
    found = objects("overlays/production")
    (container,) = found["Deployment", "quicksilver-pushgateway"]["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    assert container["image"] == compose["services"]["pushgateway"]["image"]
    monitor = found["ServiceMonitor", "quicksilver-pushgateway"]["spec"]
    service = found["Service", "quicksilver-pushgateway"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "pushgateway"
    (endpoint,) = monitor["endpoints"]
    assert (endpoint["port"], endpoint["honorLabels"]) == (service["spec"]["ports"][0]["name"], True)


def test_rules_are_those_of_prometheus(objects: Callable[[str], Objects]) -> None:
    """The operator gets each group as it stands in deploy/prometheus, and the committed file is what is written."""
    assert main(["--check"]) == 0
    assert objects("overlays/production")["PrometheusRule", "quicksilver"]["spec"]["groups"] == groups()


def test_the_loop_begins_when_it_is_asked_for(tools: Path, objects: Callable[[str], Objects], tmp_path: Path) -> None:
    """Retraining is suspended and nothing promotes; with the component, both do, and nothing else changes."""
    before = objects("overlays/production")
    overlay = tmp_path / "kustomization.yaml"
    resources = [os.path.relpath(MANIFESTS / "overlays" / "production", tmp_path)]
    overlay.write_text(yaml.safe_dump({"resources": resources, "components": [os.path.relpath(COMPONENT, tmp_path)]}))
    found = list(yaml.safe_load_all(_piped("", tools / "kubectl", "kustomize", tmp_path)))
    after = {(one["kind"], one["metadata"]["name"]): one for one in found}
    begun = {key for key in after if after[key] != before[key]}
    assert begun == {("CronJob", "quicksilver-retrain"), ("Deployment", "quicksilver-promote")}
    assert after.keys() == before.keys()
    assert [one["CronJob", "quicksilver-retrain"]["spec"]["suspend"] for one in (before, after)] == [True, False]
    assert [one["Deployment", "quicksilver-promote"]["spec"]["replicas"] for one in (before, after)] == [0, 1]


def _server(found: Objects) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = found["Deployment", "quicksilver-server"]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def _settings(container: dict[str, Any]) -> Settings:
    """The settings that a container's variables make; those out of secrets have no value here."""
    known = {variable(name): name for name in Settings.model_fields}
    given = {one["name"]: one.get("value") for one in container["env"]}
    assert set(given) <= set(known)
    return Settings.model_validate({known[name]: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("overlay", ["base", "overlays/production", "overlays/gpu"])
def test_the_end_of_a_pod_has_time_for_all_of_it(objects: Callable[[str], Objects], overlay: str) -> None:
    """Sleep and drain fit into the grace period, with some to spare; probes notice within the sleep."""
    pod, container = _server(objects(overlay))
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    settings = _settings(container)
    assert pod["terminationGracePeriodSeconds"] >= sleep + settings.drain_seconds + MARGIN_SECONDS
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= sleep
    assert settings.max_age_seconds > 0


def test_the_end_of_a_pod_under_kserve_has_time_for_all_of_it(objects: Callable[[str], Objects]) -> None:
    """The same holds for the runtime and the service."""
    found = objects("overlays/kserve")
    container = found["ServingRuntime", "quicksilver"]["spec"]["containers"][0]
    (drain,) = [word.partition("=")[2] for word in container["args"] if word.startswith("--drain-seconds")]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = found["InferenceService", "quicksilver"]["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace >= sleep + float(drain) + MARGIN_SECONDS


@pytest.mark.parametrize("overlay", ["base", "overlays/production", "overlays/gpu"])
def test_selectors_find_the_server(objects: Callable[[str], Objects], overlay: str) -> None:
    """Services, budget and policy select the Deployment's pods, and ports are called what the container calls them."""
    found = objects(overlay)
    labels = found["Deployment", "quicksilver-server"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Service", "quicksilver"]["spec"]["selector"],
        found["Service", "quicksilver-headless"]["spec"]["selector"],
        found["PodDisruptionBudget", "quicksilver-server"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy", "quicksilver-server"]["spec"]["podSelector"]["matchLabels"],
        found["Deployment", "quicksilver-server"]["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    named = {port["name"] for port in _server(found)[1]["ports"]}
    services = [one for (kind, _name), one in found.items() if kind == "Service"]
    assert {port["targetPort"] for service in services for port in service["spec"]["ports"]} <= named
    rules = found["NetworkPolicy", "quicksilver-server"]["spec"]["ingress"]
    assert {port["port"] for rule in rules for port in rule["ports"]} <= named
    assert found["Service", "quicksilver-headless"]["spec"]["clusterIP"] == "None"


def test_the_monitor_finds_one_service(objects: Callable[[str], Objects]) -> None:
    """Prometheus' operator scrapes each pod once: one Service fits, and has the port."""
    found = objects("overlays/production")
    monitor = found["ServiceMonitor", "quicksilver"]["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [
        one for (kind, _), one in found.items() if kind == "Service" and wanted <= one["metadata"]["labels"].items()
    ]
    assert [one["metadata"]["name"] for one in services] == ["quicksilver"]
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    assert services[0]["metadata"]["labels"][monitor["jobLabel"]] == "quicksilver"


def test_the_autoscaler_knows_our_metric(objects: Callable[[str], Objects]) -> None:
    """It scales the Deployment by a gauge that the server has, and nothing else writes the number of replicas."""
    found = objects("overlays/production")
    scaler = found["HorizontalPodAutoscaler", "quicksilver-server"]["spec"]
    assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) in found
    names = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    assert names
    assert set(names) <= {name for name, family in FAMILIES.items() if isinstance(family, Gauge)}
    assert "replicas" not in found["Deployment", "quicksilver-server"]["spec"]


def test_under_kserve_only_kserve_serves(objects: Callable[[str], Objects]) -> None:
    """The overlay keeps the claim and the jobs, and leaves the server's Deployment and Services to KServe."""
    found = objects("overlays/kserve")
    kinds = {kind for kind, _name in found}
    assert kinds >= {"PersistentVolumeClaim", "Job", "CronJob", "ServingRuntime", "InferenceService"}
    assert not {"Service", "PodDisruptionBudget"} & kinds
    assert [name for kind, name in found if kind == "Deployment"] == ["quicksilver-promote"]

"""What the Dockerfile and docker-compose.yml promise, so far as it can be read off them; test_compose.py runs them."""

import argparse
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service import promote
from service.cli import convert_parser, serve_parser
from service.config import Settings, variable
from tests.environments import ROOT
from training.cli import COMMANDS as TRAINING

DOCKER = ROOT / "deploy" / "docker"
PROFILES = ("gpu", "job", "retrain")
ENDS_BY_ITSELF = {"trainer", "example", "job"}


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def services(tools: Path) -> dict[str, dict[str, Any]]:
    """Every service, with all profiles, as Docker Compose itself understands the file."""
    chosen = [word for profile in PROFILES for word in ("--profile", profile)]
    command: list[str | Path] = [tools / "docker-compose", *chosen, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    understood: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return understood


def test_the_dockerfile_is_clean(tools: Path) -> None:
    """Hadolint has nothing to say, and nothing is switched off."""
    recipe = DOCKER / "Dockerfile"
    done = subprocess.run([tools / "hadolint", "--no-color", recipe], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint" not in recipe.read_text("utf-8")


def test_requirements_are_those_of_the_project() -> None:
    """Images install what pyproject.toml says, in the extras asked for, and an extra that is not there is refused."""
    requirements = _module(DOCKER / "requirements.py").requirements
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert requirements(ROOT / "pyproject.toml", ["cpu"]) == [*project["dependencies"], *extras["cpu"]]
    assert "torch" not in " ".join(requirements(ROOT / "pyproject.toml", ["cpu", "postgresql", "tracing"]))
    with pytest.raises(ValueError, match="no extra tpu"):
        requirements(ROOT / "pyproject.toml", ["tpu"])


def test_the_image_holds_all_of_our_code(tmp_path: Path) -> None:
    """What the Dockerfile copies, and .dockerignore lets through, is all that both sides import."""
    recipe = (DOCKER / "Dockerfile").read_text("utf-8")
    (stage,) = re.findall(r"^FROM build AS wheel\n(.*?)^RUN", recipe, flags=re.MULTILINE | re.DOTALL)
    (shared,) = re.findall(r"^COPY (pyproject.toml .*) \./$", recipe, flags=re.MULTILINE)
    copied = [word for line in stage.splitlines() for word in line.split()[1:-1]] + shared.split()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    for name in copied:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import quicksilver, service.cli, training.cli; print(quicksilver.__file__)"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(tmp_path / "quicksilver.py"), done.stderr


def test_every_container_is_confined(services: dict[str, dict[str, Any]]) -> None:
    """Read-only root, no capabilities, no new privileges, not root, bounded in memory, CPU and processes."""
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].partition(":")[0]) > 0, name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert not service.get("privileged"), name


def test_what_stays_is_watched(services: dict[str, dict[str, Any]]) -> None:
    """Services that stay are started again and have a health check; those that end are waited for."""
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ENDS_BY_ITSELF else "unless-stopped"), name
        if name not in ENDS_BY_ITSELF | {"retrain", "promote"}:  # which serve nobody who could ask
            assert service["healthcheck"]["test"], name
    assert services["server"]["depends_on"]["trainer"]["condition"] == "service_completed_successfully"
    assert services["example"]["depends_on"]["server"]["condition"] == "service_healthy"


def test_nothing_is_reachable_from_elsewhere(services: dict[str, dict[str, Any]]) -> None:
    """Ports are published on loopback unless BIND_ADDRESS says otherwise, each only once."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)


def test_our_images_are_built_and_never_pulled(services: dict[str, dict[str, Any]]) -> None:
    """A registry may have an image of the same name by somebody else; theirs that are pulled have an exact version."""
    built = {service["image"] for service in services.values() if "build" in service}
    for name, service in services.items():
        if service["image"] in built:
            assert "build" in service or service["pull_policy"] == "never", name
        else:
            assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_there_are_no_secrets() -> None:
    """Neither a password nor a token nor a key stands in what is built or started."""
    for path in (ROOT / "docker-compose.yml", DOCKER / "Dockerfile"):
        assigned = re.findall(
            r"(?i)^\s*-?\s*\w*(?:password|secret|token|api_key)\w*\s*[:=].*$", path.read_text("utf-8"), re.MULTILINE
        )
        assert assigned == [], path


def parse(words: list[str]) -> None:
    """Have the command's own parser read a command line: what it does not know ends the process."""
    if words[0] in TRAINING:
        parser = argparse.ArgumentParser(exit_on_error=False)
        importlib.import_module(TRAINING[words[0]].module).add_arguments(parser)
        parser.parse_args(words[1:])
    else:
        {"convert": convert_parser, "promote": promote.parser, "serve": serve_parser}[words[0]]().parse_args(words[1:])


def test_commands_are_those_that_there_are(services: dict[str, dict[str, Any]]) -> None:
    """Every command line of a container of ours is one that `quicksilver` takes."""
    ours = [one for one in services.values() if one["image"].startswith("quicksilver-") and not one.get("entrypoint")]
    lines = [service["command"] for service in ours if service.get("command")]
    assert {line[0] for line in lines} == {"convert", "retrain", "promote"}
    for line in lines:
        parse(line)


def test_settings_are_those_that_the_server_has(services: dict[str, dict[str, Any]]) -> None:
    """Every QUICKSILVER_ variable is a setting with a value that it takes; the drain fits into the time to stop."""
    known = {variable(name): name for name in Settings.model_fields}
    for name in ("server", "server-gpu"):
        given = {key: value for key, value in services[name]["environment"].items() if key.startswith("QUICKSILVER_")}
        settings = Settings.model_validate({known[key]: value for key, value in given.items()})
        assert settings.drain_seconds < float(services[name]["stop_grace_period"].removesuffix("s"))
    image = re.findall(r"\b(QUICKSILVER_\w+)=(\S+)", (DOCKER / "Dockerfile").read_text("utf-8"))
    Settings.model_validate({known[key]: value for key, value in image})


def test_the_health_check_is_the_images(services: dict[str, dict[str, Any]]) -> None:
    """Image and compose file ask the same question."""
    (asked,) = re.findall(
        r"^HEALTHCHECK .* CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE
    )
    assert services["server"]["healthcheck"]["test"] == ["CMD", *json.loads(asked)]

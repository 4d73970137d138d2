"""What the figures were taken on, and with: cores, memory, versions, sizes. No host names and no paths."""

import importlib.metadata
import os
import platform
import re
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.process import ServerProcess

PYTHON: Final = sys.executable
_IGNORED: Final = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack")
_NAMED: Final = {
    "quicksilver": ("quicksilver-serving", "onnxruntime", "uvloop", "grpcio", "protobuf", "numpy"),
    "grpcio": ("grpcio", "protobuf", "onnxruntime"),
    "triton": ("nvidia-pytriton", "onnxruntime"),
    "mlserver": ("mlserver", "grpcio", "onnxruntime"),
    "kserve": ("kserve", "grpcio", "onnxruntime"),
    "ray_serve": ("ray", "grpcio", "onnxruntime"),
    "litserve": ("litserve", "onnxruntime"),
    "bentoml": ("bentoml", "onnxruntime"),
}


def describe(environments: Path) -> dict[str, Any]:
    """The machine, the load generator, and what each environment holds."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release().split("-")[0],
        "system": _system(),
        "python": platform.python_version(),
        "h2load": _h2load(),
        "torch": _version("torch"),
        "revision": _revision(environments),
        "versions": {name: versions(environments / name) for name in _NAMED if (environments / name).is_dir()},
        "installed_bytes": {name: installed_bytes(environments / name) for name in _NAMED},
    }


def versions(environment: Path) -> dict[str, str]:
    """The packages of an environment that matter, with their versions."""
    found = {}
    for path in environment.glob("lib/python3.*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return {name: found[name] for name in _NAMED.get(environment.name, ()) if name in found}


def installed_bytes(environment: Path) -> int:
    """Bytes of the packages an environment holds, without Python itself, installers, and compiled bytecode."""
    roots = [*environment.glob("lib/python3.*/site-packages"), environment / "backends"]
    return sum(
        file.lstat().st_size
        for root in roots
        for file in root.rglob("*")
        if file.is_file() and file.suffix != ".pyc" and not file.relative_to(root).parts[0].startswith(_IGNORED)
    )


def busy_cores(seconds: float = 2.0) -> float:
    """How many cores' worth of time whatever runs here now takes; to be asked while nothing of ours does."""
    before = _busy_seconds()
    time.sleep(seconds)
    return (_busy_seconds() - before) / seconds


class Foreign:
    """What takes time on this machine beside a measurement: everything but the server, the load, and this process."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._begun = time.perf_counter()
        self._ours = self._cpu_seconds()
        self._busy = _busy_seconds()

    def cores(self) -> float:
        """How many cores' worth of time it took since this object was made, time stolen by the host included."""
        seconds = time.perf_counter() - self._begun
        foreign = _busy_seconds() - self._busy - (self._cpu_seconds() - self._ours)
        return max(0.0, foreign / seconds)

    def _cpu_seconds(self) -> float:
        """The server's CPU time, this process's, and that of load generators that have ended."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return self._server.cpu_seconds() + sum(usage.ru_utime + usage.ru_stime for usage in used)


def _busy_seconds() -> float:
    return stat_busy_ticks(Path("/proc/stat").read_text("utf-8")) / os.sysconf("SC_CLK_TCK")


def stat_busy_ticks(stat: str) -> int:
    """Ticks in which all cores together were neither idle nor waiting, in a /proc/stat."""
    fields = [int(field) for field in stat.splitlines()[0].split()[1:9]]  # guests' time is in user time already
    return sum(fields) - fields[3] - fields[4]


def _processor() -> str:
    match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    return match[1] if match else platform.machine()


def _system() -> str:
    match = re.search(r'^PRETTY_NAME="(.+)"$', Path("/etc/os-release").read_text("utf-8"), re.MULTILINE)
    return match[1] if match else platform.system()


def _h2load() -> str:
    printed = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S607 - wherever it is
    return printed.strip().removeprefix("h2load ")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _revision(environments: Path) -> str:
    file = environments / "quicksilver" / "revision"
    return file.read_text("utf-8").strip() if file.exists() else "unknown"

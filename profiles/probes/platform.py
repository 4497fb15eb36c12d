"""Which system this is, on which machine, inside what."""

import os
import platform
import sys

from glmplan.errors import JsonValue
from glmplan.machine import OperatingSystem
from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import digits, fields, integer, sequence, text
from glmplan.profiles.probes.notes import Notes


@noun
class Platform:
    """What Python itself says about the machine."""

    system: str
    architecture: str | None
    release: str | None
    version: str | None
    logical_cores: int | None
    affinity: tuple[int, ...] | None
    administrator: bool


def collect() -> JsonValue:
    """Everything the standard library knows, as JSON."""
    affinity: list[JsonValue] | None = None
    if sys.platform == "linux":
        affinity = [*sorted(os.sched_getaffinity(0))]
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "release": platform.release(),
        "mac_version": platform.mac_ver()[0],
        "logical_cores": os.cpu_count(),
        "affinity": affinity,
        "administrator": hasattr(os, "geteuid") and os.geteuid() == 0,
    }


def read_platform(host: Host) -> Platform:
    """What the standard library says, or the little that files say when a tape lacks it."""
    answer = fields(host.call("platform", collect))
    affinity = tuple(cpu for cpu in sequence(answer.get("affinity")) if isinstance(cpu, int))
    system = text(answer.get("system")) or ("Linux" if host.read("/proc/version") else "unknown")
    return Platform(
        system=system,
        architecture=text(answer.get("architecture")),
        release=text(answer.get("release")),
        version=text(answer.get("mac_version")),
        logical_cores=integer(answer.get("logical_cores")),
        affinity=affinity or None,
        administrator=answer.get("administrator") is True,
    )


def probe_system(host: Host, facts: Platform, notes: Notes) -> OperatingSystem:
    """The operating system; on Linux also the distribution, the container and the machine's model."""
    if facts.system == "Darwin":
        return OperatingSystem(system="macOS", version=facts.version, container=False)
    if facts.system != "Linux":
        notes.add("os.system", f"{facts.system} is not supported: only Linux and macOS are")
        return OperatingSystem(system=facts.system, version=facts.release, container=False)
    wsl = "microsoft" in (facts.release or "").lower()
    if wsl:
        notes.add(
            "memory.total_bytes",
            "this is WSL2: it sees only the memory that Windows gives it (half of the RAM by default)",
            "raise `memory=` under [wsl2] in .wslconfig, then `wsl --shutdown`",
        )
    return OperatingSystem(
        system="Linux", version=_distribution(host) or facts.release, container=_in_container(host),
        runs_under="wsl2" if wsl else None, machine_model=_machine_model(host),
    )  # fmt: skip


def _distribution(host: Host) -> str | None:
    for line in (host.read("/etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip('"') or None
    return None


def _in_container(host: Host) -> bool:
    """True inside Docker, Podman, Kubernetes or LXC, by their own marks."""
    if host.read("/.dockerenv") is not None or host.read("/run/.containerenv") is not None:
        return True
    if host.env.get("container") or host.env.get("KUBERNETES_SERVICE_HOST"):
        return True
    marks = ("docker", "kubepods", "containerd", "libpod", "/lxc/")
    groups = host.read("/proc/self/cgroup") or ""
    return any(mark in groups for mark in marks)


def _machine_model(host: Host) -> str | None:
    """The board's name where a device tree carries one (Jetson, Raspberry Pi, DGX Spark)."""
    model = host.read("/sys/firmware/devicetree/base/model") or ""
    return model.rstrip("\0").strip() or None


def cpu_list(written: str | None) -> tuple[int, ...]:
    """The numbers of a kernel CPU list such as `0-15,32`; empty when it is not one."""
    numbers: list[int] = []
    for part in (written or "").strip().split(","):
        first, _, last = part.partition("-")
        low, high = digits(first), digits(last or first)
        if low is None or high is None or high - low > 65536:
            return ()
        numbers.extend(range(low, high + 1))
    return tuple(numbers)

"""Energy counters of this machine: NVML's per card, Linux RAPL's per package and memory, macOS's powermetrics.

Each counts joules from some moment on; what one covers is said, because none of them sees the whole machine.
"""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from glmplan.machine import Machine, Vendor
from glmplan.measurement import EnergyMeter

_RAPL: Final = "/sys/class/powercap"
_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ANSWER_S: Final = 2.0
_POWERMETRICS: Final = ("powermetrics", "--samplers", "cpu_power,gpu_power", "-i", "200")
_COMBINED: Final = re.compile(r"Combined Power \(CPU \+ GPU(?: \+ ANE)?\): (\d+) mW")
_ELAPSED: Final = re.compile(r"\(([\d.]+)ms elapsed\)")


class Counter(Protocol):
    """One source of energy readings."""

    @property
    def name(self) -> str:
        """`nvml`, `rapl` or `powermetrics`."""
        ...

    @property
    def covers(self) -> tuple[str, ...]:
        """The parts it counts."""
        ...

    def read_joules(self) -> float | None:
        """Joules since some moment; None when it does not answer."""
        ...

    def close(self) -> None:
        """Leave nothing running."""
        ...


class Meter:
    """All counters of this machine together."""

    def __init__(self, counters: Sequence[Counter], why: str | None) -> None:
        """`why` says why there are none, or what they miss."""
        self._counters = tuple(counters)
        self.described = EnergyMeter(
            meter="+".join(counter.name for counter in counters) or None,
            covers=tuple(part for counter in counters for part in counter.covers),
            why=why,
        )

    def read_joules(self) -> float | None:
        """Joules of all parts since some moment; None when one of them does not answer."""
        readings = [counter.read_joules() for counter in self._counters]
        known = [reading for reading in readings if reading is not None]
        return sum(known) if known and len(known) == len(readings) else None


@contextlib.contextmanager
def meter_for(url: str) -> Generator[Meter, None, None]:
    """The meter of this machine; for a server elsewhere none, because what runs there cannot be counted here."""
    if urlsplit(url).hostname not in _HERE:
        yield Meter((), "the server is not on this machine")
        return
    from glmplan.profiles.catalog import resolve_machine

    with energy_meter(resolve_machine("", None)) as meter:
        yield meter


@contextlib.contextmanager
def energy_meter(machine: Machine) -> Generator[Meter, None, None]:
    """The meter of this machine; without a counter it says why, and every reading is None."""
    counters: list[Counter] = []
    reasons: list[str] = []
    for found, why in (_nvml(machine), _rapl(), _powermetrics(machine)):
        if found is not None:
            counters.append(found)
        elif why:
            reasons.append(why)
    try:
        yield Meter(counters, "; ".join(reasons) or (None if counters else "this system has no energy counter"))
    finally:
        for counter in counters:
            counter.close()


class RaplCounter:
    """Linux powercap zones: packages, and memory where it is a zone of its own.

    Source: Documentation/power/powercap/powercap.rst; readable by root alone since 5.10 (CVE-2020-8694).
    """

    name = "rapl"

    def __init__(self, zones: Sequence[tuple[str, Path, int]]) -> None:
        """Zones as (name, `energy_uj` file, microjoules after which it starts again)."""
        self._zones = tuple(zones)
        self._last: dict[Path, int] = {}
        self._total_uj = 0
        self.covers = tuple(name for name, _, _ in zones)

    def read_joules(self) -> float | None:
        """Joules since the first reading, zones that started again counted on."""
        try:
            now = {path: (int(path.read_text(encoding="ascii")), limit) for _, path, limit in self._zones}
        except (OSError, ValueError):
            return None
        for path, (value, limit) in now.items():
            before = self._last.get(path, value)
            self._total_uj += value - before if value >= before else value + limit - before
            self._last[path] = value
        return self._total_uj / 1e6

    def close(self) -> None:
        """Nothing runs."""


def rapl_zones(root: str = _RAPL) -> tuple[list[tuple[str, Path, int]], str | None]:
    """Zones that can be read, and why there are none.

    Packages hold their cores; `psys` would count packages again, and is left out.
    """
    zones: list[tuple[str, Path, int]] = []
    refused = False
    for folder in sorted(Path(root).glob("intel-rapl*:*")):
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
            if not name.startswith(("package", "dram")):
                continue
            limit = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
            int((folder / "energy_uj").read_text(encoding="ascii"))
        except PermissionError:
            refused = True
            continue
        except (OSError, ValueError):
            continue
        zones.append((name, folder / "energy_uj", limit))
    if refused and not zones:
        return [], f"{root}/intel-rapl*/energy_uj can be read by root alone: run as root, or chmod a+r it"
    return zones, None


def _rapl() -> tuple[Counter | None, str | None]:
    if sys.platform != "linux":
        return None, None
    zones, why = rapl_zones()
    if zones:
        return RaplCounter(zones), None
    return None, why or "the processor's energy counter (RAPL) is not here; virtual machines seldom have it"


class NvmlCounter:
    """Cards by NVML, asked through a child: the library can hang or crash."""

    name = "nvml"

    def __init__(self, argv: Sequence[str], covers: Sequence[str]) -> None:
        """Start the child `argv`, which answers each line with millijoules per UUID."""
        self.covers = tuple(covers)
        self._child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._lock = threading.Lock()

    def read_joules(self) -> float | None:
        """Joules of all its cards; None when the child does not answer in time or a card does not tell."""
        child = self._child
        assert child.stdin is not None  # noqa: S101 - opened as pipes
        assert child.stdout is not None  # noqa: S101
        with self._lock:
            try:
                child.stdin.write("\n")
                child.stdin.flush()
                if not select.select([child.stdout], [], [], _ANSWER_S)[0]:
                    self.close()
                    return None
                answer: Mapping[str, float | None] = json.loads(child.stdout.readline())
            except (OSError, ValueError):
                return None
        known = [value for value in answer.values() if value is not None]
        return sum(known) / 1000 if known and len(known) == len(answer) else None

    def close(self) -> None:
        """End the child."""
        _end(self._child)


def _nvml(machine: Machine) -> tuple[Counter | None, str | None]:
    cards = [gpu for gpu in machine.gpus if gpu.vendor is Vendor.NVIDIA and gpu.uuid and not gpu.mig]
    if not cards:
        return None, None
    uuids = [gpu.uuid for gpu in cards if gpu.uuid]
    argv = [sys.executable, "-m", "glmplan.profiles.probes.nvml_energy_child", *uuids]
    counter = NvmlCounter(argv, [f"{gpu.id} {gpu.name}" for gpu in cards])
    if counter.read_joules() is not None:
        return counter, None
    counter.close()
    return None, "NVML does not count the energy of these cards (it does since Volta)"


class PowermetricsCounter:
    """macOS: power of processor and GPU, sampled five times a second and summed; needs root."""

    name = "powermetrics"
    covers = ("CPU", "GPU")

    def __init__(self, argv: Sequence[str] = _POWERMETRICS) -> None:
        """Start sampling."""
        self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._joules: float | None = None
        self._at_s = time.monotonic()
        threading.Thread(target=self._sum, daemon=True).start()

    def _sum(self) -> None:
        assert self._child.stdout is not None  # noqa: S101 - opened as a pipe
        elapsed_s = 0.2
        with contextlib.suppress(ValueError):  # closed while reading
            for line in self._child.stdout:
                if match := _ELAPSED.search(line):
                    elapsed_s = float(match[1]) / 1000
                elif match := _COMBINED.search(line):
                    self._joules = (self._joules or 0.0) + int(match[1]) / 1000 * elapsed_s

    def read_joules(self) -> float | None:
        """Joules up to the last sample; waits for the first one."""
        deadline = time.monotonic() + _ANSWER_S
        while self._joules is None and self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._joules

    def close(self) -> None:
        """End the sampling."""
        _end(self._child)


def _powermetrics(machine: Machine) -> tuple[Counter | None, str | None]:
    if sys.platform != "darwin" or machine.source != "observed":
        return None, None
    if os.geteuid() != 0:
        return None, "powermetrics needs root: sudo glmplan bench"
    if shutil.which(_POWERMETRICS[0]) is None:
        return None, "powermetrics is not on PATH"
    return PowermetricsCounter(), None


def _end(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

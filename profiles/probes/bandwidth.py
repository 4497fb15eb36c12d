"""How fast host memory is: from the DIMMs, else a measured copy of about 80 ms, else what the platform usually has.

The copy is measured once and kept in the cache folder until the processor or the memory changes. Other work takes its
share of the bandwidth: what was measured beside it is measured again once the machine is quiet, and the most counts.
"""

import ctypes
import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from glmplan.errors import JsonValue
from glmplan.machine import Cpu, HostMemory
from glmplan.paths import cache_folder, write_atomic
from glmplan.profiles.device_rows import all_host_platforms
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import fields, integer
from glmplan.profiles.probes.notes import Notes
from glmplan.units import MIB

ASSUMED_PLATFORM: Final = "cpu-ddr4-3200-dual"
COPY_TIME_S: Final = 0.08
_BLOCK_BYTES: Final = 32 * MIB
_MOST_THREADS: Final = 8
_LEAST_FREE_BYTES: Final = 2 * _MOST_THREADS * _BLOCK_BYTES * 2
_QUIET_SHARE: Final = 0.25
_SPEED: Final = re.compile(r"^(\d{3,5}) M(?:T/s|Hz)")
_WIDTH: Final = re.compile(r"^(\d{1,3}) bits")


def with_bandwidth(host: Host, memory: HostMemory, cpu: Cpu, *, administrator: bool, notes: Notes) -> HostMemory:
    """`memory` with its bandwidth and where that comes from."""
    if administrator and (rated := _from_dimms(host)):
        return replace(memory, bandwidth_bytes_per_s=rated, bandwidth_source="dmidecode")
    measured = integer(fields(host.call("memory_copy", lambda: remembered_copy(cpu, memory))).get("bytes_per_s"))
    if measured:
        notes.add(
            "memory.bandwidth_bytes_per_s",
            "measured with a copy of main memory: what programs get, not the DIMMs' peak",
        )
        return replace(memory, bandwidth_bytes_per_s=measured, bandwidth_source="measured copy")
    platform = next(row for row in all_host_platforms() if row.id == ASSUMED_PLATFORM)
    notes.add("memory.bandwidth_bytes_per_s", f"neither read nor measured: that of {platform.name} is assumed",
              "run `sudo glmplan detect` once where dmidecode is installed")  # fmt: skip
    return replace(
        memory, bandwidth_bytes_per_s=platform.bandwidth_bytes_per_s, bandwidth_source=f"assumed: {platform.name}"
    )


def _from_dimms(host: Host) -> int | None:
    """Sum over channels of width / 8 x configured speed; DIMMs that share a channel count once."""
    return dimm_bandwidth(host.run(["dmidecode", "-t", "17"]).stdout)


def dimm_bandwidth(printed: str) -> int | None:
    """Bytes per second from `dmidecode -t 17`, by the configured (not the rated) speed; None when it names none."""
    channels: dict[str, int] = {}
    for number, block in enumerate(printed.split("Memory Device")[1:]):
        pairs = dict(line.strip().split(": ", 1) for line in block.splitlines() if ": " in line)
        speed = _SPEED.match(
            pairs.get("Configured Memory Speed") or pairs.get("Configured Clock Speed") or pairs.get("Speed") or ""
        )
        width = _WIDTH.match(pairs.get("Data Width", ""))
        if not speed or not width or pairs.get("Size", "").startswith("No Module"):
            continue
        bank = pairs.get("Bank Locator", "")
        channel = bank if "CHANNEL" in bank.upper() else f"slot {number}"
        channels[channel] = max(channels.get(channel, 0), int(width[1]) * int(speed[1]) * 10**6 // 8)
    return sum(channels.values()) or None


def remembered_copy(cpu: Cpu, memory: HostMemory) -> JsonValue:
    """The kept measurement of this processor and memory, or a new one."""
    here: dict[str, JsonValue] = {"cpu": cpu.name, "usable_cores": cpu.usable_cores, "memory_bytes": memory.total_bytes}
    path = cache_folder() / "memory-copy.json"
    known, was_quiet = _kept(path, here)
    is_quiet = _is_quiet(cpu.usable_cores)
    if known and (was_quiet or not is_quiet):
        return {"bytes_per_s": known}
    if (memory.available_bytes or 0) < _LEAST_FREE_BYTES:
        return {"bytes_per_s": known}
    measured = max(known or 0, copy_bytes_per_s(threads=min(cpu.usable_cores, _MOST_THREADS)))
    with suppress(OSError):  # a cache that cannot be written is no reason to stop
        write_atomic(path, json.dumps({"machine": here, "bytes_per_s": measured, "quiet": is_quiet}))
    return {"bytes_per_s": measured}


def _kept(path: Path, here: dict[str, JsonValue]) -> tuple[int | None, bool]:
    """What was measured on this processor and memory, and whether nothing else ran then."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["machine"] == here:
            return integer(kept["bytes_per_s"]), kept.get("quiet") is True
    return None, False


def _is_quiet(usable_cores: int) -> bool:
    """Whether less than a quarter of the cores were busy over the last minute; taken for quiet where nobody counts."""
    try:
        return os.getloadavg()[0] < _QUIET_SHARE * usable_cores
    except (OSError, AttributeError):
        return True


def copy_bytes_per_s(*, threads: int, seconds: float = COPY_TIME_S) -> int:
    """Bytes read plus bytes written per second by `threads` threads that copy blocks larger than their caches."""
    pairs = [(_touched(), _touched()) for _ in range(threads)]
    copied = [0] * threads
    stop_at = time.perf_counter() + seconds

    def copy(number: int) -> None:
        source, target = pairs[number]
        while time.perf_counter() < stop_at:
            ctypes.memmove(target, source, _BLOCK_BYTES)  # releases the interpreter lock
            copied[number] += _BLOCK_BYTES

    workers = [threading.Thread(target=copy, args=(number,)) for number in range(threads)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return round(2 * sum(copied) / (time.perf_counter() - begun))


def _touched() -> "ctypes.Array[ctypes.c_char]":
    """A block whose pages exist: the first write to a page costs more than a copy."""
    block = ctypes.create_string_buffer(_BLOCK_BYTES)
    ctypes.memset(block, 1, _BLOCK_BYTES)
    return block

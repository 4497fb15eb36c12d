"""Host memory on Linux: what exists, what the control groups allow, what can be had now."""

from glmplan.machine import HostMemory
from glmplan.profiles.host import Host
from glmplan.profiles.probes.cgroup import GroupLimits
from glmplan.profiles.probes.json_fields import digits
from glmplan.profiles.probes.notes import Notes
from glmplan.units import KIB, format_bytes


def read_meminfo(host: Host) -> dict[str, int]:
    """/proc/meminfo; sizes in bytes (its `kB` means KiB), counts as they are."""
    found: dict[str, int] = {}
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        value = digits(words[0]) if words else None
        if value is not None:
            found[name.strip()] = value * KIB if words[1:] == ["kB"] else value
    return found


def probe_memory(host: Host, meminfo: dict[str, int], limits: GroupLimits, notes: Notes) -> HostMemory:
    """Host memory of a Linux machine; bandwidth is filled in by `glmplan.profiles.probes.bandwidth`."""
    total = meminfo.get("MemTotal")
    if total is None:
        notes.add("memory.total_bytes", "/proc/meminfo has no MemTotal", "mount /proc")
    nodes = host.folder("/sys/devices/system/node")
    n_nodes = sum(name.startswith("node") and name[4:].isdecimal() for name in nodes)
    if n_nodes > 1:
        notes.add(
            "memory.bandwidth_bytes_per_s",
            f"{n_nodes} NUMA nodes: a process gets the bandwidth of one unless it interleaves",
            "numactl --interleave=all, or llama-server --numa distribute",
        )
    swap_total, swap_free = meminfo.get("SwapTotal"), meminfo.get("SwapFree")
    return HostMemory(
        total_bytes=total,
        limit_bytes=limits.memory_limit_bytes,
        available_bytes=_available(meminfo, limits, notes),
        bandwidth_bytes_per_s=None,
        swap_total_bytes=swap_total,
        swap_used_bytes=swap_total - swap_free if swap_total is not None and swap_free is not None else None,
        numa_nodes=n_nodes or None,
        huge_pages_bytes=_huge_pages(meminfo, notes),
    )


def _available(meminfo: dict[str, int], limits: GroupLimits, notes: Notes) -> int | None:
    """min(MemAvailable, what the control groups have left)."""
    available = meminfo.get("MemAvailable")
    if available is None and "MemFree" in meminfo:
        # Before Linux 3.14 and in some sandboxes there is no MemAvailable.
        available = meminfo["MemFree"] + meminfo.get("Cached", 0)
        notes.add("memory.available_bytes", "/proc/meminfo has no MemAvailable: MemFree + Cached was taken")
    if available is None:
        notes.add("memory.available_bytes", "/proc/meminfo says neither MemAvailable nor MemFree")
    if limits.memory_limit_bytes is None:
        return available
    left = limits.memory_limit_bytes if limits.memory_left_bytes is None else limits.memory_left_bytes
    notes.add(
        "memory.limit_bytes",
        f"the control group {limits.memory_group} allows {format_bytes(limits.memory_limit_bytes)}",
        "raise the container's memory limit (docker run --memory, memory.max)",
    )
    return left if available is None else min(available, left)


def _huge_pages(meminfo: dict[str, int], notes: Notes) -> int | None:
    count, size = meminfo.get("HugePages_Total"), meminfo.get("Hugepagesize")
    if count is None or size is None:
        return None
    if count:
        notes.add(
            "memory.huge_pages_bytes",
            f"{format_bytes(count * size)} are set aside as huge pages, which ordinary allocations cannot use",
            "sysctl vm.nr_hugepages=0",
        )
    return count * size

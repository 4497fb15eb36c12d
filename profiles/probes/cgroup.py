"""Limits a Linux control group puts on memory and cores: the tightest of the group and all its ancestors."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from glmplan.noun import noun
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import digits

ROOT: Final = PurePosixPath("/sys/fs/cgroup")


@noun
class GroupLimits:
    """What the groups allow; None means no limit was found.

    `memory_left_bytes` is the smallest limit - current + reclaimable page cache of the limited groups.
    """

    memory_limit_bytes: int | None = None
    memory_left_bytes: int | None = None
    memory_group: str | None = None
    cores: float | None = None


@noun
class _Files:
    """File names of one version of the memory controller."""

    limits: tuple[str, ...]
    current: str
    reclaimable: str


# memory.high throttles before memory.max kills: the smaller one is what can be used.
_V2: Final = _Files(limits=("memory.max", "memory.high"), current="memory.current", reclaimable="inactive_file")
_V1: Final = _Files(
    limits=("memory.limit_in_bytes",), current="memory.usage_in_bytes", reclaimable="total_inactive_file"
)


def read_limits(host: Host, *, memory_total_bytes: int | None) -> GroupLimits:
    """The limits of this process, cgroup v2 or v1.

    Args:
        host: the machine.
        memory_total_bytes: a limit at or above it is no limit (v1 writes LONG_MAX rounded to a page).
    """
    own = host.read("/proc/self/cgroup")
    if own is None:
        return GroupLimits()
    paths = _paths_by_controller(own)
    if host.read(str(ROOT / "cgroup.controllers")) is not None:
        groups, files = _ancestors(ROOT, paths.get("", "/")), _V2
        quotas = [quota for group in groups for quota in _quota_v2(host, group)]
    else:
        groups, files = _ancestors(ROOT / "memory", paths.get("memory", "/")), _V1
        quotas = [
            quota for group in _ancestors(ROOT / "cpu", paths.get("cpu", "/")) for quota in _quota_v1(host, group)
        ]
    memory = _memory_limits(host, groups, files, memory_total_bytes)
    return GroupLimits(
        memory_limit_bytes=memory.memory_limit_bytes, memory_left_bytes=memory.memory_left_bytes,
        memory_group=memory.memory_group, cores=min(quotas, default=None),
    )  # fmt: skip


def _paths_by_controller(own: str) -> dict[str, str]:
    """The group of each controller; v2 is the controller ''."""
    paths: dict[str, str] = {}
    for line in own.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def _ancestors(root: PurePosixPath, group: str) -> list[PurePosixPath]:
    """Folders from the group itself up to the mount's root; inside a container only the root may exist."""
    parts = [part for part in PurePosixPath(group).parts if part not in {"/", "..", "."}]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _memory_limits(
    host: Host, groups: list[PurePosixPath], files: _Files, memory_total_bytes: int | None
) -> GroupLimits:
    tightest, left = GroupLimits(), None
    for group in groups:
        written = [digits(host.read(str(group / name))) for name in files.limits]
        known = [limit for limit in written if limit is not None]
        if not known or (memory_total_bytes is not None and min(known) >= memory_total_bytes):
            continue
        limit = min(known)
        if tightest.memory_limit_bytes is None or limit < tightest.memory_limit_bytes:
            tightest = GroupLimits(memory_limit_bytes=limit, memory_group=str(group))
        here = _left(host, group, files, limit)
        left = here if left is None else left if here is None else min(left, here)
    return GroupLimits(
        memory_limit_bytes=tightest.memory_limit_bytes, memory_group=tightest.memory_group, memory_left_bytes=left
    )


def _left(host: Host, group: PurePosixPath, files: _Files, limit: int) -> int | None:
    """Limit - current + page cache that can be dropped: mapped model files count as current."""
    current = digits(host.read(str(group / files.current)))
    if current is None:
        return None
    reclaimable = 0
    for line in (host.read(str(group / "memory.stat")) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == files.reclaimable:
            reclaimable = digits(value) or 0
    return max(0, min(limit, limit - current + reclaimable))


def _quota_v2(host: Host, group: PurePosixPath) -> Iterator[float]:
    words = (host.read(str(group / "cpu.max")) or "").split()
    if len(words) == 2:
        yield from _cores(digits(words[0]), digits(words[1]))


def _quota_v1(host: Host, group: PurePosixPath) -> Iterator[float]:
    # The quota is -1, which is not digits, where there is none.
    quota_us = digits(host.read(str(group / "cpu.cfs_quota_us")))
    yield from _cores(quota_us, digits(host.read(str(group / "cpu.cfs_period_us"))))


def _cores(quota_us: int | None, period_us: int | None) -> Iterator[float]:
    if quota_us and period_us:
        yield quota_us / period_us

"""The file system downloaded models would land on."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glmplan.errors import JsonValue
from glmplan.machine import Disk
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import fields, integer, text
from glmplan.profiles.probes.notes import Notes

_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "virtiofs"})

_NAME: Final = re.compile(r"^DEVNAME=(\w+)", re.MULTILINE)


def hub_cache(env: Mapping[str, str]) -> Path:
    """The Hugging Face hub cache, by the variables that both huggingface_hub and llama.cpp read."""
    for name, tail in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if value := env.get(name):
            return Path(value, tail)
    base = env.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def collect(env: Mapping[str, str]) -> JsonValue:
    """Sizes and device number of the file system that holds the hub cache (or its nearest existing parent)."""
    path = hub_cache(env)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        usage, device = shutil.disk_usage(path), path.stat().st_dev
    except OSError as error:
        return {"path": str(path), "error": error.strerror}
    numbers = f"{os.major(device)}:{os.minor(device)}"
    return {
        "path": str(path),
        "total": usage.total,
        "free": usage.free,
        "device": numbers,
        "filesystem": _filesystem(numbers),
    }


def _filesystem(device: str) -> str | None:
    """The type of the mounted file system; read here, because the list of mounts is nobody else's business."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2:3] == [device] and right.split():
            return right.split()[0]
    return None


def probe_disk(host: Host, notes: Notes) -> Disk | None:
    """Free space and kind of drive where models live."""
    answer = fields(host.call("disk", lambda: collect(host.env)))
    path = text(answer.get("path"))
    free, total = integer(answer.get("free")), integer(answer.get("total"))
    if path is None or free is None:
        why = text(answer.get("error")) or "the file system did not answer"
        notes.add("disk.free_bytes", f"the size of the model folder's file system is not known: {why}")
        return None
    device = text(answer.get("device"))
    rotational, kind = _drive(host, device, text(answer.get("filesystem"))) if device else (None, None)
    return Disk(path=path, free_bytes=free, total_bytes=total, rotational=rotational, kind=kind)


def _rotational(host: Host, device: str) -> bool | None:
    """Whether the drive spins; a partition has no queue of its own, its parent has."""
    base = f"/sys/dev/block/{device}"
    for folder in (base, f"{base}/.."):
        written = host.read(f"{folder}/queue/rotational")
        if written is not None:
            return written.strip() == "1"
    return None


def _drive(host: Host, device: str, filesystem: str | None) -> tuple[bool | None, str | None]:
    """Whether it spins, and `nvme`, `ssd`, `hdd`, `network` or `virtual` (whose own word is worth nothing)."""
    if filesystem in _NETWORK:
        return None, "network"
    found = _NAME.search(host.read(f"/sys/dev/block/{device}/uevent") or "")
    name = found[1] if found else ""
    if name.startswith(("vd", "xvd")):
        return None, "virtual"
    rotational = _rotational(host, device)
    if name.startswith("nvme"):
        return rotational, "nvme"
    return rotational, None if rotational is None else "hdd" if rotational else "ssd"

"""`nvidia-smi` in CSV: the fallback when NVML cannot be loaded or crashes."""

from typing import Any, Final

from glmplan.profiles.host import Completed, Host
from glmplan.profiles.probes.json_fields import digits
from glmplan.profiles.probes.notes import Notes
from glmplan.units import MIB

# One unknown name fails the whole query: the second list holds what drivers of any age know.
FULL: Final = (
    "name", "uuid", "pci.bus_id", "driver_version", "compute_cap", "memory.total", "memory.reserved", "memory.used",
    "memory.free", "clocks.max.memory", "pcie.link.gen.max", "pcie.link.width.max", "power.limit",
    "mig.mode.current", "ecc.mode.current", "display_active",
)  # fmt: skip
SHORT: Final = ("name", "uuid", "driver_version", "memory.total", "memory.used", "memory.free")
PROGRAMS: Final = ("nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi")


def read_nvidia_smi(host: Host, notes: Notes) -> dict[str, Any] | None:
    """The same document as NVML's, with fewer fields; None when the tool is absent or fails."""
    for program in PROGRAMS:
        full = _query(host, program, FULL)
        if full.returncode is None and full.why == "not found":
            continue
        if full.returncode is None:
            notes.add("gpus.driver", f"nvidia-smi gave {full.why}", "check the driver: dmesg | grep -i nvrm")
            return None
        names, done = (FULL, full) if full.ok else (SHORT, _query(host, program, SHORT))
        if not done.ok:
            notes.add("gpus.driver", f"nvidia-smi failed: {_first_line(done)}", "reinstall the NVIDIA driver")
            return None
        rows = [_row(names, line) for line in done.stdout.splitlines() if line.count(",") == len(names) - 1]
        holders = _holders(host, program) if rows else {}
        devices = [_device(row, holders.get(row["uuid"], [])) for row in rows]
        return {"status": "ok", "driver": rows[0]["driver_version"] if rows else None, "devices": devices}
    return None


def _query(host: Host, program: str, names: tuple[str, ...]) -> Completed:
    return host.run([program, f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"])


def _first_line(done: Completed) -> str:
    return next((line for line in (done.stdout + done.stderr).splitlines() if line.strip()), "no message")


def _row(names: tuple[str, ...], line: str) -> dict[str, str]:
    return dict(zip(names, (word.strip() for word in line.split(",")), strict=True))


def _device(row: dict[str, str], processes: list[dict[str, Any]]) -> dict[str, Any]:
    """One device; words such as [N/A] and [Not Supported] are values that are not there."""
    capability = row.get("compute_cap", "").partition(".")
    numbers = [digits(capability[0]), digits(capability[2])]
    return {
        "name": row["name"],
        "uuid": row["uuid"],
        "bus_id": row.get("pci.bus_id"),
        "total": _mib(row.get("memory.total")),
        "reserved": _mib(row.get("memory.reserved")),
        "used": _mib(row.get("memory.used")),
        "free": _mib(row.get("memory.free")),
        "memory_source": "nvidia-smi",
        "compute_capability": numbers if None not in numbers else None,
        "max_memory_clock_mhz": digits(row.get("clocks.max.memory")),
        "pcie_generation": digits(row.get("pcie.link.gen.max")),
        "pcie_width": digits(row.get("pcie.link.width.max")),
        "power_limit_mw": _milliwatts(row.get("power.limit")),
        "mig_enabled": _enabled(row.get("mig.mode.current")),
        "ecc": _enabled(row.get("ecc.mode.current")),
        "display_active": _enabled(row.get("display_active")),
        "processes": processes,
    }


def _mib(written: str | None) -> int | None:
    value = digits(written)
    return None if value is None else value * MIB


def _milliwatts(written: str | None) -> int | None:
    watts, _, cents = (written or "").partition(".")
    whole = digits(watts)
    return None if whole is None else whole * 1000 + (digits(cents.ljust(3, "0")[:3]) or 0)


def _enabled(written: str | None) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(written or "")


def _holders(host: Host, program: str) -> dict[str, list[dict[str, Any]]]:
    """Processes by the UUID of their GPU."""
    done = host.run([program, "--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory",
                     "--format=csv,noheader,nounits"])  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines() if done.ok else []:
        words = [word.strip() for word in line.split(",")]
        pid = digits(words[1]) if len(words) >= 4 else None
        if pid is not None:
            # A process name may hold a comma.
            process = {"pid": pid, "name": ", ".join(words[2:-1]), "bytes": _mib(words[-1])}
            found.setdefault(words[0], []).append(process)
    return found

"""How many bytes Metal recommends one process to use: asked, else the override, else the rule of the macOS version.

Never raises the limit: `iogpu.wired_limit_mb` is only read.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from glmplan.errors import JsonValue
from glmplan.profiles.host import Host, run_child
from glmplan.profiles.probes.json_fields import digits, fields, integer
from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.store import shipped
from glmplan.units import GIB, MIB

METAL_TIMEOUT_S: Final = 2.0


def collect() -> JsonValue:
    """Metal's own answer, from a child: creating a device can hang or crash in virtual machines."""
    done = run_child([sys.executable, "-m", "glmplan.profiles.probes.metal_child"], timeout_s=METAL_TIMEOUT_S)
    return {"working_set_bytes": digits(done.stdout), "why": done.why or done.stderr.strip()[-200:]}


def working_set(
    host: Host, sysctl: Mapping[str, str], version: str | None, notes: Notes
) -> tuple[int | None, str | None]:
    """Metal's working-set limit in bytes and where it comes from.

    Args:
        host: the Mac.
        sysctl: values of `hw.memsize` and `iogpu.wired_limit_mb`.
        version: the macOS version, to choose the rule.
        notes: told when the limit is not Metal's own answer.
    """
    total = digits(sysctl.get("hw.memsize"))
    asked = integer(fields(host.call("metal", collect)).get("working_set_bytes"))
    if asked:
        return (asked if total is None else min(asked, total)), "metal"
    override = digits(sysctl.get("iogpu.wired_limit_mb"))
    if override:
        notes.add(
            "gpu0.memory_limit_bytes",
            "Metal could not be asked: iogpu.wired_limit_mb, which was set by hand, was taken",
        )
        return (override * MIB if total is None else min(override * MIB, total)), "iogpu.wired_limit_mb"
    if total is None:
        notes.add("gpu0.memory_limit_bytes", "neither Metal nor sysctl says how much memory the GPU may use")
        return None, None
    fraction, rule = fraction_of(total, version)
    notes.add(
        "gpu0.memory_limit_bytes",
        f"Metal could not be asked: {fraction:.1%} of {total / GIB:.0f} GiB is assumed, the rule {rule}",
        "`llama-server --list-devices` prints the real value",
    )
    return int(total * fraction), "table"


def fraction_of(total_bytes: int, version: str | None) -> tuple[float, str]:
    """The fraction of memory Metal recommends, and the rule's name.

    An unknown version takes the older and lower rule.
    """
    major = digits((version or "").partition(".")[0]) or 0
    rules: list[Mapping[str, Any]] = list(shipped("devices", "metal-working-set.yaml")["rules"])
    rule = max((entry for entry in rules if entry["from_macos"] <= major), key=lambda entry: int(entry["from_macos"]))
    steps: Mapping[int, float] = rule["fractions"]
    name = f"of macOS {rule['from_macos']} and later" if rule["to_macos"] is None else f"up to macOS {rule['to_macos']}"
    return max((size, steps[size]) for size in steps if size * GIB <= total_bytes)[1], name

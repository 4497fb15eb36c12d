"""Instruction sets by py-cpuinfo, only when asked for: it sleeps a second and starts subprocesses of its own."""

import json
import sys
from dataclasses import replace
from typing import Final

from glmplan.errors import JsonValue
from glmplan.machine import Machine, ProbeNote
from glmplan.profiles.host import Host, run_child
from glmplan.profiles.probes.cpu import ENGINE_FEATURES
from glmplan.profiles.probes.json_fields import fields, sequence, text

TIMEOUT_S: Final = 8.0
_PROGRAM: Final = "import cpuinfo, json; print(json.dumps(cpuinfo.get_cpu_info()))"


def collect() -> JsonValue:
    """py-cpuinfo's answer, from a child: it can hang under Rosetta."""
    done = run_child([sys.executable, "-c", _PROGRAM], timeout_s=TIMEOUT_S)
    try:
        answer: JsonValue = json.loads(done.stdout)
    except ValueError:
        return {"error": done.why or done.stderr.strip()[-200:]}
    return answer


def with_cpuinfo(host: Host, machine: Machine) -> Machine:
    """`machine` with what py-cpuinfo adds to the processor's name and instruction sets."""
    answer = fields(host.call("cpuinfo", collect))
    flags = sequence(answer.get("flags"))
    if not flags:
        why = text(answer.get("error")) or "it listed no flags"
        note = ProbeNote(probe="cpuinfo", field="cpu.features", why=f"py-cpuinfo: {why}")
        return replace(machine, notes=(*machine.notes, note))
    found = {str(flag) for flag in flags} & ENGINE_FEATURES
    cpu = replace(machine.cpu, name=machine.cpu.name or text(answer.get("brand_raw")),
                  features=tuple(sorted(found | set(machine.cpu.features))))  # fmt: skip
    return replace(machine, cpu=cpu)

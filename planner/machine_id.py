"""What a plan keeps of the machine it was made for."""

import hashlib

from glmplan.engine import Engine
from glmplan.machine import Machine
from glmplan.plan import PlannedGpu, PlannedMachine
from glmplan.planner.spaces import planned_gpus


def planned_machine(machine: Machine, engine: Engine | None) -> PlannedMachine:
    """What a plan keeps of a machine; the fingerprint covers devices, capacities and the engine build."""
    gpus = tuple(
        PlannedGpu(
            id=f"gpu{index}", name=gpu.name, memory_total_bytes=gpu.memory_total_bytes or usable, driver=gpu.driver
        )
        for index, (gpu, usable) in enumerate(planned_gpus(machine))
    )
    memory = machine.memory
    parts = [
        machine.cpu.name or "",
        str(machine.cpu.usable_cores),
        str(memory.total_bytes),
        str(memory.limit_bytes),
        *(f"{gpu.name}/{gpu.memory_total_bytes}" for gpu in gpus),
        f"{engine.kind}/{engine.version}/{engine.build}" if engine else "any engine",
    ]
    return PlannedMachine(
        fingerprint=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16],
        os=" ".join(part for part in (machine.os.system, machine.os.version) if part),
        cpu=machine.cpu.name or "unknown",
        host_memory_bytes=memory.limit_bytes or memory.total_bytes or memory.available_bytes or 0,
        gpus=gpus,
    )

"""Which learned reserves count for a machine and an engine, and what is to be learned when memory runs out."""

from collections.abc import Mapping, Sequence

from glmplan.engine import Engine
from glmplan.machine import Machine
from glmplan.planner.spaces import planned_gpus
from glmplan.reserve import Reserve
from glmplan.units import format_bytes

HOST = "host"


def lasting_name(machine: Machine, device: str) -> str:
    """What a device is called beyond this boot: its UUID or name for `gpu0`, ..., `host` for main memory."""
    names = {f"gpu{index}": gpu.uuid or gpu.name for index, (gpu, _) in enumerate(planned_gpus(machine))}
    return names.get(device, device)


def counting(machine: Machine, engine: Engine | None, reserves: Sequence[Reserve]) -> Mapping[str, Reserve]:
    """The reserves of this engine build on this machine's devices, by device id."""
    if engine is None:
        return {}
    build = engine.version or engine.build
    ours = {known.device: known for known in reserves if (known.engine, known.build) == (engine.kind.value, build)}
    devices = [*(f"gpu{index}" for index in range(len(planned_gpus(machine)))), HOST]
    return {device: ours[name] for device in devices if (name := lasting_name(machine, device)) in ours}


def reason(device: str, reserve: Reserve) -> str:
    """Why a plan keeps that much free."""
    build = f" {reserve.build}" if reserve.build else ""
    return (
        f"{device}: {format_bytes(reserve.reserve_bytes)} more stay free, because {reserve.engine}{build} ran out of "
        f"memory there on {reserve.learned_at[:10]} (glmplan doctor --forget-reserves)"
    )


def to_learn(usable_bytes: int, needed_bytes: int, less_bytes: int) -> int | None:
    """Bytes to keep free on a device that ran out although the ledger said it would hold.

    Args:
        usable_bytes: what the device offers now, without anything kept free.
        needed_bytes: what the plan's ledger says it takes.
        less_bytes: how much less the next try takes.

    Returns:
        None where the ledger itself says that it does not fit now: others took the memory, and nothing is learned.
    """
    if needed_bytes > usable_bytes:
        return None
    return usable_bytes - needed_bytes + less_bytes

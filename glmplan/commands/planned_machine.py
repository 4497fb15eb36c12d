"""From a plan back to the machine and the model file it was made for, so that more can be computed about it.

A plan keeps names and sizes, not bandwidths: the machine is the one `--on` names, this one if it has the plan's
fingerprint, or the one of the catalog with the plan's devices. What each device may take is the plan's own ledger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from glmplan.commands.plan import surroundings_of
from glmplan.commands.situation import (
    Situation,
    models_for,
    situation_of,
    smaller_models,
    without_gpus,
)
from glmplan.errors import GlmplanError, InputError
from glmplan.noun import noun
from glmplan.plan import Plan, PlannedDevice, PlanRequest

if TYPE_CHECKING:
    from glmplan.machine import Machine
    from glmplan.model import ModelProfile
    from glmplan.planner.judging import Judge, Surroundings
    from glmplan.planner.spaces import Spaces

# A ledger that the engine itself filled differs a little from the formula's.
_LEDGER_TOLERANCE: Final = 0.03


@noun
class Recovered:
    """A plan's machine with what can be asked of it; `source` says how it is known."""

    situation: Situation
    source: str


def recovered(plan: Plan, on: str | None, ram: str | None) -> Recovered | None:
    """The machine of `plan`; None when nothing here is it.

    Raises:
        InputError: `on` names a machine with other devices than the plan's.
    """
    if on is not None:
        named = situation_of(on, ram)
        if not _same_devices(plan, named):
            message = f"the plan is for {_devices(plan)}, --on {on} is another machine"
            raise InputError(message, hint="leave --on out, or name the plan's machine")
        return Recovered(situation=named, source=f"named by --on {on}")
    here = situation_of(None, None)
    if fingerprint_of(here) == plan.machine.fingerprint:
        return Recovered(situation=here, source="this machine, by its fingerprint")
    return next(_from_catalog(plan), None)


def fingerprint_of(here: Situation) -> str:
    """What a plan made for this situation would carry."""
    from glmplan.planner.machine_id import planned_machine

    return planned_machine(_machine_seen(here), here.engine).fingerprint


def _machine_seen(here: Situation) -> "Machine":
    return here.machine if here.use_gpus else without_gpus(here.machine)


def _same_devices(plan: Plan, named: Situation) -> bool:
    from glmplan.planner.machine_id import planned_machine

    machine = planned_machine(_machine_seen(named), None)
    return [gpu.name for gpu in machine.gpus] == [gpu.name for gpu in plan.machine.gpus]


def _devices(plan: Plan) -> str:
    return ", ".join(gpu.name for gpu in plan.machine.gpus) or plan.machine.cpu


def _from_catalog(plan: Plan) -> Iterator[Recovered]:
    """The machine of the catalog, or of bare sizes, that gives the plan's fingerprint."""
    gpus, ram = plan.machine.gpus, f"{plan.machine.host_memory_bytes}B"
    sizes = [f"{gpu.memory_total_bytes}B" for gpu in gpus]
    tries: list[tuple[str, str | None]] = [(f"gpu:{','.join(sizes)}", ram)] if gpus else [(f"cpu:{ram}", None)]
    tries += [
        (",".join(gpu.name for gpu in gpus), ram),
        (",".join(f"{gpu.name}:{size}" for gpu, size in zip(gpus, sizes, strict=True)), ram),
        (",".join(f"{gpu.name}:{size}" for gpu, size in zip(gpus, sizes, strict=True)), None),
    ]
    for on, host in tries:
        try:
            named = situation_of(on, host)
        except GlmplanError:
            continue
        if fingerprint_of(named) == plan.machine.fingerprint:
            yield Recovered(situation=named, source=f"by the plan's devices: {named.machine.source}")


def model_of(plan: Plan) -> "ModelProfile | None":
    """The very file of `plan` when it is here, otherwise the catalog's of that name; None where it has none."""
    from glmplan.profiles.gguf import read_profile
    from glmplan.profiles.recipes import catalog_profile, with_catalog_facts

    planned = plan.model
    try:
        if Path(planned.file).is_file():
            return with_catalog_facts(read_profile(planned.file))
        found = catalog_profile(planned.quantization, model=planned.name)
    except (GlmplanError, OSError):
        return None
    return found if found.n_layer == planned.n_layer else None


def judge_of(plan: Plan, model: "ModelProfile", there: Situation) -> "Judge | None":
    """Memory and speed of the plan's file on its machine; None where they do not reproduce the plan's ledger."""
    from glmplan.planner.judging import Judge

    around, request = _surroundings(plan, there)
    judge = Judge(model, around, request)
    rows = judge.memory.estimate(plan.placement).devices
    planned = plan.memory.devices
    if [row.id for row in rows] != [row.id for row in planned]:
        return None
    as_planned = all(_close(row.needed_bytes, device.needed_bytes) for row, device in zip(rows, planned, strict=True))
    return judge if as_planned else None


def _surroundings(plan: Plan, there: Situation) -> "tuple[Surroundings, PlanRequest]":
    from glmplan.planner.objective import depth_of

    usual = depth_of(plan.placement.n_ctx, None)
    request = PlanRequest(
        machine=_machine_seen(there),
        objective=plan.workload.objective,
        n_parallel=plan.workload.n_parallel,
        prompt_tokens=plan.workload.prompt_tokens,
        output_tokens=plan.workload.output_tokens,
        depth_tokens=None if plan.speed.depth_tokens == usual else plan.speed.depth_tokens,
    )
    around = surroundings_of(there, request)
    spaces = _with_room(around.spaces, plan.memory.devices)
    return replace(around, spaces=spaces, engine=plan.placement.engine), request


def _with_room(spaces: "Spaces", planned: Sequence[PlannedDevice]) -> "Spaces":
    """`spaces` with what the plan's ledger may take of each device; free memory changes from hour to hour."""
    room = {device.id: device.usable_bytes for device in planned}
    gpus = tuple(replace(gpu, usable_bytes=room.get(gpu.id, gpu.usable_bytes)) for gpu in spaces.gpus)
    # One memory for both: the ledger's host row has what the GPU's part left over.
    shared = sum(device.needed_bytes for device, gpu in zip(planned, spaces.gpus, strict=False) if gpu.unified)
    host = replace(spaces.host, usable_bytes=room.get("host", spaces.host.usable_bytes) + shared)
    return replace(spaces, gpus=gpus, host=host)


def _close(one: int, other: int) -> bool:
    return abs(one - other) <= _LEDGER_TOLERANCE * max(one, other)


def rivals_of(plan: Plan, model: "ModelProfile", there: Situation) -> "tuple[Sequence[ModelProfile], ...]":
    """Files a plan chooses among, and smaller ones; only its own file for one that is not the catalog's."""
    from glmplan.profiles.recipes import model_names, smaller_quantizations, usual_quantizations

    name = plan.model.name
    if name not in model_names():
        return (model,), ()
    usual = {quant.lower() for quant in (*usual_quantizations(name), *smaller_quantizations(name))}
    if plan.model.quantization.lower() not in usual:
        return (model,), ()
    machine = _machine_seen(there)
    return models_for(None, None, machine, model=name), smaller_models(machine, name)

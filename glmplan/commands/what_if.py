"""`glmplan what-if`: the machines of the catalog that do what is needed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.commands.plan import surroundings_of
from glmplan.commands.situation import Situation, models_for, situation_of, smaller_models
from glmplan.errors import InputError, ObjectiveUnmet, PlanningError
from glmplan.model import ModelProfile
from glmplan.plan import PlanRequest
from glmplan.units import GIB, parse_tokens

if TYPE_CHECKING:
    from glmplan.comparison import Reached, WhatIf
    from glmplan.machine import Machine

_GRAMMAR: Final = 'n_ctx=100k decode>=20 [prefill>=300] [quant=q8_0] [slots=4], for example "n_ctx=100k decode>=20"'
_TERM: Final = re.compile(r"(n_ctx|slots|quant)=(\S+)|(decode|prefill)>=(\d+(?:\.\d+)?)")
_GPU_VENDORS: Final = frozenset({"nvidia", "apple"})
_SLOTS: Final = 256


def what_if(
    need: Annotated[str, typer.Option("--need", help=f"What to reach: {_GRAMMAR}.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/what-if/1).")] = False,
    ram: Annotated[
        str | None, typer.Option("--ram", help="Host memory beside discrete GPUs, for example 64GiB.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many machines to show.")] = 15,
) -> None:
    """List the machines of the catalog that reach a need, cheapest memory first."""
    found = machines_for(need, ram, limit=limit)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(found))
    else:
        from glmplan.render.compare import show_what_if

        show_what_if(found)


def machines_for(need: str, ram: str | None, *, limit: int) -> "WhatIf":
    """The machines that reach `need`, cheapest memory first.

    Raises:
        InputError: the need cannot be read.
        ObjectiveUnmet: no machine of the catalog reaches it.
    """
    from glmplan.comparison import Reached, WhatIf

    wanted = parsed(need)
    names = _catalog_machines()
    there = [_situation(name, ram) for name in names]
    order = sorted(range(len(names)), key=lambda i: (_memory_bytes(there[i].machine), names[i]))
    # Machines of the catalog hold no files of their own: one reading of the recipes serves all.
    models = models_for(wanted.get("quant"), None, there[0].machine)
    smaller = smaller_models(there[0].machine) if "quant" not in wanted else ()
    found: list[Reached] = []
    for index in order:
        reached = _reached(names[index], there[index], wanted, models, smaller)
        if reached is None:
            continue
        same = next((i for i, row in enumerate(found) if replace(row, on=reached.on, also=()) == reached), None)
        if same is not None:
            found[same] = replace(found[same], also=(*found[same].also, reached.on))
        elif len(found) == limit:
            break
        else:
            found.append(reached)
    if not found:
        message = f"none of the {len(names)} machines of the catalog reaches {need}"
        raise ObjectiveUnmet(message, hint="ask for less, name more host memory (--ram), or plan --on several cards")
    return WhatIf(need=need, machines=tuple(found), n_looked_at=len(names))


def _situation(name: str, ram: str | None) -> Situation:
    """A machine of the catalog; where one memory serves both, `ram` has no meaning."""
    here = situation_of(name, None)
    return here if ram is None or any(gpu.unified for gpu in here.machine.gpus) else situation_of(name, ram)


def parsed(need: str) -> dict[str, str]:
    """The terms of a need by name.

    Raises:
        InputError: a term that is none.
    """
    terms = need.replace(",", " ").split()
    wanted: dict[str, str] = {}
    for term in terms:
        match = _TERM.fullmatch(term)
        if match is None:
            message = f"cannot read {term!r} in the need"
            raise InputError(message, hint=f"write {_GRAMMAR}")
        wanted[match[1] or match[3]] = match[2] or match[4]
    if not wanted:
        message = "an empty need"
        raise InputError(message, hint=f"write {_GRAMMAR}")
    slots = wanted.get("slots", "1")
    if not slots.isdecimal() or not 1 <= int(slots) <= _SLOTS:
        message = f"{slots!r} slots"
        raise InputError(message, hint=f"slots=1 to slots={_SLOTS}")
    return wanted


def _catalog_machines() -> tuple[str, ...]:
    from glmplan.profiles.device_listing import listing

    return tuple(
        f"{device.id}:{size // GIB}"
        for device in listing().devices
        if device.vendor in _GPU_VENDORS
        for size in device.memory_options_bytes
        if size % GIB == 0
    )


def _reached(
    name: str,
    here: Situation,
    wanted: dict[str, str],
    models: Sequence[ModelProfile],
    smaller: Sequence[ModelProfile],
) -> "Reached | None":
    """How the machine reaches the need, or None."""
    from glmplan.comparison import Reached
    from glmplan.planner.judging import Judge
    from glmplan.planner.offload import host_expert_bytes
    from glmplan.planner.planning import ranked_for

    machine = here.machine
    request = PlanRequest(
        machine=machine,
        n_ctx=parse_tokens(wanted["n_ctx"]) if "n_ctx" in wanted else None,
        quant=wanted.get("quant"),
        n_parallel=int(wanted.get("slots", "1")),
        min_decode_tokens_per_s=float(wanted["decode"]) if "decode" in wanted else None,
    )
    around = surroundings_of(here, request)
    floor = request.min_decode_tokens_per_s or 0.0
    if not any(Judge(model, around, request).fastest_decode() >= floor for model in (*models, *smaller)):
        return None
    try:
        ranked = ranked_for(models, smaller, around, request)
    except PlanningError:
        return None
    floor = float(wanted.get("prefill", "0"))
    best = next((c for c in ranked if c.speed.prefill_tokens_per_s.value >= floor), None)
    if best is None:
        return None
    return Reached(
        on=name,
        gpu_bytes=sum(gpu.memory_total_bytes or 0 for gpu in machine.gpus),
        memory_bytes=_memory_bytes(machine),
        quantization=best.model.quantization,
        n_ctx=best.placement.n_ctx,
        cache_type=best.placement.cache_type_k,
        host_expert_bytes=host_expert_bytes(Judge(best.model, around, request).memory, best.placement),
        decode_tokens_per_s=best.speed.decode_tokens_per_s,
        prefill_tokens_per_s=best.speed.prefill_tokens_per_s,
    )


def _memory_bytes(machine: "Machine") -> int:
    """GPU and host memory; of a machine with one memory for both, that memory once."""
    separate = sum(gpu.memory_total_bytes or 0 for gpu in machine.gpus if not gpu.unified)
    return separate + (machine.memory.total_bytes or 0)

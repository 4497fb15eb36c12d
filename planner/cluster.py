"""Several machines as one service: the planner of one machine per node, and one model file for all; pure.

All replicas answer under one name, so they run the same file and give every user the same context. Per node the cut
with the most tokens per second is taken, or among those within a tenth of it the one for the most users. The file is
chosen by the rules of the objective (`objective.rank`), with the sums of all nodes as its speeds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from glmplan import __version__
from glmplan.cluster import ClusterAlternative, ClusterPlan, ClusterTotal, ClusterWorkload, NodePlan, ReplicaSlots
from glmplan.errors import InputError, JsonValue, NothingFits, PlanningError
from glmplan.estimate import Basis, Estimate
from glmplan.model import ModelProfile
from glmplan.plan import PlanRequest
from glmplan.planner.cluster_load import Load, Wish, best_load
from glmplan.planner.cluster_slots import NodeCase, Slot, layouts
from glmplan.planner.cluster_words import layout_reason, node_reasons, why_not_chosen, why_this_file
from glmplan.planner.judging import offloaded_bytes
from glmplan.planner.machine_id import planned_machine
from glmplan.planner.objective import USABLE_DECODE_TOKENS_PER_S, WANTED_CONTEXT, Score, rank
from glmplan.planner.planning import make_plan, planned_model
from glmplan.workload import Objective

# Contexts per user that are tried until one fits somewhere.
_CONTEXTS: Final = (WANTED_CONTEXT, 16384, 8192, 4096)
# Layouts within this share of the most tokens per second are told apart by the users they serve.
_NEARLY: Final = 0.9
_ORDER: Final = (Basis.MEASURED, Basis.CALIBRATED, Basis.ROOFLINE, Basis.ASSUMED)


@dataclass(frozen=True, slots=True)
class Pins:
    """What the user fixed: context per user (0: the longest), users to serve, replicas on each GPU."""

    n_ctx: int | None = None
    users: int | None = None
    replicas_per_gpu: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """One cut of a node with the load of each slot that holds a replica."""

    parts: tuple[tuple[Slot, Load], ...]

    @property
    def users(self) -> int:
        """Answers written at once on one node."""
        return sum(slot.replicas * load.users for slot, load in self.parts)

    @property
    def decode(self) -> float:
        """Tokens per second of one node together."""
        return sum(slot.replicas * load.decode.value for slot, load in self.parts)


@dataclass(frozen=True, slots=True)
class Fit:
    """What one node does with one file: the layout taken and the best other one, or why there is none."""

    node: NodeCase
    layout: Layout | None
    other: Layout | None
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One file on all nodes."""

    model: ModelProfile
    wish: Wish
    fits: tuple[Fit, ...]

    @property
    def total(self) -> ClusterTotal:
        """The sums over all nodes."""
        return _total(self.fits)


def plan_cluster(
    nodes: Sequence[NodeCase], request: PlanRequest, pins: Pins, *, created_at: str, smaller: Sequence[str] = ()
) -> ClusterPlan:
    """Choose a file, a context per user and the replicas of every node.

    Args:
        nodes: the machines, each with the files it may run.
        request: objective, cache type, floor speed and workload; its machine and context are not looked at.
        pins: what the user fixed.
        created_at: time stamp, ISO 8601.
        smaller: quantisations among the nodes' files that count only where nothing else fits.

    Raises:
        NothingFits: no node holds a replica; `facts` has the reason of every node.
        InputError: a pin is impossible.
    """
    choices = _choices(nodes, request, pins, smaller)
    ranked = _ranked(choices, request, pins)
    best = ranked[0]
    return ClusterPlan(
        glmplan_version=__version__,
        created_at=created_at,
        model=planned_model(best.model),
        workload=ClusterWorkload(
            n_ctx_per_user=best.wish.n_ctx,
            depth_tokens=best.wish.depth_tokens,
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            min_decode_tokens_per_s=best.wish.floor,
            objective=request.objective,
            users=pins.users,
        ),
        nodes=tuple(_node_plan(fit, created_at) for fit in best.fits),
        total=best.total,
        reasons=(why_this_file(best.model, [other.model for other in ranked[1:]]),),
        warnings=_warnings(best, pins),
        alternatives=tuple(
            ClusterAlternative(
                quantization=other.model.quantization,
                total=other.total,
                why_not=why_not_chosen(other.model, other.total, best.model, best.total),
            )
            for other in ranked[1:]
        ),
    )


def _choices(nodes: Sequence[NodeCase], request: PlanRequest, pins: Pins, smaller: Sequence[str]) -> list[Choice]:
    """Every file that fits somewhere, at the first context per user that any does."""
    names = list(dict.fromkeys(model.quantization for node in nodes for model in node.models))
    trained = min(model.n_ctx_train for node in nodes for model in node.models)
    _check(pins, trained)
    misses: list[Choice] = []
    for group in ([name for name in names if name not in smaller], [name for name in names if name in smaller]):
        for n_ctx in _contexts(pins, trained):
            wish = Wish.of(request, n_ctx, USABLE_DECODE_TOKENS_PER_S)
            found = [_choice(nodes, name, wish, pins) for name in group]
            fitting = [choice for choice in found if choice.total.replicas]
            if fitting:
                return fitting
            misses += found
    raise _nothing_fits(misses)


def _check(pins: Pins, trained: int) -> None:
    if pins.n_ctx is not None and pins.n_ctx > trained:
        message = f"a context of {pins.n_ctx} tokens is outside what the model was trained for ({trained})"
        raise InputError(message, hint=f"--n-ctx up to {trained}", facts={"n_ctx": pins.n_ctx, "n_ctx_train": trained})


def _contexts(pins: Pins, trained: int) -> Iterator[int]:
    if pins.n_ctx:
        yield pins.n_ctx
        return
    if pins.n_ctx == 0:
        yield from (trained, *(n for n in (163840, 131072, 98304, 65536, 49152) if n < trained))
    fitting = [n_ctx for n_ctx in _CONTEXTS if n_ctx <= trained]
    yield from fitting or (trained,)


def _choice(nodes: Sequence[NodeCase], name: str, wish: Wish, pins: Pins) -> Choice:
    fits = [_fit(node, name, wish, pins) for node in nodes]
    if pins.users is not None and _total(fits).users.value < pins.users:
        fits = [_fit(node, name, replace(wish, most_users=True), pins) for node in nodes]
    model = next(model for node in nodes for model in node.models if model.quantization == name)
    return Choice(model=model, wish=wish, fits=tuple(_without_laggards(fits, wish)))


def _fit(node: NodeCase, name: str, wish: Wish, pins: Pins) -> Fit:
    """The best layout of one node for the file called `name`."""
    if node.refused is not None:
        return Fit(node, None, None, node.refused)
    model = next((model for model in node.models if model.quantization == name), None)
    if model is None:
        return Fit(node, None, None, f"it has no {name} file to choose")
    found: list[Layout] = []
    why_not = ""
    for cut in layouts(node, model, pins.replicas_per_gpu):
        parts: list[tuple[Slot, Load]] = []
        for slot in cut:
            try:
                parts.append((slot, best_load(slot, model, wish)))
            except PlanningError as error:
                why_not = why_not or error.message
        if parts:
            found.append(Layout(parts=tuple(parts)))
    if not found:
        return Fit(node, None, None, why_not)
    fastest = max(layout.decode for layout in found)
    near = [layout for layout in found if wish.most_users or layout.decode >= _NEARLY * fastest]
    chosen = max(near, key=lambda layout: (layout.users, layout.decode))
    others = [layout for layout in found if layout is not chosen]
    other = max(others, key=lambda layout: layout.decode) if others else None
    return Fit(node, chosen, other, None)


def _without_laggards(fits: Sequence[Fit], wish: Wish) -> Iterator[Fit]:
    """Nodes below the floor speed are left out where another reaches it: nobody chooses which one answers."""
    slow = [
        fit.layout is not None and all(load.decode.value / load.users < wish.floor for _, load in fit.layout.parts)
        for fit in fits
    ]
    others_reach_it = any(fit.layout is not None and not is_slow for fit, is_slow in zip(fits, slow, strict=True))
    for fit, is_slow in zip(fits, slow, strict=True):
        if is_slow and others_reach_it and fit.layout is not None:
            reached = max(load.decode.value / load.users for _, load in fit.layout.parts)
            why = (
                f"{reached:.1f} tokens/s per user are less than the {wish.floor:g} that other nodes reach "
                f"(--min-decode {reached:.0f} takes it in)"
            )
            yield Fit(fit.node, None, fit.layout, why)
        else:
            yield fit


def _ranked(choices: Sequence[Choice], request: PlanRequest, pins: Pins) -> list[Choice]:
    """The best file first; those that serve the users asked for before those that do not."""
    order = [choices[index] for index in rank([_score(choice, request) for choice in choices], request)]
    if pins.users is None:
        return order
    return sorted(order, key=lambda choice: choice.total.users.value < (pins.users or 0))


def _score(choice: Choice, request: PlanRequest) -> Score:
    loads = [(slot, load) for fit in choice.fits if fit.layout for slot, load in fit.layout.parts]
    total, rank_of_file = choice.total, choice.model.quality_rank
    decode, prefill = total.decode_tokens_per_s.value, total.prefill_tokens_per_s.value
    return Score(
        quality=-rank_of_file if rank_of_file is not None else -100,
        n_ctx=choice.wish.n_ctx,
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        full_cache=all(load.candidate.placement.cache_type_k == "f16" for _, load in loads),
        request_s=request.prompt_tokens / prefill + request.output_tokens / decode,
        offloaded_bytes=sum(offloaded_bytes(load.candidate) for _, load in loads),
    )


def _total(fits: Sequence[Fit]) -> ClusterTotal:
    loads = [(fit.node.count * slot.replicas, load) for fit in fits if fit.layout for slot, load in fit.layout.parts]
    users = sum(number * load.users for number, load in loads)
    decode = _together([(number, load.decode) for number, load in loads])
    return ClusterTotal(
        nodes=sum(fit.node.count for fit in fits),
        nodes_used=sum(fit.node.count for fit in fits if fit.layout),
        replicas=sum(number for number, _ in loads),
        users=Estimate(
            value=users, low=sum(number * load.likely_users for number, load in loads), high=users, basis=decode.basis
        ),
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=_together([(number, load.prefill) for number, load in loads]),
    )


def _together(parts: Sequence[tuple[int, Estimate]]) -> Estimate:
    """A sum of speeds; ends of ranges add up, because the replicas share the model's errors; the weakest basis."""
    return Estimate(
        value=sum(number * part.value for number, part in parts),
        low=sum(number * part.low for number, part in parts),
        high=sum(number * part.high for number, part in parts),
        basis=max((part.basis for _, part in parts), key=_ORDER.index, default=Basis.ASSUMED),
    )


def _node_plan(fit: Fit, created_at: str) -> NodePlan:
    node = fit.node
    slots = tuple(
        _replica_slots(node, slot, load, created_at) for slot, load in (fit.layout.parts if fit.layout else ())
    )
    reasons = node_reasons(slots, node.machine)
    if fit.layout is not None and fit.other is not None:
        reasons = (
            *reasons,
            layout_reason([(s.replicas, s.gpus_each) for s, _ in fit.other.parts], fit.other.users, fit.other.decode),
        )
    return NodePlan(
        name=node.name,
        count=node.count,
        machine=planned_machine(node.machine, node.engine),
        slots=slots,
        why_not=fit.why_not,
        reasons=(*reasons, *node.notes),
        ray_node_id=node.ray_node_id,
    )


def _replica_slots(node: NodeCase, slot: Slot, load: Load, created_at: str) -> ReplicaSlots:
    model = load.candidate.model
    plan = make_plan([model], slot.around, load.request, engine=node.engine, created_at=created_at)
    each = Estimate(
        value=load.decode.value / load.users,
        low=load.decode.low / load.users,
        high=load.decode.high / load.users,
        basis=load.decode.basis,
    )
    return ReplicaSlots(
        replicas=slot.replicas,
        gpu_ids=slot.gpu_ids,
        gpus_each=slot.gpus_each,
        cpu_cores_each=slot.around.n_threads,
        users_each=load.users,
        decode_tokens_per_s=_together([(slot.replicas, load.decode)]),
        prefill_tokens_per_s=_together([(slot.replicas, load.prefill)]),
        decode_per_user_tokens_per_s=each,
        plan=plan,
        engine=node.engine,
    )


def _warnings(best: Choice, pins: Pins) -> tuple[str, ...]:
    found: list[str] = []
    total = best.total
    if pins.users is not None and total.users.value < pins.users:
        found.append(f"{total.users.value:.0f} of the {pins.users} users asked for can be served at once")
    if best.wish.n_ctx < WANTED_CONTEXT and pins.n_ctx is None:
        found.append(f"{best.wish.n_ctx} tokens per user: no node holds {WANTED_CONTEXT} (--n-ctx N asks for more)")
    if total.users.low < total.users.value:
        least = f"{total.users.low:.0f} users see {best.wish.floor:g} tokens/s, the others less"
        found.append(f"at the low end of the estimates {least}")
    return tuple(found)


def _nothing_fits(misses: Sequence[Choice]) -> NothingFits:
    """The refusal: the smallest file at the shortest context, and what every node lacks for it."""
    nearest = min(reversed(misses), key=lambda choice: (choice.model.file_bytes, choice.wish.n_ctx))
    reasons: dict[str, JsonValue] = {fit.node.name: fit.why_not for fit in nearest.fits}
    first = next(iter(nearest.fits))
    message = f"no node holds a replica: on {first.node.name} {first.why_not}" + (
        f", and {len(nearest.fits) - 1} more nodes hold none either" if len(nearest.fits) > 1 else ""
    )
    return NothingFits(
        message,
        hint="nodes with more memory, a smaller --n-ctx or --quant; llama.cpp's RPC can split one file over machines "
        "(docs/cluster.md)",
        facts={"nodes": reasons, "quantization": nearest.model.quantization, "n_ctx": nearest.wish.n_ctx},
    )


__all__ = ["NodeCase", "Objective", "Pins", "plan_cluster"]

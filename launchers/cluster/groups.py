"""From a cluster plan to the groups of replicas that Ray Serve deploys: equal replicas are one group."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from glmplan.cluster import ClusterPlan, NodePlan, Readiness, ReplicaSlots
from glmplan.engine import Engine
from glmplan.errors import InputError
from glmplan.jsonio import dumps
from glmplan.launchers.cluster.application import ReplicaBounds, ReplicaGroup
from glmplan.noun import noun
from glmplan.plan import Plan


@noun
class Scaling:
    """How many replicas to keep, of all nodes together; None: as many as planned."""

    least: int | None = None
    most: int | None = None
    target_ongoing: float | None = None


@dataclass(frozen=True, slots=True)
class _Placed:
    """Equal replicas on one node, ready to be launched there."""

    slots: ReplicaSlots
    plan: Plan
    engine: Engine
    node_id: str
    num_cpus: float
    replicas: int

    @property
    def kind(self) -> str:
        """What makes replicas equal: everything an engine is started with."""
        plan = self.plan
        parts = (plan.placement, plan.model, self.engine, self.slots.gpus_each, self.num_cpus, self.replicas)
        return dumps(parts)


def groups_of(
    made: ClusterPlan, ready: Mapping[str, Readiness], cpus: Mapping[str, float], scaling: Scaling
) -> tuple[ReplicaGroup, ...]:
    """The groups of `made`.

    Args:
        made: the plan, of a Ray cluster.
        ready: file and engine found on each node that runs replicas, by node id.
        cpus: what Ray may give away on each node, by node id.
        scaling: what the user wants kept.

    Raises:
        InputError: the plan is of no Ray cluster, or the numbers wanted cannot be had.
    """
    placed = [part for node in made.nodes if node.slots for part in _placed(node, ready, cpus)]
    kinds: dict[str, list[_Placed]] = {}
    for part in placed:
        kinds.setdefault(part.kind, []).append(part)
    return _bounded(_named([_group(parts) for parts in kinds.values()]), scaling)


def _placed(node: NodePlan, ready: Mapping[str, Readiness], cpus: Mapping[str, float]) -> list[_Placed]:
    if node.ray_node_id is None:
        message = f"the plan is not of a Ray cluster: {node.name} is a machine of a nodes file"
        raise InputError(message, hint="glmplan cluster plan -o FILE without --nodes plans the running cluster")
    if len(node.slots) != 1:
        message = f"{node.name} has unlike GPUs, and Ray gives its replicas any of them"
        hint = "one Ray node for each kind: CUDA_VISIBLE_DEVICES=0 ray start --address=... --num-gpus=1"
        raise InputError(message, hint=hint)
    slots = node.slots[0]
    found = ready[node.ray_node_id]
    plan = replace(slots.plan, alternatives=(), prices=(), reasons=(), warnings=())
    if found.file is not None:
        plan = replace(plan, model=replace(plan.model, file=found.file))
    engine = found.engine or slots.engine
    if engine is None:
        message = f"no engine is known for {node.name}"
        raise InputError(message, hint="glmplan cluster plan again")
    share = cpus.get(node.ray_node_id, float(slots.cpu_cores_each)) / slots.replicas
    whole = min(float(slots.cpu_cores_each), share)
    return [
        _Placed(
            slots=slots,
            plan=plan,
            engine=engine,
            node_id=node.ray_node_id,
            num_cpus=float(int(whole)) if whole >= 1 else int(whole * 100) / 100,
            replicas=slots.replicas,
        )
    ]


def _group(parts: Sequence[_Placed]) -> ReplicaGroup:
    first = parts[0]
    planned = sum(part.replicas for part in parts)
    return ReplicaGroup(
        name=_name(first.plan),
        plan=first.plan,
        engine=first.engine,
        users_each=first.slots.users_each,
        replicas=ReplicaBounds(least=planned, most=planned),
        num_cpus=first.num_cpus,
        num_gpus=int(first.slots.gpus_each * 10_000) / 10_000,  # the steps in which Ray counts
        node_ids=tuple(part.node_id for part in parts),
        most_per_node=first.replicas,
    )


def _name(plan: Plan) -> str:
    """A name that Ray Serve takes: letters, digits and hyphens."""
    where = plan.machine.gpus[0].name if plan.machine.gpus and plan.placement.n_gpu_layers else "CPU"
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{plan.model.quantization} on {where}").strip("-")


def _named(groups: Sequence[ReplicaGroup]) -> tuple[ReplicaGroup, ...]:
    """Names that are told apart."""
    names = [group.name for group in groups]
    return tuple(
        replace(group, name=f"{group.name}-{index + 1}") if names.count(group.name) > 1 else group
        for index, group in enumerate(groups)
    )


def _bounded(groups: Sequence[ReplicaGroup], scaling: Scaling) -> tuple[ReplicaGroup, ...]:
    """The wanted numbers shared out, to the fastest replicas first; every group keeps one.

    Raises:
        InputError: more than planned, fewer than one each, or a least above the most.
    """
    planned = sum(group.replicas.most for group in groups)
    most = planned if scaling.most is None else scaling.most
    least = most if scaling.least is None else scaling.least
    if not len(groups) <= least <= most <= planned:
        message = f"{least} to {most} replicas cannot be kept: {planned} are planned, in {len(groups)} groups"
        hint = f"--min-replicas {len(groups)} or more, --max-replicas {planned} or less"
        raise InputError(message, hint=hint, facts={"planned": planned, "groups": len(groups)})
    fastest = sorted(groups, key=lambda group: -group.plan.speed.decode_tokens_per_s.value)
    for_most, for_least = _shared(fastest, most), _shared(fastest, least)
    return tuple(
        replace(
            group,
            replicas=ReplicaBounds(
                least=for_least[group.name], most=for_most[group.name], target_ongoing=scaling.target_ongoing
            ),
        )
        for group in groups
    )


def _shared(fastest: Sequence[ReplicaGroup], number: int) -> dict[str, int]:
    """`number` replicas over the groups: one each, the rest to the fastest."""
    left = number - len(fastest)
    shares: dict[str, int] = {}
    for group in fastest:
        more = min(left, group.replicas.most - 1)
        shares[group.name] = 1 + more
        left -= more
    return shares

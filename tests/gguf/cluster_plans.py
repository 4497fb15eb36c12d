"""Cluster plans made by hand, for tests of deploying and exporting: tests of planning make theirs with the planner."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch_plans import plan_of

from glmplan.cluster import ClusterPlan, ClusterTotal, ClusterWorkload, NodePlan, ReplicaSlots
from glmplan.engine import EngineKind
from glmplan.estimate import Basis, Estimate
from glmplan.placement import FlashAttention
from glmplan.plan import Plan
from glmplan.workload import Objective


def assumed(value: float) -> Estimate:
    """An estimate that nobody checks."""
    return Estimate(value=value, low=value / 2, high=value * 2, basis=Basis.ASSUMED)


def slots_of(
    plan: Plan, *, replicas: int = 1, gpus_each: float = 0.0, users_each: int = 4, cores: int = 1
) -> ReplicaSlots:
    """Equal replicas of `plan` on one node."""
    return ReplicaSlots(
        replicas=replicas,
        gpu_ids=tuple(gpu.id for gpu in plan.machine.gpus),
        gpus_each=gpus_each,
        cpu_cores_each=cores,
        users_each=users_each,
        decode_tokens_per_s=assumed(100.0),
        prefill_tokens_per_s=assumed(1000.0),
        decode_per_user_tokens_per_s=assumed(100.0 / users_each),
        plan=plan,
    )


def cluster_of(nodes: Sequence[NodePlan], *, n_ctx_per_user: int = 1024) -> ClusterPlan:
    """A cluster plan with these nodes."""
    plan = next(slots.plan for node in nodes for slots in node.slots)
    replicas = sum(node.replicas for node in nodes)
    return ClusterPlan(
        glmplan_version="0.1.0",
        created_at="2026-01-01T00:00:00Z",
        model=plan.model,
        workload=ClusterWorkload(
            n_ctx_per_user=n_ctx_per_user, depth_tokens=0, prompt_tokens=128, output_tokens=32,
            min_decode_tokens_per_s=5.0, objective=Objective.BALANCED,
        ),
        nodes=tuple(nodes),
        total=ClusterTotal(
            nodes=len(nodes), nodes_used=len(nodes), replicas=replicas, users=assumed(4 * replicas),
            decode_tokens_per_s=assumed(100.0 * replicas), prefill_tokens_per_s=assumed(1000.0 * replicas),
        ),
    )  # fmt: skip


def on_ray(model: Path, node_ids: Sequence[str], *, users_each: int = 4, **knobs: Any) -> ClusterPlan:
    """One replica of the tiny model by xllamacpp on each of these Ray nodes.

    Everything is f32 and unfused: weights of noise have near ties, and answers must not depend on who else is asking.
    """
    exact = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": FlashAttention.OFF}
    one_core = {"n_threads": 1, "n_threads_batch": 1}
    knobs = {"n_parallel": users_each, "n_ctx": 1024 * users_each, **one_core, **exact, **knobs}
    plan = plan_of(model, EngineKind.XLLAMACPP, **knobs)
    nodes = [
        NodePlan(
            name=f"node{number}", count=1, machine=plan.machine, slots=(slots_of(plan, users_each=users_each),),
            ray_node_id=node_id,
        )
        for number, node_id in enumerate(node_ids, start=1)
    ]  # fmt: skip
    return cluster_of(nodes)


def with_model(made: ClusterPlan, file: Path) -> ClusterPlan:
    """The same with another model file."""
    nodes = tuple(
        replace(
            node,
            slots=tuple(
                replace(s, plan=replace(s.plan, model=replace(s.plan.model, file=str(file)))) for s in node.slots
            ),
        )
        for node in made.nodes
    )
    return replace(made, nodes=nodes)

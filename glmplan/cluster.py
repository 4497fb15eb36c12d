"""Several machines as one service: which node runs how many replicas of which plan, and what that gives together.

The JSON of `ClusterPlan` is `glmplan/cluster/1` (docs/cluster.md). Every replica carries a whole `glmplan/plan/1`, so
that it can be launched and exported like any other plan.
"""

from typing import Final, Literal

from glmplan.engine import Engine
from glmplan.estimate import Estimate
from glmplan.noun import noun
from glmplan.plan import Plan, PlannedMachine, PlannedModel
from glmplan.workload import Objective

CLUSTER_SCHEMA: Final = "glmplan/cluster/1"


@noun
class ReplicaSlots:
    """Equal replicas on one node, each in its own slot of memory.

    `gpu_ids` are the GPUs of the node that these replicas use together; `gpus_each` is what one takes of them: whole
    GPUs, or a share below 1 when several fit on one; 0 on a CPU. `users_each` is how many answers one replica writes
    at once. The speeds are of all `replicas` together, with every user being answered; `decode_per_user` is what one
    of them then sees. `engine` is the build found on the node; None: not looked at.
    """

    replicas: int
    gpu_ids: tuple[str, ...]
    gpus_each: float
    cpu_cores_each: int
    users_each: int
    decode_tokens_per_s: Estimate
    prefill_tokens_per_s: Estimate
    decode_per_user_tokens_per_s: Estimate
    plan: Plan
    engine: Engine | None = None


@noun
class NodePlan:
    """One node, or `count` equal ones, and its replicas; without any, `why_not` says what stands in the way.

    `ray_node_id` is Ray's name of the node where the plan was made from a running cluster.
    """

    name: str
    count: int
    machine: PlannedMachine
    slots: tuple[ReplicaSlots, ...]
    why_not: str | None = None
    reasons: tuple[str, ...] = ()
    ray_node_id: str | None = None

    @property
    def replicas(self) -> int:
        """Replicas on all `count` nodes."""
        return self.count * sum(slot.replicas for slot in self.slots)


@noun
class ClusterTotal:
    """What all nodes give together; `users` are answers written at once, each at the floor speed or faster."""

    nodes: int
    nodes_used: int
    replicas: int
    users: Estimate
    decode_tokens_per_s: Estimate
    prefill_tokens_per_s: Estimate


@noun
class ClusterWorkload:
    """The demand: each user may fill `n_ctx_per_user` tokens and wants `min_decode_tokens_per_s`.

    `users` is how many were asked for; None: as many as is fast. Speeds are judged at `depth_tokens` of context.
    """

    n_ctx_per_user: int
    depth_tokens: int
    prompt_tokens: int
    output_tokens: int
    min_decode_tokens_per_s: float
    objective: Objective
    users: int | None = None


@noun
class ClusterAlternative:
    """The same nodes with another file, and why it lost."""

    quantization: str
    total: ClusterTotal
    why_not: str


@noun
class ClusterPlan:
    """One decision for several machines."""

    schema: Literal["glmplan/cluster/1"] = CLUSTER_SCHEMA
    glmplan_version: str
    created_at: str
    model: PlannedModel
    workload: ClusterWorkload
    nodes: tuple[NodePlan, ...]
    total: ClusterTotal
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alternatives: tuple[ClusterAlternative, ...] = ()


def first_plan(cluster: ClusterPlan) -> Plan:
    """The plan of the first replica; a cluster plan has at least one."""
    return next(slots.plan for node in cluster.nodes for slots in node.slots)


@noun
class Readiness:
    """Whether a node can run its plan: the file and the engine found there, or the problem."""

    file: str | None = None
    engine: Engine | None = None
    problem: str | None = None
    hint: str = ""


@noun
class EngineReport:
    """One engine of a replica as its node sees it; None where the engine does not count.

    `replica_pid` is the process of the replica that it belongs to. `decode_tokens_per_s` is llama-server's own mean
    since it was asked last.
    """

    replica_pid: int
    pid: int
    port: int
    engine: str
    state: str
    resident_bytes: int | None
    log: str
    requests_processing: int | None
    requests_deferred: int | None
    decode_tokens_per_s: float | None


@noun
class NodeEngines:
    """What one node answers about its engines."""

    engines: tuple[EngineReport, ...]

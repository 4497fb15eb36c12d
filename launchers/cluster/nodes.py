"""The nodes of a Ray cluster, and asking each of them a question through a Ray task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from glmplan.errors import ClusterError
from glmplan.launchers.cluster import ray_library
from glmplan.noun import noun

# A task needs a worker process, which takes seconds to start; a probe of a slow machine takes more.
_ASK_S: Final = 120.0
_SHOWN_CHARACTERS: Final = 300


@noun
class RayNode:
    """One living node; `num_cpus`, `num_gpus` and `memory_bytes` are what Ray may give away on it.

    `is_head`: the node of the cluster's address.
    """

    node_id: str
    name: str
    address: str
    is_head: bool
    num_cpus: float
    num_gpus: float
    memory_bytes: int | None


def living_nodes() -> tuple[RayNode, ...]:
    """The nodes of the connected cluster, the head first."""
    rows: Sequence[Mapping[str, Any]] = ray_library.ray().nodes()
    nodes = [_node(row) for row in rows if row["Alive"]]
    return tuple(sorted(nodes, key=lambda node: (not node.is_head, node.name, node.node_id)))


def _node(row: Mapping[str, Any]) -> RayNode:
    resources: Mapping[str, float] = row["Resources"]
    memory = resources.get("memory")
    return RayNode(
        node_id=str(row["NodeID"]),
        name=str(row.get("NodeManagerHostname") or row["NodeManagerAddress"]),
        address=str(row["NodeManagerAddress"]),
        is_head="node:__internal_head__" in resources,
        num_cpus=float(resources.get("CPU", 0.0)),
        num_gpus=float(resources.get("GPU", 0.0)),
        memory_bytes=None if memory is None else int(memory),
    )


@noun
class Answers:
    """What nodes said, and of those that said nothing why; both by node id."""

    said: dict[str, str]
    silent: dict[str, str]


def ask_nodes(question: Callable[..., str], nodes: Sequence[RayNode], *args: object) -> dict[str, str]:
    """What `question(*args)`, called on every node at once, answers; by node id.

    `question` must be importable on the nodes: it travels by its name.

    Raises:
        ClusterError: a node does not answer, or has another glmplan than this machine.
    """
    answers = ask_who_answers(question, nodes, *args)
    for node in nodes:
        if node.node_id in answers.silent:
            message = f"node {node.name} ({node.address}) does not answer: {answers.silent[node.node_id]}"
            raise ClusterError(
                message,
                hint="every node needs the same glmplan, Python and Ray: pip install 'glmplan[cluster]' there",
                facts={"node": node.name, "ray_node_id": node.node_id},
            )
    return answers.said


def ask_who_answers(question: Callable[..., str], nodes: Sequence[RayNode], *args: object) -> Answers:
    """As `ask_nodes`; a node that has just been lost, or lacks something, is among the silent ones."""
    ray = ray_library.ray()
    pinned = ray_library.strategies().NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        node.node_id: task.options(scheduling_strategy=pinned(node_id=node.node_id, soft=False)).remote(*args)
        for node in nodes
    }
    said: dict[str, str] = {}
    silent: dict[str, str] = {}
    for node_id, answer in asked.items():
        try:
            said[node_id] = str(ray.get(answer, timeout=_ASK_S))
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            silent[node_id] = lines[-1][:_SHOWN_CHARACTERS] if lines else type(error).__name__
    return Answers(said=said, silent=silent)

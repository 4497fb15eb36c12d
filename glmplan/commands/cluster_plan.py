"""`glmplan cluster plan`: replicas by node, from a nodes file or a running Ray cluster."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glmplan.commands.numbers import finite
from glmplan.commands.plan import checked_cache_type, surroundings_of, write_plan
from glmplan.commands.situation import models_for, situation_on, smaller_models, without_gpus
from glmplan.units import parse_bytes, parse_tokens
from glmplan.workload import Objective

if TYPE_CHECKING:
    from glmplan.cluster import ClusterPlan
    from glmplan.commands.cluster_nodes import NamedNode
    from glmplan.planner.cluster_slots import NodeCase


AddressOption = Annotated[
    str | None, typer.Option("--address", help="Address of the Ray cluster; default: RAY_ADDRESS, or the one here.")
]
NodesOption = Annotated[
    Path | None, typer.Option("--nodes", metavar="FILE", help="YAML or JSON list of machines; none: the Ray cluster.")
]


def plan(
    nodes: NodesOption = None,
    address: AddressOption = None,
    quant: Annotated[
        str, typer.Option(help="auto, or a quantisation such as q4_K_M: one file for all nodes.")
    ] = "auto",
    gguf: Annotated[str | None, typer.Option(help="Plan for this very file, at this path on every node.")] = None,
    n_ctx: Annotated[str, typer.Option(help="Context each user may fill: auto, max, or a number.")] = "auto",
    cache_type: Annotated[str, typer.Option(help="KV cache type: auto, f16, q8_0, ...")] = "auto",
    objective: Annotated[Objective, typer.Option(help="What to choose the file by.")] = Objective.BALANCED,
    users: Annotated[
        int | None, typer.Option(min=1, help="Users to serve at once; default: as many as is fast.")
    ] = None,
    min_decode: Annotated[
        float | None,
        typer.Option(callback=finite, min=0, help="Tokens per second each user shall see; default: 5 where reachable."),
    ] = None,
    replicas_per_gpu: Annotated[
        int | None, typer.Option(min=1, max=8, help="Replicas on each GPU; default: what gives the most.")
    ] = None,
    reserve: Annotated[str, typer.Option(help="Keep this free on every device.")] = "0",
    engine: Annotated[str | None, typer.Option(help="Plan for this kind of engine.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the cluster plan to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/cluster/1).")] = False,
) -> None:
    """Plan several machines as one service: replicas by node, what fits where and why not, and the sums."""
    found = nodes_of_ray(address, engine=engine) if nodes is None else listed_nodes(nodes, engine=engine)
    made = make_cluster_plan(
        found,
        quant=quant,
        gguf=gguf,
        n_ctx=n_ctx,
        cache_type=cache_type,
        objective=objective,
        users=users,
        min_decode=min_decode,
        replicas_per_gpu=replicas_per_gpu,
        reserve=reserve,
    )
    if output is not None:
        write_plan(made, output)
    if as_json:
        from glmplan.jsonio import dumps

        typer.echo(dumps(made))
    else:
        from glmplan.render.cluster import show_cluster_plan

        show_cluster_plan(made)


def listed_nodes(nodes: Path, *, engine: str | None) -> "list[NamedNode]":
    """The nodes of the file, each as a machine to plan for.

    Raises:
        InputError: it cannot be read.
    """
    from glmplan.commands.cluster_nodes import NamedNode
    from glmplan.profiles.cluster_nodes import read_nodes

    return [
        NamedNode(name=node.name, count=node.count, situation=situation_on(node.machine, engine=engine))
        for node in read_nodes(nodes)
    ]


def nodes_of_ray(address: str | None, *, engine: str | None) -> "Sequence[NamedNode]":
    """The nodes of the Ray cluster at `address`.

    Raises:
        ClusterError: Ray is not installed, no cluster runs there, or a node does not answer.
    """
    from glmplan.commands.cluster_nodes import nodes_of_cluster
    from glmplan.launchers.cluster.ray_library import connected

    with connected(address):
        return nodes_of_cluster(engine=engine)


def make_cluster_plan(
    nodes: "Sequence[NamedNode]",
    *,
    quant: str = "auto",
    gguf: str | None = None,
    n_ctx: str = "auto",
    cache_type: str = "auto",
    objective: Objective = Objective.BALANCED,
    users: int | None = None,
    min_decode: float | None = None,
    replicas_per_gpu: int | None = None,
    reserve: str = "0",
) -> "ClusterPlan":
    """Plan for `nodes`; options as on the command line.

    Raises:
        InputError: an option is wrong.
        PlanningError: no node holds a replica.
    """
    from glmplan.plan import PlanRequest
    from glmplan.planner.cluster import Pins, plan_cluster

    reserve_bytes = parse_bytes(reserve)
    request = PlanRequest(
        machine=nodes[0].situation.machine,
        objective=objective,
        cache_type=None if cache_type == "auto" else checked_cache_type(cache_type),
        min_decode_tokens_per_s=min_decode,
        reserve_bytes=reserve_bytes,
    )
    smaller: tuple[str, ...] = ()
    if quant == "auto" and gguf is None:
        smaller = tuple(model.quantization for model in smaller_models(nodes[0].situation.machine))
    pinned = {"auto": None, "max": 0}[n_ctx] if n_ctx in {"auto", "max"} else parse_tokens(n_ctx)
    return plan_cluster(
        [case_of(node, quant, gguf, with_smaller=bool(smaller), reserve_bytes=reserve_bytes) for node in nodes],
        request,
        Pins(n_ctx=pinned, users=users, replicas_per_gpu=replicas_per_gpu),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        smaller=smaller,
    )


def case_of(
    node: "NamedNode", quant: str, gguf: str | None, *, with_smaller: bool = False, reserve_bytes: int = 0
) -> "NodeCase":
    """One node as the planner sees it."""
    from glmplan.plan import PlanRequest
    from glmplan.planner.cluster_slots import NodeCase

    here = node.situation
    machine = here.machine if here.use_gpus else without_gpus(here.machine)
    request = PlanRequest(machine=machine, reserve_bytes=reserve_bytes)
    models = [*models_for(quant, gguf, machine), *(smaller_models(machine) if with_smaller else ())]
    return NodeCase(
        name=node.name,
        count=node.count,
        machine=machine,
        around=surroundings_of(replace(here, machine=machine), request),
        engine=here.engine,
        models=tuple(models),
        notes=here.notes,
        reserve_bytes=reserve_bytes,
        ray_node_id=node.ray_node_id,
        refused=node.refused,
    )

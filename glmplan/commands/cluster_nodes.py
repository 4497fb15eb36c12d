"""What is asked on the nodes of a Ray cluster, through Ray tasks: each function runs there and answers in JSON."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from glmplan.cluster import EngineReport, NodeEngines, Readiness
from glmplan.commands.situation import Situation, situation_on
from glmplan.jsonio import dumps, loads
from glmplan.machine import Machine
from glmplan.noun import noun
from glmplan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glmplan.launchers.cluster.nodes import RayNode
    from glmplan.launchers.records import RunRecord


@noun
class NamedNode:
    """A node of a cluster, or `count` equal ones, and what is known of it; `refused` says why it is not used."""

    name: str
    count: int
    situation: Situation
    ray_node_id: str | None = None
    refused: str | None = None


_METRICS: Final = {
    "llamacpp:requests_processing": "requests_processing",
    "llamacpp:requests_deferred": "requests_deferred",
    "llamacpp:predicted_tokens_seconds": "decode_tokens_per_s",
}


def nodes_of_cluster(*, engine: str | None) -> tuple[NamedNode, ...]:
    """The nodes of the connected Ray cluster as machines: what each detects of itself, within what Ray gives away.

    Raises:
        ClusterError: a node does not answer.
    """
    from glmplan.launchers.cluster.nodes import ask_nodes, living_nodes

    nodes = living_nodes()
    answers = ask_nodes(describe_this_node, nodes)
    machines = {node.node_id: loads(Machine, answers[node.node_id], origin=f"node {node.name}") for node in nodes}
    return tuple(_named(node, machines[node.node_id], nodes, engine) for node in nodes)


def describe_this_node() -> str:
    """On a node: its `Machine`."""
    from glmplan.profiles.detect import detect
    from glmplan.profiles.host import LocalHost

    return dumps(detect(LocalHost()))


def _named(node: "RayNode", machine: Machine, nodes: "Sequence[RayNode]", engine: str | None) -> NamedNode:
    beside = [other for other in nodes if other.address == node.address]
    situation = situation_on(_within(machine, node, len(beside)), engine=engine)
    if len(beside) > 1:
        note = f"{len(beside)} Ray nodes are on {node.address}: each is planned with its part of the memory"
        situation = replace(situation, notes=(*situation.notes, note))
    refused: str | None = None
    if node.num_cpus <= 0:
        refused = "Ray gives none of its cores away (ray start --num-cpus N)"
    elif situation.engine is None:
        refused = "no engine is installed there: pip install 'glmplan[quick]' brings one"
    # Several nodes may have one host name, as on one machine: the id tells them apart.
    name = node.name if len(beside) == 1 else f"{node.name}/{node.node_id[:8]}"
    return NamedNode(name=name, count=1, situation=situation, ray_node_id=node.node_id, refused=refused)


def _within(machine: Machine, node: "RayNode", beside: int) -> Machine:
    """What Ray gives away of a machine that `beside` Ray nodes share."""
    memory, cpu = machine.memory, machine.cpu
    known = [value for value in (memory.available_bytes, memory.limit_bytes, memory.total_bytes) if value is not None]
    room = min(known) // beside if known else None
    if node.memory_bytes is not None:
        room = node.memory_bytes if room is None else min(room, node.memory_bytes)
    return replace(
        machine,
        cpu=replace(cpu, usable_cores=max(1, min(cpu.usable_cores, int(node.num_cpus)))),
        memory=replace(memory, available_bytes=room),
        gpus=machine.gpus[: int(node.num_gpus)],
    )


def prepare_this_node(plan_text: str) -> str:
    """On a node: whether the plan can be launched there, by which engine and with which file (`Readiness`)."""
    from glmplan.commands.fetching import fetch_command, with_local_file
    from glmplan.commands.launching import engine_for
    from glmplan.errors import GlmplanError
    from glmplan.launchers.model_file import require_model

    try:
        plan = loads(Plan, plan_text, origin="the cluster plan")
        engine = engine_for(plan)
        plan = with_local_file(plan)
        require_model(plan.model, how_to_get=f"on that node: {fetch_command(plan.model)}")
    except GlmplanError as error:
        return dumps(Readiness(problem=error.message, hint=error.hint))
    return dumps(Readiness(file=plan.model.file, engine=engine))


def engines_on_this_node(application: str) -> str:
    """On a node: the engines of the application's replicas and how they are (`NodeEngines`)."""
    return dumps(NodeEngines(engines=tuple(_report(record) for record in _of(application))))


def clear_this_node(application: str) -> str:
    """On a node: end what is left of the application's engines, and say what that was (`NodeEngines`)."""
    from glmplan.launchers import records

    left = _of(application)
    reports = tuple(_report(record) for record in left)
    for record in left:
        records.stop(record)
    return dumps(NodeEngines(engines=reports))


def _of(application: str) -> "list[RunRecord]":
    from glmplan.launchers import records

    return [record for record in records.running() if record.application == application]


def _report(record: "RunRecord") -> EngineReport:
    from glmplan.launchers import health, identity

    said = health.ask(record.endpoint, record.health_path)
    metrics = _metrics(record)
    processing, deferred = metrics.get("requests_processing"), metrics.get("requests_deferred")
    return EngineReport(
        replica_pid=record.supervisor.pid,
        pid=record.process.pid,
        port=record.endpoint.port,
        engine=record.engine,
        state=said.readiness.value,
        resident_bytes=identity.resident_bytes(record.process.pid),
        log=record.log,
        requests_processing=None if processing is None else int(processing),
        requests_deferred=None if deferred is None else int(deferred),
        decode_tokens_per_s=metrics.get("decode_tokens_per_s") or None,
    )


def _metrics(record: "RunRecord") -> dict[str, float]:
    """What llama.cpp's own server counts, by our names; nothing of other engines."""
    from glmplan.launchers import health

    text = health.page(record.endpoint, "/metrics") if record.timings else ""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name in _METRICS:
            found[_METRICS[name]] = float(value)
    return found

"""`glmplan cluster status` and `down`: services that glmplan has brought up on Ray clusters."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glmplan.cluster import EngineReport
    from glmplan.cluster_status import ClusterDown, ClusterStatus, NodeStatus, RequestCounts
    from glmplan.launchers.cluster.nodes import Answers, RayNode
    from glmplan.launchers.cluster.service import Served
    from glmplan.launchers.cluster.services import ServiceRecord

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/cluster-status/1).")]
_NAME = typer.Option("--name", help="Which service, by its name; needed when several are up.")


def status(
    name: Annotated[str | None, _NAME] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a service: its replicas by node, their engines, its address, and what is being asked of it."""
    from glmplan.launchers.cluster import services
    from glmplan.launchers.cluster.ray_library import connected

    record = services.choose(name)
    with connected(record.address):
        found = status_of(record)
    show_status(found, as_json=as_json)


def down(
    name: Annotated[str | None, _NAME] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="The cluster is gone for good: only remove what is remembered.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (glmplan/cluster-down/1).")] = False,
) -> None:
    """Take a service down: its replicas and engines end, the Ray cluster and everything else on it stay."""
    from glmplan.cluster_status import ClusterDown
    from glmplan.jsonio import dumps
    from glmplan.launchers.cluster import services
    from glmplan.launchers.cluster.ray_library import connected

    record = services.choose(name)
    if forget:
        services.forget(record)
        report = ClusterDown(name=record.name, address=record.address, engines_ended=0, serve_stopped=False)
    else:
        with connected(record.address):
            report = take_down(record)
    if as_json:
        sys.stdout.write(dumps(report) + "\n")
        return
    left = f", {report.engines_ended} engines that were left have been ended" if report.engines_ended else ""
    serve = "; Ray Serve, which was started for it, has ended too" if report.serve_stopped else ""
    sys.stdout.write(f"{report.name} is down{left}{serve}\n")
    for name_of_node in report.nodes_silent:
        sys.stderr.write(f"warning: node {name_of_node} did not answer; its engines end with its Ray processes\n")


def take_down(record: "ServiceRecord") -> "ClusterDown":
    """Remove the application, end what is left of its engines, and Ray Serve if it was started for it alone."""
    from glmplan.cluster_status import ClusterDown
    from glmplan.commands.cluster_nodes import clear_this_node
    from glmplan.launchers.cluster import service, services
    from glmplan.launchers.cluster.nodes import ask_who_answers, living_nodes

    service.remove(record.name)
    stops_serve = record.started_serve and not service.others(record.name)
    if stops_serve:
        service.shut_down()
    nodes = living_nodes()
    answers = ask_who_answers(clear_this_node, nodes, record.name)
    left = _engines(answers.said)
    services.forget(record)
    return ClusterDown(
        name=record.name,
        address=record.address,
        engines_ended=len(left),
        serve_stopped=stops_serve,
        nodes_silent=tuple(node.name for node in nodes if node.node_id in answers.silent),
    )


def status_of(record: "ServiceRecord") -> "ClusterStatus":
    """The service as Ray Serve, its front and the nodes see it now."""
    from glmplan.cluster_status import ClusterStatus
    from glmplan.commands.cluster_nodes import engines_on_this_node
    from glmplan.launchers.cluster import service
    from glmplan.launchers.cluster.nodes import ask_who_answers, living_nodes

    served = service.look(record.name)
    nodes = living_nodes()
    answers = None if served is None else ask_who_answers(engines_on_this_node, nodes, record.name)
    counted = None if served is None else service.counts(record.name)
    rows = [] if served is None or answers is None else _nodes(served, nodes, answers)
    reports = [replica.engine for row in rows for replica in row.replicas if replica.engine is not None]
    rates = [report.decode_tokens_per_s for report in reports if report.decode_tokens_per_s is not None]
    deferred = [report.requests_deferred for report in reports if report.requests_deferred is not None]
    return ClusterStatus(
        name=record.name,
        address=record.address,
        url=record.url,
        model=record.application.alias,
        api_key_file=record.api_key_file,
        started_at=record.started_at,
        state="ABSENT" if served is None else served.status,
        message="Ray Serve knows it no more" if served is None else served.message,
        replicas_running=0 if served is None else served.running(),
        replicas_wanted=sum(group.replicas.least for group in record.application.groups),
        nodes=tuple(rows),
        requests=None if counted is None else _counts(counted),
        waiting=sum(deferred) if deferred else None,
        decode_tokens_per_s=sum(rates) if rates else None,
    )


def _counts(counted: Mapping[str, int]) -> "RequestCounts":
    from glmplan.cluster_status import RequestCounts

    return RequestCounts(
        under_way=counted["under_way"],
        answered=counted["answered"],
        retried=counted["retried"],
        broken=counted["broken"],
    )


def _engines(answers: Mapping[str, str]) -> "dict[tuple[str, int], EngineReport]":
    """Engines by node id and process of their replica."""
    from glmplan.cluster import NodeEngines
    from glmplan.jsonio import loads

    return {
        (node_id, engine.replica_pid): engine
        for node_id, text in answers.items()
        for engine in loads(NodeEngines, text, origin=f"node {node_id}").engines
    }


def _nodes(served: "Served", nodes: "Sequence[RayNode]", answers: "Answers") -> "list[NodeStatus]":
    """Every node that has a replica, also one that Ray has lost."""
    from glmplan.cluster_status import NodeStatus, ReplicaStatus
    from glmplan.launchers.cluster.application import FRONT

    engines = _engines(answers.said)
    names = {node.node_id: node.name for node in nodes}
    replicas = [replica for replica in served.replicas if replica.group != FRONT]
    return [
        NodeStatus(
            name=names.get(node_id, "not placed yet" if not node_id else "gone"),
            ray_node_id=node_id,
            alive=node_id in names and node_id not in answers.silent,
            message=answers.silent.get(node_id, ""),
            replicas=tuple(
                ReplicaStatus(
                    replica_id=replica.replica_id,
                    group=replica.group,
                    state=replica.state,
                    engine=engines.get((node_id, replica.pid or -1)),
                )
                for replica in replicas
                if replica.node_id == node_id
            ),
        )
        for node_id in dict.fromkeys(replica.node_id for replica in replicas)
    ]


def show_status(found: "ClusterStatus", *, as_json: bool) -> None:
    """Print a service on stdout."""
    if as_json:
        from glmplan.jsonio import dumps

        sys.stdout.write(dumps(found) + "\n")
        return
    from glmplan.render.cluster import status_lines

    sys.stdout.write("\n".join(status_lines(found)) + "\n")

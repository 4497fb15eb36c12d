"""`glmplan cluster up`: deploy a cluster plan through Ray Serve; a service that is up is changed replica by replica."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from glmplan.commands.cluster_plan import AddressOption
from glmplan.commands.cluster_service import JsonOption, show_status, status_of, take_down
from glmplan.commands.numbers import finite
from glmplan.errors import ClusterError, GlmplanError, InputError, PlanFileError, StalePlan

if TYPE_CHECKING:
    from glmplan.cluster import ClusterPlan, NodePlan, Readiness
    from glmplan.launchers.cluster.application import Application, KeyDigest
    from glmplan.launchers.cluster.groups import Scaling
    from glmplan.launchers.cluster.nodes import RayNode
    from glmplan.launchers.cluster.services import ServiceRecord

DEFAULT_PORT: Final = 8000
_START_S: Final = 120.0


def up(
    plan_file: Annotated[
        Path | None, typer.Argument(metavar="[PLAN]", help="A cluster plan of this Ray cluster; none: plan it now.")
    ] = None,
    address: AddressOption = None,
    name: Annotated[str, typer.Option(help="Name of the application in Ray Serve.")] = "glmplan",
    host: Annotated[
        str, typer.Option(help="Address to listen on, on the head node; beyond loopback an API key is demanded.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = DEFAULT_PORT,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file with the API key clients must send (or GLMPLAN_API_KEY)."),
    ] = None,
    min_replicas: Annotated[
        int | None, typer.Option(min=1, help="Replicas kept when nobody asks; default: all that are planned.")
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, help="Replicas at most; default: all that are planned.")
    ] = None,
    target_ongoing: Annotated[
        float | None,
        typer.Option(
            callback=finite, min=0.1, help="Requests per replica that autoscaling aims at; default: 0.8 of its users."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            callback=finite, metavar="SECONDS", help="How long it may take; default: by the size of the file."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a service up on a Ray cluster, or change one that is up; what was up stays up if the change fails."""
    from glmplan.launchers.cluster import services
    from glmplan.launchers.cluster.groups import Scaling
    from glmplan.launchers.cluster.ray_library import connected
    from glmplan.launchers.process import load_deadline_s

    made = None if plan_file is None else load_cluster_plan(plan_file)
    scaling = Scaling(least=min_replicas, most=max_replicas, target_ongoing=target_ongoing)
    with connected(address) as at:
        if made is None:
            made = _plan_now()
        before = services.find(name)
        record = _record(at, _application(made, name, scaling), before, (host, port), api_key_file)
        _bring_up(record, before, timeout or _START_S + load_deadline_s(made.model.file_bytes))
        found = status_of(record)
    show_status(found, as_json=as_json)


def load_cluster_plan(path: Path) -> "ClusterPlan":
    """The cluster plan in the file at `path`.

    Raises:
        PlanFileError: it cannot be read or is none.
    """
    import json

    from glmplan.cluster import ClusterPlan
    from glmplan.jsonio import loads, to_jsonable
    from glmplan.plan_schema import violations

    hint = "glmplan cluster plan -o FILE writes one"
    try:
        made = loads(ClusterPlan, path.read_text(encoding="utf-8"), origin=str(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"cannot read the cluster plan {path}: {why}"
        raise PlanFileError(message, hint=hint) from error
    except InputError as error:
        raise PlanFileError(error.message, hint=hint) from error
    for node in made.nodes:
        for slots in node.slots:
            wrong = next(violations(json.loads(json.dumps(to_jsonable(slots.plan)))), None)
            if wrong is not None:
                message = f"{path}: the plan of {node.name}: {wrong}"
                raise PlanFileError(message, hint=hint)
    return made


def _plan_now() -> "ClusterPlan":
    from glmplan.commands.cluster_nodes import nodes_of_cluster
    from glmplan.commands.cluster_plan import make_cluster_plan

    return make_cluster_plan(nodes_of_cluster(engine=None))


def _application(made: "ClusterPlan", name: str, scaling: "Scaling") -> "Application":
    """What Ray Serve is to deploy: every node has said that it can.

    Raises:
        StalePlan: a node of the plan is gone.
        ClusterError: a node lacks the file or the engine.
    """
    from glmplan.launchers.cluster.application import Application
    from glmplan.launchers.cluster.groups import groups_of
    from glmplan.launchers.cluster.nodes import living_nodes

    used = [node for node in made.nodes if node.slots]
    living = {node.node_id: node for node in living_nodes()}
    gone = [node.name for node in used if node.ray_node_id is not None and node.ray_node_id not in living]
    if gone:
        message = f"the plan was made for nodes that are not in the cluster any more: {', '.join(gone)}"
        raise StalePlan(
            message, hint="glmplan cluster plan -o FILE plans the cluster as it is", facts={"gone": [*gone]}
        )
    ready = _prepared(used, living)
    cpus = {node_id: node.num_cpus for node_id, node in living.items()}
    return Application(groups=groups_of(made, ready, cpus, scaling), name=name)


def _prepared(used: "list[NodePlan]", living: "Mapping[str, RayNode]") -> "dict[str, Readiness]":
    """File and engine on every node that is to run replicas; asked before anything is changed."""
    from glmplan.cluster import Readiness
    from glmplan.commands.cluster_nodes import prepare_this_node
    from glmplan.jsonio import dumps, loads
    from glmplan.launchers.cluster.nodes import ask_nodes

    ready: dict[str, Readiness] = {}
    problems: list[tuple[str, Readiness]] = []
    for node in used:
        if node.ray_node_id is None:
            continue  # refused with the groups
        text = dumps(node.slots[0].plan)
        answer = ask_nodes(prepare_this_node, [living[node.ray_node_id]], text)[node.ray_node_id]
        ready[node.ray_node_id] = found = loads(Readiness, answer, origin=f"node {node.name}")
        if found.problem is not None:
            problems.append((node.name, found))
    if problems:
        said = "; ".join(f"{name}: {found.problem}" for name, found in problems)
        message = f"nothing was changed: {len(problems)} of {len(used)} nodes cannot run the plan: {said}"
        raise ClusterError(message, hint=problems[0][1].hint, facts={name: found.problem for name, found in problems})
    return ready


def _record(
    at: str,
    application: "Application",
    before: "ServiceRecord | None",
    listen: tuple[str, int],
    api_key_file: Path | None,
) -> "ServiceRecord":
    """The service as it will be remembered, with its key; Ray Serve runs when this returns.

    Raises:
        InputError: the name is taken, the key file cannot be used, or Ray Serve listens elsewhere.
    """
    from glmplan.commands.launching import endpoint_for
    from glmplan.launchers import records
    from glmplan.launchers.cluster import service, services

    others = service.others(application.name)
    if before is not None and before.address != at:
        message = f"a service called {application.name} is up on the cluster at {before.address}"
        raise InputError(message, hint="--name another, or glmplan cluster down first")
    if before is None and service.look(application.name) is not None:
        message = f"Ray Serve runs an application called {application.name} that glmplan did not bring up"
        raise InputError(message, hint="--name another")
    listener = service.Listener(host=listen[0], port=listen[1])
    service.require_listener(listener)  # before a key is made
    kept = before.api_key_file if before is not None and api_key_file is None else None
    endpoint = endpoint_for(*listen, api_key_file if kept is None else Path(kept))
    key = endpoint.api_key()
    started = service.start(listener)
    prefix = before.route_prefix if before is not None else f"/{application.name}" if others else "/"
    return services.ServiceRecord(
        address=at,
        host=endpoint.host,
        port=endpoint.port,
        route_prefix=prefix,
        application=replace(application, key=_digest(key, before)),
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        started_serve=started or (before is not None and before.started_serve),
        api_key_file=endpoint.api_key_file,
        owns_key=endpoint.api_key_file is not None and Path(endpoint.api_key_file).parent == records.folder(),
    )


def _digest(key: str | None, before: "ServiceRecord | None") -> "KeyDigest | None":
    """What the front knows `key` by; the same as before for the same key, so that the front need not be replaced."""
    from glmplan.launchers.cluster.application import KeyDigest

    if key is None:
        return None
    known = None if before is None else before.application.key
    return known if known is not None and known.matches(key) else KeyDigest.of(key)


def _bring_up(record: "ServiceRecord", before: "ServiceRecord | None", limit_s: float) -> None:
    """Deploy and wait; a change that fails is taken back.

    Raises:
        ClusterError: it failed; says what is up now.
    """
    from glmplan.launchers.cluster import service, services
    from glmplan.render.progress import ProgressLine

    services.write(record)
    wanted = sum(group.replicas.least for group in record.application.groups)
    sys.stderr.write(f"deploying {wanted} replicas to the Ray cluster at {record.address}\n")
    with ProgressLine() as line:
        try:
            service.deploy(record.application, record.route_prefix)
            service.wait_until_running(
                record.name,
                limit_s=limit_s,
                on_progress=lambda at: line.show(f"{at.status}: {at.running()} of {wanted} replicas answer"),
            )
        except (GlmplanError, KeyboardInterrupt) as error:
            line.clear()
            if before is None:
                take_down(record)
                raise
            raise _changed_back(before, error, limit_s) from error


def _changed_back(before: "ServiceRecord", error: BaseException, limit_s: float) -> BaseException:
    """Go back to what was up before; the error to raise says so."""
    from glmplan.launchers.cluster import service, services

    services.write(before)
    service.deploy(before.application, before.route_prefix)
    try:
        service.wait_until_running(before.name, limit_s=limit_s, on_progress=lambda _: None)
    except ClusterError as second:
        message = f"{error}; going back to what was up before failed too: {second.message}"
        return ClusterError(message, hint="glmplan cluster status")
    if not isinstance(error, GlmplanError):
        return error
    message = f"the change was refused, and what was up before is up: {error.message}"
    return ClusterError(message, hint=error.hint, facts=error.facts)

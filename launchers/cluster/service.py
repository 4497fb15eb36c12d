"""Driving Ray Serve: bring an application up, look at it, take it down; other applications stay as they are."""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from glmplan.errors import ClusterError, InputError
from glmplan.launchers.cluster import ray_library
from glmplan.launchers.cluster.application import FRONT, Application
from glmplan.launchers.cluster.replica import application_of
from glmplan.noun import noun

# Ray Serve's controller, an actor; its details are what Ray's dashboard shows, which need not run.
_CONTROLLER: Final = "SERVE_CONTROLLER_ACTOR"
_NAMESPACE: Final = "serve"
_POLL_S: Final = 0.5
_FAILED: Final = "DEPLOY_FAILED"


@noun
class ServedReplica:
    """One replica as Ray Serve knows it; `state` is its word (STARTING, RUNNING, STOPPING, ...)."""

    replica_id: str
    group: str
    node_id: str
    state: str
    pid: int | None


@noun
class Served:
    """One application as Ray Serve knows it; `message` is empty or why it is not well."""

    status: str
    message: str
    replicas: tuple[ServedReplica, ...]

    def running(self) -> int:
        """Replicas that answer."""
        return sum(replica.state == "RUNNING" and replica.group != FRONT for replica in self.replicas)


@noun
class Listener:
    """Where Ray Serve takes requests."""

    host: str
    port: int


def listener() -> Listener | None:
    """The address of the Ray Serve that runs on the connected cluster; None when none does."""
    details = _details()
    options: Mapping[str, Any] = {} if details is None else details.get("http_options") or {}
    return Listener(host=str(options["host"]), port=int(options["port"])) if options else None


def require_listener(wanted: Listener) -> None:
    """Prove that Ray Serve does not run, or listens at `wanted`.

    Raises:
        InputError: it runs and listens elsewhere.
    """
    there = listener()
    if there is not None and there != wanted:
        message = f"Ray Serve runs already on this cluster and listens on {there.host}:{there.port}"
        raise InputError(message, hint=f"--host {there.host} --port {there.port}, or stop it: serve shutdown")


def start(wanted: Listener) -> bool:
    """Start Ray Serve at `wanted` if it does not run; whether it was started."""
    if listener() is not None:
        return False
    ray_library.serve().start(http_options={"host": wanted.host, "port": wanted.port, "location": "HeadOnly"})
    return True


def deploy(wanted: Application, route_prefix: str) -> None:
    """Ask for `wanted`; an application of that name is changed to it, replica by replica."""
    serve = ray_library.serve()
    target = serve.RunTarget(application_of(wanted), name=wanted.name, route_prefix=route_prefix)
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def wait_until_running(name: str, *, limit_s: float, on_progress: Callable[[Served], None]) -> Served:
    """Wait until every replica of the application answers.

    Raises:
        ClusterError: it failed, with what the replicas said, or it is not there in time.
    """
    began = time.monotonic()
    while True:
        served = look(name)
        if served is not None and served.status == "RUNNING":
            return served
        elapsed_s = time.monotonic() - began
        if served is not None and served.status == _FAILED:
            message = f"Ray Serve could not bring up {name}: {served.message or served.status}"
            raise ClusterError(message, hint="glmplan cluster status; the replicas' logs are on their nodes")
        if elapsed_s > limit_s:
            state = "not known to Ray Serve" if served is None else f"{served.status} with {served.running()} replicas"
            message = f"{name} is not up after {elapsed_s:.0f} s: {state}"
            raise ClusterError(message, hint="give it longer with --timeout SECONDS, or look: glmplan cluster status")
        if served is not None:
            on_progress(served)
        time.sleep(_POLL_S)


def look(name: str) -> Served | None:
    """The application as it is now; None when Ray Serve knows none of that name."""
    details = _details()
    application: Mapping[str, Any] | None = None if details is None else details["applications"].get(name)
    if application is None:
        return None
    deployments: Mapping[str, Mapping[str, Any]] = application["deployments"]
    messages = [*(row.get("message") for row in deployments.values()), application.get("message")]
    return Served(
        status=_word(application["status"]),
        message=next((_last_line(text) for text in messages if text), ""),
        replicas=tuple(
            ServedReplica(
                replica_id=str(row["replica_id"]),
                group=group,
                node_id=str(row.get("node_id") or ""),
                state=_word(row["state"]),
                pid=row.get("pid"),
            )
            for group, deployment in deployments.items()
            for row in deployment["replicas"]
        ),
    )


def counts(name: str) -> Mapping[str, int] | None:
    """What the front of the application counts; None when it does not answer."""
    with contextlib.suppress(Exception):  # of Ray: the application may be gone or starting
        handle = ray_library.serve().get_app_handle(name)
        answer: Mapping[str, int] = handle.counts.remote().result(timeout_s=10)
        return answer
    return None


def remove(name: str) -> None:
    """Take the application down and wait until its replicas have ended."""
    ray_library.serve().delete(name)


def others(name: str) -> tuple[str, ...]:
    """Applications of Ray Serve beside this one."""
    details = _details()
    return () if details is None else tuple(other for other in details["applications"] if other != name)


def shut_down() -> None:
    """End Ray Serve, with all its applications."""
    ray_library.serve().shutdown()


def _details() -> Mapping[str, Any] | None:
    """Everything Ray Serve tells of itself; None when it does not run."""
    ray = ray_library.ray()
    try:
        controller = ray.get_actor(_CONTROLLER, namespace=_NAMESPACE)
    except ValueError:
        return None
    details: Mapping[str, Any] = ray.get(controller.get_serve_instance_details.remote(), timeout=30)
    return details


def _word(value: object) -> str:
    """A state's own word, of Ray's enumerations or of plain text."""
    return str(getattr(value, "value", value))


def _last_line(text: str) -> str:
    """The end of a traceback is what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""

"""A replica: one engine of the node it runs on, and the way to it. `build` makes the application for Ray Serve.

`import_path: glmplan.launchers.cluster.replica:build` with the `args` of `application.Application`: importable on every
node from the installed wheel. Requests come through the front (`front`), which tries another replica when this one
fails before it has answered anything.
"""

import asyncio
import inspect
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from glmplan import jsonio
from glmplan.errors import EngineError
from glmplan.launchers import health, records
from glmplan.launchers.cluster import ray_library
from glmplan.launchers.cluster.application import (
    FRONT,
    HEALTH_CHECK_PERIOD_S,
    HEALTH_CHECK_TIMEOUT_S,
    Application,
    ReplicaGroup,
    deployment_options,
)
from glmplan.launchers.cluster.front import Front
from glmplan.launchers.cluster.kept_engine import kept_engine
from glmplan.launchers.cluster.messages import EngineLost, Head, Request
from glmplan.launchers.identity import own_identity
from glmplan.launchers.process import WHILE_SERVING, EngineProcess
from glmplan.launchers.records import RunRecord

_EXIT_ENGINE_ENDED: Final = 77
_HEALTH_S: Final = 5.0
# Headers that belong to one connection, and those that the way through Ray makes wrong.
_NOT_PASSED_ON: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "authorization", "upgrade", "te"}
)


class Replica:
    """One engine, started with the replica and ended with it; Ray Serve makes one object of this per replica."""

    def __init__(self, application: str, alias: str, group: str) -> None:
        """Start the engine of `group`, a `ReplicaGroup` as JSON, and wait until it answers.

        Raises:
            EngineError: it cannot be started, died, or did not answer in time.
            InputError: the model file is not on this node or not whole.
        """
        import httpx

        self._record: RunRecord | None = None
        made = jsonio.loads(ReplicaGroup, group, origin="the application's args")
        self._kept = kept_engine(made.plan, made.engine, alias, self._leave)
        running = self._kept.running
        self._record = _record(application, made, running)
        records.write(self._record)
        self._client = httpx.AsyncClient(
            base_url=running.launch.endpoint.url,
            timeout=httpx.Timeout(None, connect=_HEALTH_S),
            # A connection kept open is one the engine may close just as the next request is sent.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )

    async def check_health(self) -> None:
        """Ray Serve asks; three times without a good answer and it replaces this replica.

        Raises:
            EngineError: the engine is gone or silent.
        """
        running = self._kept.running
        if self._kept.has_ended:
            raise running.failed(WHILE_SERVING)
        endpoint, path = running.launch.endpoint, running.launch.health_path
        answer = await asyncio.to_thread(health.ask, endpoint, path, timeout_s=_HEALTH_S)
        if answer.readiness is not health.Readiness.READY:
            message = f"the engine does not answer: {answer.text or answer.readiness}"
            raise EngineError(message, hint=f"its log on this node: {running.log}")

    async def forward(self, request: Request) -> AsyncGenerator[Head | bytes]:
        """Send `request` to the engine: first the head of its answer, then the body in the pieces it comes in.

        Raises:
            EngineLost: the engine broke off, before or after the head.
        """
        import httpx

        sent = self._client.build_request(
            request.method, request.target, headers=list(request.headers), content=request.body
        )
        try:
            response = await self._client.send(sent, stream=True)
            try:
                yield Head(status=response.status_code, headers=_passed_on(response.headers))
                async for piece in response.aiter_raw():
                    yield piece
            finally:
                # Also when the client has gone: the engine then stops writing.
                await response.aclose()
        except httpx.HTTPError as error:
            message = f"the engine broke off: {str(error) or type(error).__name__}"
            raise EngineLost(message) from error

    def _leave(self, error: EngineError) -> None:
        """The engine has ended: so does this process, and Ray Serve starts another at once."""
        sys.stderr.write(f"{error.message}\n")
        sys.stderr.flush()
        self._forget()
        os._exit(_EXIT_ENGINE_ENDED)

    def _forget(self) -> None:
        if self._record is not None:
            records.forget(self._record)

    def __del__(self) -> None:
        """Ray Serve stops this replica."""
        kept = getattr(self, "_kept", None)
        if kept is not None:
            kept.stop()
            self._forget()


def _passed_on(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON)


def _record(application: str, group: ReplicaGroup, running: EngineProcess) -> RunRecord:
    """What this node remembers of the engine, as of one that `glmplan run` started."""
    plan = group.plan
    endpoint = running.launch.endpoint
    return RunRecord(
        endpoint=endpoint,
        engine=group.engine.kind.value,
        engine_version=group.engine.version,
        process=running.identity,
        supervisor=own_identity(),
        detached=True,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        model=endpoint.alias,
        quantization=plan.model.quantization,
        synthetic=plan.model.synthetic,
        n_ctx=plan.placement.n_ctx,
        log=str(running.log),
        health_path=running.launch.health_path,
        timings=running.launch.timings,
        application=application,
    )


def build(args: Mapping[str, Any]) -> Any:  # noqa: ANN401 - Ray's own type
    """The Ray Serve application of `args`, an `Application` as plain values.

    Raises:
        InputError: `args` is none.
        ClusterError: Ray is not installed.
    """
    return application_of(jsonio.loads(Application, json.dumps(dict(args)), origin="the application's args"))


def application_of(wanted: Application) -> Any:  # noqa: ANN401 - Ray's own type
    """The Ray Serve application: a front on the head node, and one deployment for every group of replicas."""
    serve = ray_library.serve()
    handles = {
        group.name: serve.deployment(Replica)
        .options(name=group.name, **deployment_options(group))
        .bind(wanted.name, wanted.alias, jsonio.dumps(group))
        for group in wanted.groups
    }
    users = {group.name: group.users_each for group in wanted.groups}
    key = None if wanted.key is None else jsonio.dumps(wanted.key)
    front = serve.deployment(Front).options(name=FRONT, **front_options(serve))
    return front.bind(wanted.name, key, wanted.key_file, users, handles)


def front_options(serve: Any) -> dict[str, Any]:  # noqa: ANN401 - the library has no types here
    """The options of the front, on the head node where its address is: losing another loses no client's connection."""
    options: dict[str, Any] = {
        "num_replicas": 1,
        "max_ongoing_requests": 10_000,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        "graceful_shutdown_timeout_s": 20.0,
        "ray_actor_options": {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    }
    # A new front answers before the old one leaves, where Ray Serve can (2.60).
    surge = "max_surge_percent"
    return options | ({surge: 100} if surge in inspect.signature(serve.deployment).parameters else {})

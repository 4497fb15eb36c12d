"""What a person is told of a service on a cluster: brought up, how it is, taken down."""

from typing import Literal

from glmplan.cluster import EngineReport
from glmplan.noun import noun


@noun
class ReplicaStatus:
    """One replica; `state` is Ray Serve's word, `engine` what its node says of the engine (None: nothing)."""

    replica_id: str
    group: str
    state: str
    engine: EngineReport | None


@noun
class NodeStatus:
    """One node and its replicas; `alive` if Ray has it and it answers, else `message` may say why not."""

    name: str
    ray_node_id: str
    alive: bool
    message: str
    replicas: tuple[ReplicaStatus, ...]


@noun
class RequestCounts:
    """Requests by the front's count: being answered now, answered, asked again of another replica, broken off."""

    under_way: int
    answered: int
    retried: int
    broken: int


@noun
class ClusterStatus:
    """One service; `state` is Ray Serve's word for it, or ABSENT, `message` why it is not well.

    `waiting` are requests that an engine holds back for want of a slot, `decode_tokens_per_s` the engines' own rates
    together; None where no engine counts.
    """

    schema: Literal["glmplan/cluster-status/1"] = "glmplan/cluster-status/1"
    name: str
    address: str
    url: str
    model: str
    api_key_file: str | None
    started_at: str
    state: str
    message: str
    replicas_running: int
    replicas_wanted: int
    nodes: tuple[NodeStatus, ...]
    requests: RequestCounts | None
    waiting: int | None
    decode_tokens_per_s: float | None


@noun
class ClusterDown:
    """What was taken down; `engines_ended` were left behind by their replicas, `serve_stopped`: Ray Serve ended too.

    `nodes_silent` did not answer when they were asked what is left there.
    """

    schema: Literal["glmplan/cluster-down/1"] = "glmplan/cluster-down/1"
    name: str
    address: str
    engines_ended: int
    serve_stopped: bool
    nodes_silent: tuple[str, ...] = ()

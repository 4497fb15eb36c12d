"""What a Ray Serve application of ours is made of: plain values, as they stand in a configuration file's `args`.

Args:
alias: glm-4.7-flash
key: null                 # or {salt, sha256}: a digest; the key itself is nowhere in the cluster
groups:
- name: q4-K-M-on-rtx-3090
plan: {...}             # glmplan/plan/1 of one replica
engine: {...}           # the build that was found on its nodes
users_each: 3
replicas: {least: 2, most: 2}
...
"""

import hashlib
import hmac
import secrets
from typing import Any, Final

from glmplan.engine import Engine
from glmplan.launchers.launch import ALIAS
from glmplan.noun import noun
from glmplan.plan import Plan

DEFAULT_NAME: Final = "glmplan"
FRONT: Final = "Front"
REPLICA_METHOD: Final = "forward"
IMPORT_PATH: Final = "glmplan.launchers.cluster.replica:build"
HEALTH_CHECK_PERIOD_S: Final = 2.0
HEALTH_CHECK_TIMEOUT_S: Final = 10.0


@noun
class KeyDigest:
    """What a key is recognised by: SHA-256 of a random salt and the key, both in hexadecimal."""

    salt: str
    sha256: str

    @classmethod
    def of(cls, key: str) -> "KeyDigest":
        """The digest of `key` with a new salt."""
        salt = secrets.token_hex(16)
        return cls(salt=salt, sha256=_digest(salt, key))

    def matches(self, key: str) -> bool:
        """Whether `key` is the one; takes the same time whatever is wrong with it."""
        return hmac.compare_digest(_digest(self.salt, key), self.sha256)


def _digest(salt: str, key: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + key.encode("utf-8", "surrogateescape")).hexdigest()


@noun
class ReplicaBounds:
    """How many replicas Ray Serve keeps; `target_ongoing` requests per replica make it start or stop one between."""

    least: int
    most: int
    target_ongoing: float | None = None


@noun
class ReplicaGroup:
    """Equal replicas: one Ray Serve deployment.

    `node_ids` are the Ray nodes they may run on (empty: any), `most_per_node` how many on each; `node_resource` is a
    resource of Ray's that such nodes were given at their start, one for each replica. `num_gpus` is what
    Ray reserves for one, below 1 when several share a GPU.
    """

    name: str
    plan: Plan
    engine: Engine
    users_each: int
    replicas: ReplicaBounds
    num_cpus: float
    num_gpus: float = 0.0
    node_ids: tuple[str, ...] = ()
    node_resource: str | None = None
    most_per_node: int | None = None


@noun
class Application:
    """A whole service: its name in Ray Serve, how clients call the model, and its replicas.

    The key clients must send is known by a digest, or read on the head node from `key_file`.
    """

    groups: tuple[ReplicaGroup, ...]
    name: str = DEFAULT_NAME
    alias: str = ALIAS
    key: KeyDigest | None = None
    key_file: str | None = None


def deployment_options(group: ReplicaGroup) -> dict[str, Any]:
    """The options of one group's deployment, as in a configuration file."""
    bounds = group.replicas
    actor: dict[str, Any] = {"num_cpus": group.num_cpus, "num_gpus": group.num_gpus}
    if group.node_resource is not None:
        actor["resources"] = {group.node_resource: 1}
    if group.node_ids:
        actor["label_selector"] = {"ray.io/node-id": f"in({','.join(group.node_ids)})"}
    options: dict[str, Any] = {
        # Beyond its slots an engine only queues; Ray Serve's own queue gives the next request to whoever is free.
        "max_ongoing_requests": group.users_each,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 20.0,
        "ray_actor_options": actor,
    }
    if group.most_per_node is not None:
        options["max_replicas_per_node"] = group.most_per_node
    if bounds.least == bounds.most:
        return {"num_replicas": bounds.most, **options}
    scaling = {
        "min_replicas": bounds.least,
        "max_replicas": bounds.most,
        "target_ongoing_requests": bounds.target_ongoing or max(1.0, 0.8 * group.users_each),
    }
    return {"autoscaling_config": scaling, **options}

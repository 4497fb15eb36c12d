"""From a cluster plan to groups of replicas, the key's digest, and events that are cut where they may be."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster_plans import cluster_of, on_ray, slots_of
from export_plans import full_gpu

from glmplan import jsonio
from glmplan.cluster import ClusterPlan, NodePlan, Readiness
from glmplan.engine import Engine, EngineKind
from glmplan.errors import InputError
from glmplan.launchers.cluster.application import Application, KeyDigest, ReplicaGroup, deployment_options
from glmplan.launchers.cluster.front import Front
from glmplan.launchers.cluster.groups import Scaling, groups_of
from glmplan.launchers.cluster.messages import Head
from glmplan.launchers.cluster.routes import Answer

ENGINE = Engine(kind=EngineKind.XLLAMACPP, path="/usr/bin/python3", version="1", flags=frozenset({"--fit"}))
AS_PLANNED = Scaling()


def groups(made: ClusterPlan, scaling: Scaling = AS_PLANNED, **files: str) -> tuple[ReplicaGroup, ...]:
    ids = [node.ray_node_id or "" for node in made.nodes]
    ready = {name: Readiness(file=files.get(name, "/models/tiny.gguf"), engine=ENGINE) for name in ids}
    return groups_of(made, ready, dict.fromkeys(ids, 8.0), scaling)


@pytest.fixture
def three(tiny_gguf: Path) -> ClusterPlan:
    return on_ray(tiny_gguf, ["aa", "bb", "cc"])


def test_equal_replicas_are_one_group(three: ClusterPlan) -> None:
    (group,) = groups(three)
    assert (group.replicas.least, group.replicas.most, group.most_per_node) == (3, 3, 1)
    assert group.node_ids == ("aa", "bb", "cc")
    assert group.plan.model.file == "/models/tiny.gguf"
    options = deployment_options(group)
    assert options["num_replicas"] == 3
    assert options["max_ongoing_requests"] == group.users_each
    assert options["ray_actor_options"]["label_selector"] == {"ray.io/node-id": "in(aa,bb,cc)"}


def test_another_file_path_is_another_group(three: ClusterPlan) -> None:
    found = groups(three, bb="/data/tiny.gguf")
    assert sorted(len(group.node_ids) for group in found) == [1, 2]
    assert len({group.name for group in found}) == 2


def test_a_share_of_a_gpu_is_what_ray_reserves() -> None:
    plan = full_gpu()
    node = NodePlan(
        name="big", count=1, machine=plan.machine, ray_node_id="aa",
        slots=(slots_of(plan, replicas=3, gpus_each=1 / 3, cores=2),),
    )  # fmt: skip
    (group,) = groups(cluster_of([node]))
    assert group.num_gpus == pytest.approx(1 / 3, abs=1e-3)
    assert 3 * group.num_gpus <= 1
    assert (group.replicas.most, group.most_per_node, group.num_cpus) == (3, 3, 2)


def test_scaling_shares_out_what_is_wanted(three: ClusterPlan) -> None:
    found = groups(three, Scaling(least=2, most=3, target_ongoing=2.5), bb="/data/tiny.gguf")
    assert sum(group.replicas.least for group in found) == 2
    assert sum(group.replicas.most for group in found) == 3
    scaled = next(deployment_options(group) for group in found if group.replicas.most == 2)
    assert scaled["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2.5}
    assert "num_replicas" not in scaled


@pytest.mark.parametrize("scaling", [Scaling(most=4), Scaling(least=3, most=2), Scaling(least=1, most=1)])
def test_impossible_numbers_are_refused(three: ClusterPlan, scaling: Scaling) -> None:
    with pytest.raises(InputError, match="3 are planned, in 2 groups"):
        groups(three, scaling, bb="/data/tiny.gguf")


def test_a_plan_of_no_ray_cluster_is_refused(three: ClusterPlan) -> None:
    nodes = tuple(dataclasses.replace(node, ray_node_id=None) for node in three.nodes)
    with pytest.raises(InputError, match="not of a Ray cluster"):
        groups_of(dataclasses.replace(three, nodes=nodes), {}, {}, Scaling())


def test_unlike_gpus_on_one_node_are_refused() -> None:
    plan = full_gpu()
    slots = (slots_of(plan, gpus_each=1), slots_of(plan, gpus_each=1))
    node = NodePlan(name="mixed", count=1, machine=plan.machine, ray_node_id="aa", slots=slots)
    with pytest.raises(InputError, match="unlike GPUs"):
        groups(cluster_of([node]))


def test_an_application_reads_back_from_plain_values(three: ClusterPlan) -> None:
    wanted = Application(groups=groups(three), key=KeyDigest.of("secret"))
    text = json.dumps(jsonio.to_jsonable(wanted))
    assert "secret" not in text
    assert jsonio.loads(Application, text, origin="test") == wanted


def test_a_digest_knows_its_key_alone() -> None:
    digest = KeyDigest.of("one")
    assert digest.matches("one")
    assert not digest.matches("two")
    assert not digest.matches("\udcff")
    assert KeyDigest.of("one") != digest


def streamed(pieces: list[bytes | Exception], *, anthropic: bool = False) -> list[bytes]:
    """What a client gets of a stream in these pieces; the first is read before the answer counts as begun."""

    async def given() -> AsyncIterator[Head | bytes]:
        yield Head(status=200, headers=(("Content-Type", "text/event-stream"),))
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    class Pieces:
        def __init__(self) -> None:
            self._pieces = given()

        def __aiter__(self) -> AsyncIterator[Head | bytes]:
            return self._pieces

        def __anext__(self) -> Any:
            return anext(self._pieces)

        def cancel(self) -> None:
            pass

    async def client() -> list[bytes]:
        front = Front("app", None, None, {"group": 4}, {})
        answer = Answer("group", Pieces())
        await answer.begin()
        front.routes.under_way["group"] = 1
        got = [event async for event in front.events(answer, anthropic=anthropic)]
        assert front.routes.under_way["group"] == 0
        return got

    return asyncio.run(client())


def test_events_pass_as_they_come() -> None:
    assert streamed([b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n"]) == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n"]


def test_half_an_event_waits_for_its_end() -> None:
    assert streamed([b"data: 1\n\nda", b"ta: 2\r\n\r\n", b"data: 3"]) == [
        b"data: 1\n\n", b"data: 2\r\n\r\n", b"data: 3",
    ]  # fmt: skip


@pytest.mark.parametrize("anthropic", [False, True])
def test_a_stream_that_breaks_off_ends_with_an_error(anthropic: bool) -> None:
    *whole, last = streamed([b"data: 1\n\n", b"data: 2", RuntimeError("the actor died")], anthropic=anthropic)
    assert whole == [b"data: 1\n\n"]
    assert last.startswith(b"event: error\ndata: " if anthropic else b"data: ")
    assert last.endswith(b"\n\n")
    document = json.loads(last.partition(b"data: ")[2])
    assert "the actor died" in document["error"]["message"]

"""One Ray cluster of two nodes for all tests that need one, and the service on it (a pytest plugin)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_plans import on_ray
from ray_cluster import RayCluster

from glmplan.jsonio import dumps


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Two Ray nodes; whatever ran on them is gone when the session ends."""
    cluster = RayCluster(tmp_path_factory.mktemp("ray"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def service(two_nodes: RayCluster, tiny_gguf: Path) -> Iterator[RayCluster]:
    """The cluster with two replicas of the tiny model, one on each node."""
    plan = two_nodes.folder / "cluster.json"
    plan.write_text(dumps(on_ray(tiny_gguf, two_nodes.node_ids())), encoding="utf-8")
    two_nodes.document("up", str(plan), "--port", str(two_nodes.http_port))
    yield two_nodes
    if two_nodes.glmplan("status").returncode == 0:
        two_nodes.document("down")
    assert two_nodes.engines() == []

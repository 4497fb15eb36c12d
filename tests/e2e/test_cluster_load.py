"""A minute of 32 streams at once on two nodes; the bench suite asks for ten."""

import pytest
from cluster_load import engine_urls, run_load
from ray_cluster import RayCluster

pytestmark = [pytest.mark.cluster, pytest.mark.e2e]


def test_a_minute_of_32_streams_loses_and_mixes_up_nothing(service: RayCluster) -> None:
    load = run_load(service, engine_urls(service), 60)
    assert load.failed == []
    assert load.retried == 0
    assert load.answered > 32
    assert load.growth < 0.05
    status = service.document("status")
    assert (status["state"], status["replicas_running"]) == ("RUNNING", 2)
    assert status["requests"]["under_way"] == 0
    assert status["requests"]["answered"] >= load.answered
    assert (status["requests"]["retried"], status["requests"]["broken"]) == (0, 0)

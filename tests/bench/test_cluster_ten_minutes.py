"""Ten minutes of 32 streams at once on two Ray nodes.

By hand, in the environment of constraints-cluster.txt: `pytest -m bench tests/bench/test_cluster_ten_minutes.py -s`.
"""

import pytest
from cluster_load import N_STREAMS, engine_urls, run_load
from ray_cluster import RayCluster

from glmplan.units import format_bytes

pytestmark = pytest.mark.bench


def test_ten_minutes_of_32_streams(service: RayCluster) -> None:
    load = run_load(service, engine_urls(service), 600)
    warm, end = format_bytes(load.warm_bytes), format_bytes(load.end_bytes)
    print(f"\n{N_STREAMS} streams for {load.seconds:.0f} s: {load.answered} answers, {load.retried} asked again")
    print(f"memory {warm} when warm, {end} at the end: {load.growth:+.1%}")
    assert load.failed == []
    assert load.retried == 0
    assert load.growth < 0.05

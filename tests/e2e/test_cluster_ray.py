"""A service on a real Ray cluster of two nodes: up, asked, broken in every way, changed, down. In the order written."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_load import engine_urls
from cluster_plans import on_ray, with_model
from console import wait_until
from ray_cluster import RayCluster
from stream_client import KEY, Crowd, ask, body_of, expected_answers, prompt_of

from glmplan.cluster import ClusterPlan
from glmplan.jsonio import dumps, loads

pytestmark = [pytest.mark.cluster, pytest.mark.e2e]
BACK_S = 60.0


@pytest.fixture(scope="module")
def expected(service: RayCluster) -> dict[str, str]:
    return expected_answers(engine_urls(service), 24)


def plan_in(service: RayCluster) -> ClusterPlan:
    path = service.folder / "cluster.json"
    return loads(ClusterPlan, path.read_text(encoding="utf-8"), origin=str(path))


def write(service: RayCluster, name: str, plan: ClusterPlan) -> str:
    (service.folder / name).write_text(dumps(plan), encoding="utf-8")
    return name


def up(service: RayCluster, *words: str) -> Any:
    return service.glmplan("up", *words, "--port", str(service.http_port), "--json")


def wait_for_two_replicas(service: RayCluster) -> None:
    wait_until(lambda: service.document("status")["replicas_running"] == 2, BACK_S, lambda: "a replica is missing")


def test_the_running_cluster_is_planned_node_by_node(two_nodes: RayCluster) -> None:
    done = two_nodes.glmplan("plan", "--quant", "IQ2_M", "--n-ctx", "4096", "--json")
    document = json.loads(done.stdout)
    if done.returncode == 3:  # less memory than two replicas of the smallest file take
        assert len(document["error"]["facts"]["nodes"]) == 2
        return
    assert done.returncode == 0, done.stderr
    assert document["schema"] == "glmplan/cluster/1"
    assert sorted(node["ray_node_id"] for node in document["nodes"]) == sorted(two_nodes.node_ids())
    for node in document["nodes"]:
        assert any("2 Ray nodes are on" in reason for reason in node["reasons"])
        assert bool(node["slots"]) != bool(node["why_not"])


def test_replicas_are_up_one_on_each_node(service: RayCluster) -> None:
    status = service.document("status")
    assert (status["state"], status["replicas_running"], status["replicas_wanted"]) == ("RUNNING", 2, 2)
    assert len(status["nodes"]) == 2
    for node in status["nodes"]:
        (replica,) = node["replicas"]
        assert node["alive"]
        assert (replica["state"], replica["engine"]["state"]) == ("RUNNING", "ready")
        assert replica["engine"]["resident_bytes"] > 0
    assert [len(service.engines(node=number)) for number in (1, 2)] == [1, 1]


def test_an_answer_is_the_engines_own(service: RayCluster, expected: dict[str, str]) -> None:
    with httpx.Client(timeout=60) as client:
        for prompt, text in list(expected.items())[:4]:
            answer = ask(client, service.url, prompt)
            assert (answer.text, answer.whole, answer.pieces > 5) == (text, True, True)
            whole = client.post(f"{service.url}/v1/completions", json=body_of(prompt, stream=False))
            assert whole.json()["choices"][0]["text"] == text


def test_a_stream_arrives_as_it_is_written(service: RayCluster) -> None:
    body = body_of("w300", 256)
    arrived: list[float] = []
    with httpx.stream("POST", f"{service.url}/v1/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        arrived.extend(time.monotonic() for piece in response.iter_raw() if piece)
    assert len(arrived) > 20
    assert arrived[0] < arrived[len(arrived) // 2] < arrived[-1]


def test_models_and_refusals_pass_through(service: RayCluster) -> None:
    assert httpx.get(f"{service.url}/v1/models", timeout=60).json()["data"][0]["id"] == "glm-4.7-flash"
    assert httpx.get(f"{service.url}/health", timeout=60).json() == {"status": "ok"}
    assert httpx.get(f"{service.url}/metrics", timeout=60).status_code == 404
    refused = httpx.post(f"{service.url}/v1/chat/completions", content=b"{", timeout=60)
    assert refused.status_code in {400, 500}
    assert "error" in refused.json()
    too_long = httpx.post(f"{service.url}/v1/completions", json=body_of("w300 " * 9000), timeout=60)
    assert too_long.status_code == 400


def test_requests_are_spread_over_the_replicas(service: RayCluster, expected: dict[str, str]) -> None:
    before = served(service)
    crowd = Crowd(service.url, expected)
    crowd.start(8)
    crowd.wait_for(40, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    shares = [now - then for now, then in zip(served(service), before, strict=True)]
    assert min(shares) > sum(shares) / 5


def served(service: RayCluster) -> list[float]:
    """Tokens that each engine has written."""
    totals: list[float] = []
    for url in engine_urls(service):
        lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
        totals.append(
            next(float(line.split()[1]) for line in lines if line.startswith("llamacpp:tokens_predicted_total"))
        )
    return totals


def test_a_killed_engine_is_replaced_and_costs_no_answer(service: RayCluster, expected: dict[str, str]) -> None:
    crowd = Crowd(service.url, expected)
    crowd.start(8)
    crowd.wait_for(10, BACK_S)
    (engine,) = service.engines(node=2)
    engine.kill()
    crowd.wait_for(40, BACK_S)
    wait_for_two_replicas(service)
    crowd.wait_for(10, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    assert all("broke off" in said for said in crowd.said)
    assert [len(service.engines(node=number)) for number in (1, 2)] == [1, 1]


def test_a_change_to_a_missing_file_is_refused_before_anything_is_touched(service: RayCluster, tmp_path: Path) -> None:
    before = {process.pid for process in service.engines()}
    bad = write(service, "missing.json", with_model(plan_in(service), tmp_path / "none.gguf"))
    done = up(service, bad)
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "ClusterError"
    assert "nothing was changed" in error["message"]
    assert {process.pid for process in service.engines()} == before


def test_a_change_whose_replicas_cannot_start_is_taken_back(
    service: RayCluster, expected: dict[str, str], tmp_path: Path
) -> None:
    hollow = tmp_path / "hollow.gguf"
    hollow.write_bytes(b"GGUF" + bytes(plan_in(service).model.file_bytes))
    bad = write(service, "hollow.json", with_model(plan_in(service), hollow))
    crowd = Crowd(service.url, expected)
    crowd.start(4)
    done = up(service, bad)
    crowd.wait_for(10, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    assert done.returncode == 4, done.stdout + done.stderr
    assert "what was up before is up" in json.loads(done.stdout)["error"]["message"]
    status = service.document("status")
    assert (status["state"], status["replicas_running"]) == ("RUNNING", 2)


def test_a_change_is_made_replica_by_replica_and_costs_no_answer(
    service: RayCluster, expected: dict[str, str], tiny_gguf: Path
) -> None:
    changed = on_ray(tiny_gguf, [node.ray_node_id or "" for node in plan_in(service).nodes], n_batch=256)
    key = service.folder / "key"
    key.write_text(KEY + "\n", encoding="utf-8")
    before = {process.pid for process in service.engines()}
    crowd = Crowd(service.url, expected)
    crowd.start(4)
    crowd.wait_for(5, BACK_S)
    done = up(service, write(service, "changed.json", changed), "--api-key-file", str(key))
    crowd.wait_for(10, BACK_S)
    crowd.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (crowd.failed, crowd.said) == ([], [])
    now = {process.pid for process in service.engines()}
    assert len(now) == 2
    assert not now & before


def test_with_a_key_only_those_who_have_it_are_answered(service: RayCluster) -> None:
    url, body = f"{service.url}/v1/completions", body_of(prompt_of(1), stream=False)
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    assert httpx.post(url, json=body, headers={"Authorization": "Bearer wrong"}, timeout=60).status_code == 401
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    assert httpx.get(f"{service.url}/health", timeout=60).status_code == 200
    assert KEY not in json.dumps(service.document("status"))
    record = service.home / "state" / "clusters" / "glmplan.json"
    assert KEY not in record.read_text(encoding="utf-8")
    assert record.stat().st_mode & 0o077 == 0


def test_a_killed_node_costs_no_answer_and_leaves_no_engine(service: RayCluster, expected: dict[str, str]) -> None:
    crowd = Crowd(service.url, expected)
    crowd.start(8)
    crowd.wait_for(10, BACK_S)
    service.kill_node(2)
    crowd.wait_for(60, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    assert all("broke off" in said for said in crowd.said)
    wait_until(lambda: service.engines(node=2) == [], BACK_S, lambda: "the lost node's engine still runs")
    # Ray takes its time to call a node dead; requests do not wait for that.
    wait_until(lambda: service.document("status")["replicas_running"] == 1, BACK_S, lambda: "the lost replica counts")
    assert len(service.engines()) == 1


def test_down_leaves_nothing_but_the_cluster(service: RayCluster) -> None:
    report = service.document("down")
    assert (report["engines_ended"], report["serve_stopped"]) == (0, True)
    assert service.engines() == []
    wait_until(
        lambda: service.processes(words="ray::Serve") == [], 30, lambda: "a replica or the controller still runs"
    )
    assert service.processes(words="ray::ProxyActor") == []
    assert len(service.processes(words="raylet/raylet")) == 1
    assert list((service.home / "state" / "clusters").glob("*.json")) == []
    again = service.glmplan("down", "--json")
    assert again.returncode == 2
    service.add_node()

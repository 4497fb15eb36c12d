"""A service on two Ray nodes: an engine that hangs, other applications beside it, clients on other machines.

In the order written.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest
from cluster_load import engine_urls
from console import wait_until, words_of
from ray_cluster import RayCluster
from stream_client import Crowd, body_of, expected_answers, prompt_of

pytestmark = [pytest.mark.cluster, pytest.mark.e2e]
BACK_S: Final = 90.0
_SERVE: Final = "import os, ray; from ray import serve; ray.init(address=os.environ['RAY_ADDRESS']); "
OTHER_UP: Final = (
    _SERVE + "echo = serve.deployment(type('Echo', (), {'__call__': lambda self, request: 'still here'})); "
    "serve.run(echo.options(ray_actor_options={'num_cpus': 0}).bind(), name='other', route_prefix='/other')"
)
OTHER_DOWN: Final = _SERVE + "serve.shutdown()"


def on_ray(service: RayCluster, program: str) -> None:
    """Run a program of Ray Serve against the cluster."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=service.environment, cwd=service.folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_engine_that_hangs_is_replaced_and_costs_no_answer(service: RayCluster) -> None:
    crowd = Crowd(service.url, expected_answers(engine_urls(service), 12))
    crowd.start(4)
    crowd.wait_for(10, BACK_S)
    before = {engine.pid for engine in service.engines()}
    hung = service.engines()[0]
    hung.send_signal(signal.SIGSTOP)
    wait_until(lambda: not hung.is_running(), BACK_S, lambda: f"{hung} hangs, and nobody has noticed")
    wait_until(
        lambda: service.document("status")["replicas_running"] == 2, BACK_S, lambda: "the replica was not replaced"
    )
    crowd.wait_for(20, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    now = {engine.pid for engine in service.engines()}
    assert len(now) == 2
    assert now & before == before - {hung.pid}


def test_down_leaves_other_applications_alone(service: RayCluster) -> None:
    on_ray(service, OTHER_UP)
    other = f"{service.url}/other"
    assert httpx.get(other, timeout=60).text == "still here"
    report = service.document("down")
    assert (report["engines_ended"], report["serve_stopped"]) == (0, False)
    assert service.engines() == []
    assert httpx.get(other, timeout=60).text == "still here"
    # Ray Serve has one address for all: another one is refused, and the other application stays.
    done = service.glmplan("up", "cluster.json", "--port", str(service.http_port), "--host", "0.0.0.0", "--json")
    assert done.returncode == 2
    assert "Ray Serve runs already on this cluster" in json.loads(done.stdout)["error"]["message"]
    assert list((service.home / "state" / "runs").glob("*.key")) == []
    assert httpx.get(other, timeout=60).text == "still here"
    on_ray(service, OTHER_DOWN)


def test_other_machines_need_a_key_that_is_shown_once_and_stands_nowhere(service: RayCluster) -> None:
    words = ("up", "cluster.json", "--port", str(service.http_port), "--host", "0.0.0.0", "--json")
    done = service.glmplan(*words)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "shown this once" in line]
    key = line.rpartition(" ")[2]
    body, url = body_of(prompt_of(1), stream=False), f"{service.url}/v1/completions"
    assert httpx.post(url, json=body, timeout=60).status_code == 401
    assert httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60).status_code == 200
    assert key not in done.stdout + json.dumps(service.document("status"))
    (key_file,) = (service.home / "state" / "runs").glob("*.key")
    assert key_file.stat().st_mode & 0o077 == 0
    for folder in (service.home, service.ray_folder):
        holding = [path for path in folder.rglob("*") if path.is_file() and key.encode() in content(path)]
        assert set(holding) <= {key_file}
    assert not any(key in word for process in service.processes() for word in words_of(process))
    service.document("down")
    assert not key_file.exists()


def test_replicas_follow_what_is_asked_of_them(service: RayCluster) -> None:
    service.glmplan("down")  # if an earlier test has not: Ray takes ten minutes to give replicas up
    words = ("up", "cluster.json", "--port", str(service.http_port), "--min-replicas", "1", "--max-replicas", "2")
    done = service.glmplan(*words, "--target-ongoing", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert service.document("status")["replicas_running"] == 1
    crowd = Crowd(service.url, expected_answers(engine_urls(service), 12))
    crowd.start(6)
    wait_until(
        lambda: service.document("status")["replicas_running"] == 2, 2 * BACK_S, lambda: "six at once are served by one"
    )
    crowd.wait_for(20, BACK_S)
    crowd.stop()
    assert crowd.failed == []
    assert len(service.engines()) == 2
    service.document("down")


def content(path: Path) -> bytes:
    """What is in a file; nothing when Ray has removed it just now."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""

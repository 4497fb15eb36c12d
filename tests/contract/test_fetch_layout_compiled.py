"""A fetched file as llama.cpp's own `-hf` finds it, without a network."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hub_server import hub_serving

from glmplan.fetched import HubFile
from glmplan.launchers.fetch.fetch import fetch
from glmplan.launchers.fetch.hub import Hub
from glmplan.launchers.fetch.limits import FetchLimits
from glmplan.launchers.port import free_port

pytestmark = pytest.mark.compiled
REPO, FILE = "org/GLM-4.7-Flash-GGUF", "GLM-4.7-Flash-Q4_K_M.gguf"


@pytest.fixture
def environment(tmp_path: Path, tiny_gguf: Path, engine_programs: Path) -> dict[str, str]:
    """An environment whose hub cache holds one fetched file."""
    with hub_serving({f"{REPO}/{FILE}": tiny_gguf.read_bytes()}) as server:
        hub = Hub(server.url, None, FetchLimits())
        fetch(hub, HubFile(repo=REPO, file=FILE), tmp_path / "hub", say=lambda _: None, on_progress=lambda _: None)
        hub.close()
    return {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "LD_LIBRARY_PATH": str(engine_programs.parent / "lib"),
    }


def test_llama_server_lists_it(environment: dict[str, str], engine_programs: Path) -> None:
    done = subprocess.run(
        [str(engine_programs / "llama-server"), "--cache-list"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"{REPO}:Q4_K_M" in done.stdout


def test_llama_server_serves_it_offline(environment: dict[str, str], engine_programs: Path) -> None:
    port = free_port("127.0.0.1")
    words = [str(engine_programs / "llama-server"), "-hf", f"{REPO}:Q4_K_M", "--offline", "-c", "256", "--no-warmup"]
    with subprocess.Popen(
        [*words, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            assert _healthy(port, child)
        finally:
            child.kill()


def _healthy(port: int, child: "subprocess.Popen[bytes]") -> bool:
    for _ in range(200):
        if child.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False

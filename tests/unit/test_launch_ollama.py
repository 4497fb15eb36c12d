"""Launches through Ollama: what it is told, where its daemon is, and what is said of a model that sits elsewhere."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineTooOld, InputError, NotExpressible
from glmplan.launchers.assemble import assemble
from glmplan.launchers.digests import sha256_of
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.ollama import MODEL
from glmplan.launchers.ollama_api import Loaded
from glmplan.launchers.ollama_residence import differences
from glmplan.plan import Plan, PlannedDevice, PlannedMemory
from glmplan.profiles.probes.other_servers import ollama_address
from glmplan.units import GIB

FILE = Path("/models/flash.gguf")
HYBRID: dict[str, Any] = {"n_gpu_layers": 48, "n_cpu_moe": 12, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}


def launch_of(path: str = "/usr/bin/ollama", version: str | None = "0.33.0", file: Path = FILE, **knobs: Any) -> Launch:
    engine = Engine(kind=EngineKind.OLLAMA, path=path, version=version)
    plan = plan_of(file, EngineKind.OLLAMA, file_bytes=1, **knobs)
    return assemble(plan, engine, Endpoint(port=8080, alias=MODEL), folder=Path("/run"))


def config_of(launch: Launch) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(launch.files[0].text)
    return document


def test_a_daemon_of_its_own_gets_the_plans_environment() -> None:
    launch = launch_of(**HYBRID, n_parallel=2, n_ctx=65536)
    environment = dict(launch.env)
    wanted = {
        "OLLAMA_HOST": "127.0.0.1:8080", "OLLAMA_CONTEXT_LENGTH": "32768", "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1", "LLAMA_ARG_N_CPU_MOE": "12",
        "LLAMA_ARG_FIT": "off",
    }  # fmt: skip
    assert {name: environment[name] for name in wanted} == wanted
    assert (launch.joins, launch.has_children) == (False, True)
    config = config_of(launch)
    assert (config["url"], config["serve"], config["file"]) == ("http://127.0.0.1:8080", "/usr/bin/ollama", str(FILE))
    parameters = config["create"]["parameters"]
    assert (parameters["num_ctx"], parameters["num_gpu"], parameters["num_batch"]) == (32768, 48, 128)
    assert (parameters["use_mmap"], parameters["temperature"]) == (True, 1.0)
    assert not any("KV cache" in loss for loss in launch.losses)


def test_a_daemon_that_runs_keeps_its_environment_and_that_is_said() -> None:
    launch = launch_of("http://127.0.0.1:11434", **HYBRID)
    assert (launch.joins, launch.has_children, launch.env) == (True, False, ())
    assert config_of(launch)["serve"] is None
    assert any("KV cache q8_0: set it in the server's environment" in loss for loss in launch.losses)
    assert any("in main memory" in loss and "or the GPU runs out" in loss for loss in launch.losses)


@pytest.mark.parametrize(
    ("version", "works"), [("0.14.2", False), ("0.14.3", True), ("0.33.0-rc2", True), (None, True)]
)
def test_versions(version: str | None, works: bool) -> None:
    if works:
        assert any("1.9 times" in loss for loss in launch_of(version=version).losses) is (version == "0.14.3")
        return
    with pytest.raises(EngineTooOld, match=r"0\.14\.2 cannot run this model"):
        launch_of(version="0.14.2")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"cache_type_k": "q5_1", "cache_type_v": "q5_1"}, "not as q5_1"),
        ({"file": Path("/models/flash-00001-of-00002.gguf")}, "models of one file"),
    ],
)
def test_plans_it_cannot_run_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(NotExpressible, match=said):
        launch_of(**knobs)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":9999", "http://127.0.0.1:9999"),
        ("localhost:80", "http://localhost:80"),
        ("http://127.0.0.1:1234/", "http://127.0.0.1:1234"),
        ("[::1]:7", "http://[::1]:7"),
    ],
)
def test_where_the_daemon_is(given: str, url: str) -> None:
    assert ollama_address(given) == url


@pytest.mark.parametrize("given", ["example.org", "https://192.0.2.1:11434", "127.0.0.1:port"])
def test_a_daemon_elsewhere_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="OLLAMA_HOST="):
        ollama_address(given)


def hybrid() -> Plan:
    """12 GiB on a GPU, 6 GiB in main memory, of 32768 tokens."""

    def row(name: str, size: int) -> PlannedDevice:
        return PlannedDevice(
            id=name, usable_bytes=2 * size, weights_bytes=size, kv_cache_bytes=0, compute_bytes=0,
            overhead_bytes=GIB, margin_bytes=size - GIB,
        )  # fmt: skip

    plan = plan_of(FILE, EngineKind.OLLAMA, file_bytes=1, n_ctx=32768)
    return dataclasses.replace(
        plan, memory=PlannedMemory(devices=(row("gpu0", 12 * GIB), row("host", 6 * GIB)), basis="roofline")
    )


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (Loaded(total_bytes=18 * GIB, gpu_bytes=12 * GIB, n_ctx=32768), []),
        (Loaded(total_bytes=19 * GIB, gpu_bytes=12 * GIB + GIB // 2, n_ctx=None), []),
        (
            Loaded(total_bytes=18 * GIB, gpu_bytes=12 * GIB, n_ctx=4096),
            ["Ollama loaded 4096 tokens of context, planned were 32768"],
        ),
        (
            Loaded(total_bytes=18 * GIB, gpu_bytes=0, n_ctx=32768),
            ["of 18.0 GiB in GPU memory (0%), planned were 12.0 GiB of 18.0 GiB (67%): the rest"],
        ),
        (
            Loaded(total_bytes=18 * GIB, gpu_bytes=18 * GIB, n_ctx=32768),
            ["(100%), planned were 12.0 GiB of 18.0 GiB (67%): experts that the plan keeps in main memory"],
        ),
        (
            Loaded(total_bytes=24 * GIB, gpu_bytes=16 * GIB, n_ctx=32768),
            ["Ollama holds 24.0 GiB, 6.0 GiB more than planned"],
        ),
    ],
)
def test_what_is_not_as_planned_is_told_with_numbers(loaded: Loaded, said: list[str]) -> None:
    found = differences(hybrid(), loaded)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    first = sha256_of(file)
    assert first == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert sha256_of(file) == first
    file.write_bytes(b"another")
    assert sha256_of(file) != first
    assert sha256_of(Path(f"/nowhere/sha256-{'a' * 64}")) == "a" * 64

"""Configuration files of the two Python engines, and the seam they share with llama-server."""

import json
import sys
from pathlib import Path

import pytest
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.errors import NotExpressible
from glmplan.launchers import llama_cpp_python, xllamacpp
from glmplan.launchers.assemble import assemble
from glmplan.launchers.launch import Endpoint, first_key, override_patterns
from glmplan.placement import FlashAttention, NumaMode, TensorOverride

MODEL = Path("/models/flash.gguf")
PYTHON, EMBEDDED = EngineKind.LLAMA_CPP_PYTHON, EngineKind.XLLAMACPP


def test_llama_cpp_python_pins_its_knobs_and_holds_no_key() -> None:
    plan = plan_of(MODEL, PYTHON, file_bytes=1, cache_type_k="q8_0", cache_type_v="q8_0", tensor_split=(3.0, 1.0))
    text = llama_cpp_python.config(plan, host="127.0.0.1", port=8000, alias="glm")
    document = json.loads(text)
    assert document["interrupt_requests"] is False
    assert document["models"] == [
        {
            "model": "/models/flash.gguf", "model_alias": "glm", "n_gpu_layers": 0, "n_ctx": 2048, "n_batch": 512,
            "n_ubatch": 128, "n_threads": 2, "n_threads_batch": 2, "flash_attn": True, "type_k": 8, "type_v": 8,
            "offload_kqv": True, "use_mmap": True, "use_mlock": False, "logits_all": False, "verbose": True,
            "tensor_split": [3.0, 1.0],
        }
    ]  # fmt: skip
    assert "key" not in text


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"n_cpu_moe": 4}, "expert offload"),
        ({"override_tensor": (TensorOverride(pattern="x"),)}, "expert offload"),
        ({"n_parallel": 3}, "3 parallel slots"),
        ({"repack": False}, "not repacked"),
        ({"op_offload": False}, "op_offload"),
        ({"load_mtp": True}, "multi-token prediction"),
        ({"cache_ram_bytes": 1}, "prompt cache"),
        ({"flash_attn": FlashAttention.AUTO}, "flash attention"),
    ],
)
def test_llama_cpp_python_refuses_what_it_has_no_setting_for(knobs: dict[str, object], words: str) -> None:
    plan = plan_of(MODEL, PYTHON, file_bytes=1, **knobs)
    with pytest.raises(NotExpressible, match=words):
        llama_cpp_python.config(plan, host="127.0.0.1", port=8000, alias="glm")


def test_the_embedded_server_is_told_every_knob() -> None:
    plan = plan_of(
        MODEL, EMBEDDED, file_bytes=1, n_cpu_moe=1, override_tensor=(TensorOverride(pattern="a", buffer="B"),)
    )
    document = json.loads(xllamacpp.config(plan, host="127.0.0.1", port=8000, alias="glm", api_key_file="/run/key"))
    assert document["override_tensor"] == "a=B," + override_patterns(1)[0] + "=CPU"
    assert document["api_key_file"] == "/run/key"
    assert document["cache_ram_mib"] == 0
    assert document["sampling"] == {"temp": 1.0, "top_p": 0.95, "min_p": 0.01, "penalty_repeat": 1.0}


@pytest.mark.parametrize(("kind", "health", "timings"), [(PYTHON, "/v1/models", False), (EMBEDDED, "/health", True)])
def test_one_seam_for_python_engines(tmp_path: Path, kind: EngineKind, health: str, timings: bool) -> None:
    engine = Engine(kind=kind, path="/site-packages/package", version="1")
    made = assemble(plan_of(MODEL, kind, file_bytes=7), engine, Endpoint(port=8099), folder=tmp_path)
    assert made.argv[0] == sys.executable
    assert made.argv[-1] == made.files[0].path == str(tmp_path / f"{kind}-8099.json")
    assert (made.health_path, made.timings, made.model_bytes) == (health, timings, 7)


def test_an_engine_of_another_kind_is_refused(tmp_path: Path) -> None:
    engine = Engine(kind=EMBEDDED, path="/p", version="1")
    with pytest.raises(NotExpressible, match="made for llama-server, the engine is xllamacpp"):
        assemble(plan_of(MODEL, EngineKind.LLAMA_SERVER, file_bytes=1), engine, Endpoint(port=1), folder=tmp_path)


@pytest.mark.parametrize(
    ("host", "url", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:80", True),
        ("0.0.0.0", "http://127.0.0.1:80", False),
        ("::1", "http://[::1]:80", True),
        ("::", "http://[::1]:80", False),
        ("10.1.2.3", "http://10.1.2.3:80", False),
    ],
)
def test_where_a_client_connects(host: str, url: str, loopback: bool) -> None:
    endpoint = Endpoint(host=host, port=80)
    assert (endpoint.url, endpoint.is_loopback) == (url, loopback)


def test_a_key_file_has_comments_and_one_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# mine\n\n  secret \nother\n")
    assert first_key(path) == "secret"
    path.write_text("# none\n")
    assert first_key(path) is None


def test_a_numa_mode_reaches_both_python_engines() -> None:
    plans = [plan_of(MODEL, kind, file_bytes=1, numa=NumaMode.ISOLATE) for kind in (PYTHON, EMBEDDED)]
    told = json.loads(llama_cpp_python.config(plans[0], host="127.0.0.1", port=1, alias="glm"))
    assert told["models"][0]["numa"] == 2  # GGML_NUMA_STRATEGY_ISOLATE
    assert json.loads(xllamacpp.config(plans[1], host="127.0.0.1", port=1, alias="glm"))["numa"] == "isolate"

"""Our command lines and configurations against the real compiled engines."""

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind, engine_environment
from glmplan.launchers import llama_cpp_python, llama_server
from glmplan.launchers.launch import Endpoint
from glmplan.placement import FlashAttention, TensorOverride
from glmplan.profiles.host import LocalHost
from glmplan.profiles.probes.engine import find_engines
from glmplan.units import MIB

pytestmark = pytest.mark.compiled

PLACEMENTS: list[dict[str, Any]] = [
    {},
    {"n_ctx": 202752, "n_gpu_layers": 48, "n_cpu_moe": 12, "cache_type_k": "q8_0", "cache_type_v": "q8_0"},
    {"repack": False, "op_offload": False, "use_mmap": False, "cache_ram_bytes": 2048 * MIB},
    {"use_mlock": True, "n_parallel": 4, "kv_unified": False, "flash_attn": FlashAttention.AUTO},
    {"use_mmap": False, "use_mlock": True, "flash_attn": FlashAttention.OFF, "load_mtp": True},
    {"override_tensor": (TensorOverride(pattern=r"blk\.(1|2)\.ffn_(up|down)_exps"),), "tensor_split": (1.0,)},
]  # fmt: skip


def server() -> Engine:
    found = {engine.kind: engine for engine in find_engines(LocalHost())}
    assert EngineKind.LLAMA_SERVER in found, "the compiled tests need llama-server: scripts/build-engine"
    return found[EngineKind.LLAMA_SERVER]


def version_with(engine: Engine, words: list[str]) -> "subprocess.CompletedProcess[str]":
    """llama-server parses its arguments in order and stops at --version: 0 means that it accepts all before."""
    return subprocess.run(
        [*words, "--version"],
        env={**os.environ, **engine_environment(engine, os.environ)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("knobs", PLACEMENTS)
def test_llama_server_accepts_our_command_line(knobs: dict[str, Any], tmp_path: Path) -> None:
    engine = server()
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    plan = plan_of(Path("/models/flash.gguf"), EngineKind.LLAMA_SERVER, file_bytes=1, **knobs)
    words = llama_server.argv(
        plan, engine, host="127.0.0.1", port=8080, alias="glm-4.7-flash", api_key_file=str(key_file)
    )
    done = version_with(engine, words)
    assert done.returncode == 0, done.stderr
    assert "removed" not in done.stderr
    assert "deprecated" not in done.stderr


def test_llama_server_refuses_what_is_wrong_so_that_acceptance_means_something() -> None:
    engine = server()
    plan = plan_of(Path("/models/flash.gguf"), EngineKind.LLAMA_SERVER, file_bytes=1)
    words = llama_server.argv(plan, engine, host="127.0.0.1", port=8080, alias="glm")
    assert version_with(engine, [*words, "--mlock"]).returncode == 1
    assert version_with(engine, [*words, "--cache-type-k", "q3_x"]).returncode == 1


def test_this_build_has_every_option_we_would_use() -> None:
    engine = server()
    plan = plan_of(
        Path("/m"), EngineKind.LLAMA_SERVER, file_bytes=1, repack=False, op_offload=False, tensor_split=(1.0,),
        n_cpu_moe=1, load_mtp=True, override_tensor=(TensorOverride(pattern="x"),),
    )  # fmt: skip
    words = llama_server.argv(plan, engine, host="h", port=1, alias="a", api_key_file="k")
    expected = (
        "--fit --kv-unified --cache-ram --no-repack --n-cpu-moe --override-tensor --split-mode --tensor-split "
        "--no-op-offload --spec-type --load-mode --jinja --metrics --offline --no-webui --cors-origins --log-verbosity"
    )
    assert set(expected.split()) <= set(words)


def settings() -> Any:
    return importlib.import_module("llama_cpp.server.settings")


@pytest.mark.parametrize("knobs", [{}, {"cache_type_k": "q4_0", "cache_type_v": "q4_0", "tensor_split": (1.0, 2.0)}])
def test_llama_cpp_python_accepts_our_configuration(knobs: dict[str, Any]) -> None:
    plan = plan_of(Path("/models/flash.gguf"), EngineKind.LLAMA_CPP_PYTHON, file_bytes=1, **knobs)
    text = llama_cpp_python.config(plan, host="127.0.0.1", port=8080, alias="glm")
    read = settings().ConfigFileSettings.model_validate_json(text)
    asked = json.loads(text)["models"][0]
    assert {name: getattr(read.models[0], name) for name in asked} == asked
    assert (read.host, read.port, read.api_key) == ("127.0.0.1", 8080, None)


def test_no_variable_of_the_environment_can_change_a_llama_cpp_python_launch() -> None:
    engine = Engine(kind=EngineKind.LLAMA_CPP_PYTHON, path="/p", version="1")
    plan = plan_of(Path("/m"), EngineKind.LLAMA_CPP_PYTHON, file_bytes=1)
    made = llama_cpp_python.launch(plan, engine, Endpoint(port=1), python="python", config_file="c")
    read = {
        name.upper() for kind in (settings().ConfigFileSettings, settings().ModelSettings) for name in kind.model_fields
    }
    assert read <= set(made.drop_env)

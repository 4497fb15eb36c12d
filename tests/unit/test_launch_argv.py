"""llama-server command lines: what is pinned, and what happens when a build lacks an option."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineTooOld
from glmplan.launchers import rivals
from glmplan.launchers.launch import Endpoint
from glmplan.launchers.llama_server import argv, launch
from glmplan.placement import FlashAttention, NumaMode, TensorOverride
from glmplan.units import MIB

MODEL = Path("/models/flash.gguf")
FLAGS = frozenset({
    "--model", "--alias", "--host", "--port", "--fit", "--ctx-size", "--parallel", "--kv-unified", "--batch-size",
    "--ubatch-size", "--cache-type-k", "--cache-type-v", "--cache-ram", "--no-repack", "--n-gpu-layers",
    "--n-cpu-moe", "--override-tensor", "--split-mode", "--tensor-split", "--no-op-offload", "--spec-type",
    "--load-mode", "--threads", "--threads-batch", "--flash-attn", "--jinja", "--temp", "--top-p", "--min-p",
    "--repeat-penalty", "--metrics", "--offline", "--no-webui", "--cors-origins", "--log-verbosity",
    "--api-key-file",
})  # fmt: skip


def command(flags: frozenset[str] = FLAGS, key_file: str | None = None, **knobs: Any) -> list[str]:
    engine = Engine(kind=EngineKind.LLAMA_SERVER, path="/bin/llama-server", version="b1", build="8123", flags=flags)
    plan = plan_of(MODEL, EngineKind.LLAMA_SERVER, file_bytes=1, **knobs)
    return argv(plan, engine, host="127.0.0.1", port=8080, alias="glm-4.7-flash", api_key_file=key_file)


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_every_knob_is_pinned() -> None:
    words = command(cache_ram_bytes=2048 * MIB, n_ctx=65536, n_gpu_layers=48)
    pinned = {
        "--model": "/models/flash.gguf", "--alias": "glm-4.7-flash", "--host": "127.0.0.1", "--port": "8080",
        "--fit": "off", "--ctx-size": "65536", "--parallel": "1", "--batch-size": "512", "--ubatch-size": "128",
        "--cache-type-k": "f16", "--cache-type-v": "f16", "--cache-ram": "2048", "--n-gpu-layers": "48",
        "--threads": "2", "--threads-batch": "2", "--flash-attn": "on", "--load-mode": "mmap", "--temp": "1",
        "--top-p": "0.95", "--min-p": "0.01", "--repeat-penalty": "1", "--cors-origins": "localhost",
        "--log-verbosity": "4",
    }  # fmt: skip
    assert words[0] == "/bin/llama-server"
    assert {flag: value(words, flag) for flag in pinned} == pinned
    assert {"--kv-unified", "--jinja", "--metrics", "--offline", "--no-webui"} <= set(words)
    absent = {"--no-repack", "--no-op-offload", "--n-cpu-moe", "--override-tensor", "--tensor-split", "--api-key-file"}
    assert absent.isdisjoint(words)


def test_knobs_that_are_turned_appear() -> None:
    words = command(
        key_file="/run/key",
        repack=False,
        op_offload=False,
        n_cpu_moe=12,
        n_gpu_layers=48,
        tensor_split=(3.0, 1.5),
        override_tensor=(
            TensorOverride(pattern=r"blk\.1\.ffn_.*_exps"),
            TensorOverride(pattern="output", buffer="CUDA1"),
        ),
        use_mmap=False,
        use_mlock=True,
        flash_attn=FlashAttention.AUTO,
        kv_unified=False,
        load_mtp=True,
    )  # fmt: skip
    assert {"--no-repack", "--no-op-offload"} <= set(words)
    assert "--kv-unified" not in words
    assert value(words, "--n-cpu-moe") == "12"
    assert value(words, "--tensor-split") == "3,1.5"
    assert value(words, "--override-tensor") == r"blk\.1\.ffn_.*_exps=CPU,output=CUDA1"
    assert value(words, "--load-mode") == "mlock"
    assert value(words, "--flash-attn") == "auto"
    assert value(words, "--spec-type") == "draft-mtp"
    assert value(words, "--api-key-file") == "/run/key"


@pytest.mark.parametrize(
    ("flag", "knobs"),
    [
        ("--ctx-size", {}),
        ("--cache-type-k", {}),
        ("--flash-attn", {}),
        ("--no-repack", {"repack": False}),
        ("--no-op-offload", {"op_offload": False}),
        ("--tensor-split", {"tensor_split": (1.0, 1.0)}),
        ("--parallel", {"n_parallel": 2}),
        ("--kv-unified", {"n_parallel": 2}),
        ("--n-gpu-layers", {"n_gpu_layers": 48}),
        ("--spec-type", {"load_mtp": True}),
        ("--override-tensor", {"override_tensor": (TensorOverride(pattern="x"),)}),
    ],
)
def test_a_build_without_a_needed_option_is_named(flag: str, knobs: dict[str, Any]) -> None:
    with pytest.raises(EngineTooOld, match=rf"build 8123 has no {flag}") as caught:
        command(FLAGS - {flag}, **knobs)
    assert caught.value.facts["flag"] == flag
    assert caught.value.exit_code == 4


def test_options_that_do_not_change_the_plan_are_left_out_where_unknown() -> None:
    optional = {
        "--fit",
        "--cache-ram",
        "--jinja",
        "--metrics",
        "--offline",
        "--no-webui",
        "--cors-origins",
        "--kv-unified",
    }
    words = command(FLAGS - optional)
    assert optional.isdisjoint(words)


def test_builds_before_load_mode_get_the_flags_it_replaced() -> None:
    old = (FLAGS - {"--load-mode"}) | {"--no-mmap", "--mlock"}
    words = command(old, use_mmap=False, use_mlock=True)
    assert {"--no-mmap", "--mlock"} <= set(words)
    # There level 4 means debug, which would log prompts.
    assert "--log-verbosity" not in words
    assert {"--no-mmap", "--mlock"}.isdisjoint(command(old))


def test_builds_before_n_cpu_moe_get_it_spelled_out() -> None:
    words = command(FLAGS - {"--n-cpu-moe"}, n_cpu_moe=2, n_gpu_layers=48)
    experts = "ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
    assert value(words, "--override-tensor") == rf"blk\.0\.{experts},blk\.1\.{experts}"


def test_libraries_are_found_through_the_environment() -> None:
    engine = Engine(
        kind=EngineKind.LLAMA_SERVER, path="/w/bin/llama-server", version="b1", flags=FLAGS, library_path="/w/lib"
    )
    made = launch(plan_of(MODEL, EngineKind.LLAMA_SERVER, file_bytes=1), engine, Endpoint(port=8080))
    assert ("LD_LIBRARY_PATH", "/w/lib") in made.env
    assert "LLAMA_ARG_*" in made.drop_env


def test_huge_pages_are_the_plans_and_not_its_rivals() -> None:
    engine = Engine(kind=EngineKind.LLAMA_SERVER, path="/bin/llama-server", version="b1", flags=FLAGS)
    plan = plan_of(MODEL, EngineKind.LLAMA_SERVER, file_bytes=1, huge_pages=True)
    made = launch(plan, engine, Endpoint(port=8080))
    assert made.env[-1] == ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    found = rivals.rivals_of(engine)
    assert len(found) == 2
    for rival in found:
        assert "GLIBC_TUNABLES" not in dict(rivals.launch(rival, plan, engine, Endpoint(port=8080)).env)


@given(
    n_ctx=st.integers(256, 202752), n_cpu_moe=st.integers(0, 47), n_ubatch=st.integers(1, 4096), repack=st.booleans()
)
def test_words_are_flags_of_the_build_and_values_of_the_plan(
    n_ctx: int, n_cpu_moe: int, n_ubatch: int, repack: bool
) -> None:
    words = command(n_ctx=n_ctx, n_cpu_moe=n_cpu_moe, n_ubatch=n_ubatch, repack=repack)
    flags = [word for word in words if word.startswith("--")]
    assert set(flags) <= FLAGS
    assert len(flags) == len(set(flags))
    assert value(words, "--ctx-size") == str(n_ctx)


def test_numa_is_named_only_where_the_plan_names_it() -> None:
    assert "--numa" not in command()
    assert value(command(FLAGS | {"--numa"}, numa=NumaMode.ISOLATE), "--numa") == "isolate"
    with pytest.raises(EngineTooOld, match="NUMA nodes"):
        command(FLAGS - {"--numa"}, numa=NumaMode.ISOLATE)

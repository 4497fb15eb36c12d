"""Models without a memory model of ours: the engine's dry run of their header-true file, and what it must say."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from glmplan.engine import EngineKind
from glmplan.launchers.dry_run import DryRun, request_of
from glmplan.placement import FlashAttention, Placement
from glmplan.profiles.recipes import catalog_profile

pytestmark = pytest.mark.compiled

MODEL = "nemotron-3-nano-30b-a3b"
EngineOn = Callable[[str], AbstractContextManager[DryRun]]
HeaderTrue = Callable[..., Path]

PLACEMENT = Placement(
    engine=EngineKind.LLAMA_SERVER, n_ctx=32768, n_gpu_layers=53, n_cpu_moe=0, n_batch=2048, n_ubatch=512,
    cache_type_k="f16", cache_type_v="f16", flash_attn=FlashAttention.ON, n_threads=2, n_threads_batch=2,
    use_mmap=False, use_mlock=False, repack=False,
)  # fmt: skip
# 6 attention layers keep K and V of 2 heads of 128; 23 recurrent ones a state of f32 each: (4 - 1) columns of
# 4096 + 2 * 8 * 128 values for the convolution and 4096 * 128 for the recurrence.
CACHE_PER_TOKEN = 6 * 2 * 2 * 128 * 2
STATE_PER_SLOT = 23 * 4 * (3 * (4096 + 2 * 8 * 128) + 4096 * 128)


@pytest.mark.parametrize(("quant", "n_parallel"), [("bf16", 1), ("q4_K_M", 2), ("IQ4_XS", 1)])
def test_weights_cache_and_state_are_what_the_header_says(
    quant: str, n_parallel: int, engine_on: EngineOn, header_true: HeaderTrue
) -> None:
    placement = replace(PLACEMENT, n_parallel=n_parallel, n_outputs=n_parallel)
    file = str(header_true(quant, 0, MODEL))
    profile = catalog_profile(quant, model=MODEL)
    embedding = next(tensor.n_bytes for tensor in profile.tensors if tensor.name == "token_embd.weight")
    with engine_on("81920:81000") as engine:
        answer = engine.ask(request_of(placement, file))
    assert answer.refusal is None, answer.refusal
    weights, context, compute = answer.device_bytes(0)
    # Buffers round each tensor up to 128 bytes, and rows of quantised ones to 512 values.
    assert 0 <= weights - (profile.tensor_bytes - embedding) < 2**20
    assert context == CACHE_PER_TOKEN * placement.n_ctx + STATE_PER_SLOT * n_parallel
    assert compute > 0
    assert answer.device_bytes(None)[0] == embedding


def glmplan(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("glmplan")
    words = [str(program), *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ}, check=False)


def test_estimate_exact_answers_and_says_what_it_does_not_know() -> None:
    done = glmplan("estimate", "--model", MODEL, "--exact", "--json", "--n-ctx", "8192")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    host = report["memory"]["devices"][-1]
    assert report["memory"]["basis"] == "measured"
    assert host["kv_cache_bytes"] == CACHE_PER_TOKEN * 8192 + STATE_PER_SLOT
    assert report["speed"] is None
    assert any("speeds are not known" in warning for warning in report["warnings"])


@pytest.mark.parametrize("command", ["plan", "estimate"])
def test_without_the_engine_it_is_refused_with_the_way(command: str) -> None:
    done = glmplan(command, "--model", MODEL, "--quant", "q4_K_M", "--json")
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "UnsupportedModel"
    assert "--exact" in error["hint"]

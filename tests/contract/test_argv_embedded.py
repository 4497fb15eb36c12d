"""Our configuration of the embedded server against the real `CommonParams`."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from launch_plans import plan_of

from glmplan.engine import EngineKind
from glmplan.launchers.xllamacpp import config
from glmplan.launchers.xllamacpp_server import common_params
from glmplan.placement import FlashAttention, TensorOverride
from glmplan.units import MIB


def params_of(key_file: Path | None = None, **knobs: Any) -> Any:
    plan = plan_of(Path("/models/flash.gguf"), EngineKind.XLLAMACPP, file_bytes=1, **knobs)
    text = config(
        plan, host="127.0.0.1", port=8123, alias="glm", api_key_file=None if key_file is None else str(key_file)
    )
    return common_params(json.loads(text))


def test_every_knob_arrives(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    params = params_of(
        key_file,
        n_ctx=65536,
        n_gpu_layers=48,
        n_cpu_moe=1,
        n_batch=1024,
        n_ubatch=256,
        n_parallel=3,
        n_threads=5,
        n_threads_batch=7,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        tensor_split=(3.0, 1.0),
        override_tensor=(TensorOverride(pattern=r"blk\.9\.ffn_up_exps"),),
        repack=False,
        op_offload=False,
        load_mtp=True,
        cache_ram_bytes=512 * MIB,
        use_mmap=False,
        use_mlock=True,
    )
    assert params.fit_params is False
    seen = {
        name: getattr(params, name)
        for name in ("n_ctx", "n_gpu_layers", "n_batch", "n_ubatch", "n_parallel", "cache_ram_mib", "port", "load_mtp",
                     "kv_unified", "no_extra_bufts", "no_op_offload", "ui", "offline")
    }  # fmt: skip
    assert seen == {
        "n_ctx": 65536, "n_gpu_layers": 48, "n_batch": 1024, "n_ubatch": 256, "n_parallel": 3, "cache_ram_mib": 512,
        "port": 8123, "load_mtp": True, "kv_unified": True, "no_extra_bufts": True, "no_op_offload": True, "ui": False,
        "offline": True,
    }  # fmt: skip
    assert (params.cpuparams.n_threads, params.cpuparams_batch.n_threads) == (5, 7)
    assert (int(params.cache_type_k), int(params.cache_type_v)) == (8, 8)
    assert list(params.tensor_split[:3]) == [3.0, 1.0, 0.0]
    assert params.tensor_buft_overrides == (r"blk\.9\.ffn_up_exps=CPU,blk\.0\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU")
    assert "MLOCK" in params.load_mode.name
    assert "MMAP" not in params.load_mode.name
    assert list(params.hostnames) == ["127.0.0.1"]
    assert list(params.api_keys) == ["secret"]
    assert params.model_alias == {"glm"}
    assert [kind.name for kind in params.speculative.types] == ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"]
    assert params.speculative.draft.n_max == 1


def test_sampling_defaults_are_the_users_not_the_files() -> None:
    sampling = params_of().sampling
    assert sampling.temp == pytest.approx(1.0)
    assert sampling.top_p == pytest.approx(0.95)
    assert sampling.min_p == pytest.approx(0.01)
    assert sampling.penalty_repeat == pytest.approx(1.0)
    known = importlib.import_module("xllamacpp").common_params_sampling_config
    for name in ("TEMP", "TOP_P", "MIN_P", "PENALTY_REPEAT"):
        assert sampling.user_sampling_config & int(getattr(known, f"COMMON_PARAMS_SAMPLING_CONFIG_{name}"))


@pytest.mark.parametrize(
    ("flash_attn", "name"),
    [(FlashAttention.ON, "ENABLED"), (FlashAttention.OFF, "DISABLED"), (FlashAttention.AUTO, "AUTO")],
)
def test_flash_attention_has_three_states(flash_attn: FlashAttention, name: str) -> None:
    assert params_of(flash_attn=flash_attn).flash_attn_type.name == f"LLAMA_FLASH_ATTN_TYPE_{name}"


@pytest.mark.parametrize("cache_type", ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"])
def test_every_cache_type_is_known_to_it(cache_type: str) -> None:
    params = params_of(cache_type_k=cache_type, cache_type_v=cache_type)
    assert params.cache_type_k.name == f"GGML_TYPE_{cache_type.upper()}"

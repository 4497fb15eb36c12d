"""Plan to the configuration file of `python -m llama_cpp.server`.

Schema: llama_cpp/server/settings.py of llama-cpp-python 0.3.36 (`ConfigFileSettings`; extra keys are refused).
"""

import json
from typing import Any, Final

from glmplan.engine import Engine, EngineKind
from glmplan.errors import NotExpressible
from glmplan.ggml_types import cache_type
from glmplan.launchers.launch import Endpoint, Launch, LaunchFile
from glmplan.placement import FlashAttention, NumaMode, Placement
from glmplan.plan import Plan

# Its settings classes read variables of their own fields' names: a stray HOST, PORT or SEED would win.
_SETTINGS: Final = (
    "cache", "cache_size", "cache_type", "chat_format", "chat_template_kwargs", "clip_model_path", "config_file",
    "disable_ping_events", "draft_model", "draft_model_num_pred_tokens", "embedding", "flash_attn",
    "hf_model_repo_id", "hf_pretrained_model_name_or_path", "hf_tokenizer_config_path", "host",
    "interrupt_requests", "kv_overrides", "last_n_tokens_size", "logits_all", "lora_base", "lora_path",
    "main_gpu", "model", "model_alias", "models", "mul_mat_q", "n_batch", "n_ctx", "n_gpu_layers", "n_threads",
    "n_threads_batch", "n_ubatch", "numa", "offload_kqv", "port", "rope_freq_base", "rope_freq_scale",
    "rope_scaling_type", "root_path", "rpc_servers", "seed", "split_mode", "ssl_certfile", "ssl_keyfile",
    "tensor_split", "type_k", "type_v", "use_mlock", "use_mmap", "verbose", "vocab_only", "yarn_attn_factor",
    "yarn_beta_fast", "yarn_beta_slow", "yarn_ext_factor", "yarn_orig_ctx",
)  # fmt: skip
_KEY_ENV: Final = "API_KEY"
# ggml.h ggml_numa_strategy
_NUMA: Final = {NumaMode.DISTRIBUTE: 1, NumaMode.ISOLATE: 2}


def config(plan: Plan, *, host: str, port: int, alias: str) -> str:
    """The JSON configuration that serves `plan`; the API key is not part of it.

    Raises:
        NotExpressible: the plan needs expert offload, parallel slots or another knob this server lacks.
    """
    placement = plan.placement
    _refuse_inexpressible(placement)
    model: dict[str, Any] = {
        "model": plan.model.file,
        "model_alias": alias,
        "n_gpu_layers": placement.n_gpu_layers,
        "n_ctx": placement.n_ctx,
        "n_batch": placement.n_batch,
        "n_ubatch": placement.n_ubatch,
        "n_threads": placement.n_threads,
        "n_threads_batch": placement.n_threads_batch,
        "flash_attn": placement.flash_attn is FlashAttention.ON,
        "type_k": int(cache_type(placement.cache_type_k)),
        "type_v": int(cache_type(placement.cache_type_v)),
        "offload_kqv": True,
        "use_mmap": placement.use_mmap,
        "use_mlock": placement.use_mlock,
        "logits_all": False,  # true would keep n_ctx x n_vocab floats
        "verbose": True,  # the load log with its buffer sizes
    }
    if placement.numa is not None:
        model["numa"] = _NUMA[placement.numa]
    if placement.tensor_split:
        model["tensor_split"] = list(placement.tensor_split)
    # A second request waits for the first instead of cutting it off.
    document = {"host": host, "port": port, "interrupt_requests": False, "models": [model]}
    return json.dumps(document, indent=2)


def launch(plan: Plan, engine: Engine, endpoint: Endpoint, *, python: str, config_file: str) -> Launch:
    """The server of `plan` under the interpreter `python`, with its configuration in `config_file`.

    Raises:
        NotExpressible: the plan needs a knob this server lacks.
    """
    text = config(plan, host=endpoint.host, port=endpoint.port, alias=endpoint.alias)
    return Launch(
        engine=engine.kind,
        argv=(python, "-m", "llama_cpp.server", "--config_file", config_file),
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/v1/models",
        timings=False,
        env=tuple(plan.placement.variables.items()),
        drop_env=(*(name.upper() for name in _SETTINGS), _KEY_ENV),
        files=(LaunchFile(path=config_file, text=text),),
        key_env=_KEY_ENV if endpoint.api_key_file else None,
    )


def _refuse_inexpressible(placement: Placement) -> None:
    reasons = {
        "expert offload (n_cpu_moe, override_tensor)": bool(placement.n_cpu_moe or placement.override_tensor),
        f"{placement.n_parallel} parallel slots": placement.n_parallel > 1,
        "weights that are not repacked": not placement.repack,
        "op_offload off": not placement.op_offload,
        "multi-token prediction": placement.load_mtp,
        f"a prompt cache of {placement.cache_ram_bytes} bytes": placement.cache_ram_bytes > 0,
        "flash attention 'auto'": placement.flash_attn is FlashAttention.AUTO,
    }
    missing = [reason for reason, wanted in reasons.items() if wanted]
    if missing:
        message = f"{EngineKind.LLAMA_CPP_PYTHON} has no setting for {', '.join(missing)}"
        raise NotExpressible(
            message,
            hint="launch the plan with llama-server or xllamacpp, or plan for this engine",
            facts={"knobs": list(missing)},
        )

"""Plan to the configuration of the embedded server, a child process that hosts xllamacpp's `Server`."""

import json
from typing import Any

from glmplan.engine import Engine
from glmplan.launchers.launch import MODEL_CARD, Endpoint, Launch, LaunchFile, Sampling
from glmplan.launchers.llama_server import override_tensor
from glmplan.plan import Plan
from glmplan.units import MIB


def config(
    plan: Plan,
    *,
    host: str,
    port: int,
    alias: str,
    api_key_file: str | None = None,
    sampling: Sampling = MODEL_CARD,
) -> str:
    """The JSON that `glmplan.launchers.xllamacpp_server` turns into `CommonParams`; holds no key."""
    placement = plan.placement
    document: dict[str, Any] = {
        "model": plan.model.file,
        "alias": alias,
        "host": host,
        "port": port,
        "api_key_file": api_key_file,
        "n_ctx": placement.n_ctx,
        "n_parallel": placement.n_parallel,
        "kv_unified": placement.kv_unified,
        "n_batch": placement.n_batch,
        "n_ubatch": placement.n_ubatch,
        "n_threads": placement.n_threads,
        "n_threads_batch": placement.n_threads_batch,
        "n_gpu_layers": placement.n_gpu_layers,
        "tensor_split": list(placement.tensor_split),
        "override_tensor": override_tensor(placement, spell_out_experts=True),
        "cache_type_k": placement.cache_type_k,
        "cache_type_v": placement.cache_type_v,
        "flash_attn": placement.flash_attn.value,
        "load_mode": placement.load_mode.value,
        "repack": placement.repack,
        "numa": placement.numa.value if placement.numa else None,
        "op_offload": placement.op_offload,
        "load_mtp": placement.load_mtp,
        "cache_ram_mib": placement.cache_ram_bytes // MIB,
        "sampling": {
            "temp": sampling.temperature,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "penalty_repeat": sampling.repeat_penalty,
        },
    }
    return json.dumps(document, indent=2)


def launch(plan: Plan, engine: Engine, endpoint: Endpoint, *, python: str, config_file: str) -> Launch:
    """The embedded server of `plan` under the interpreter `python`, with its configuration in `config_file`."""
    text = config(
        plan, host=endpoint.host, port=endpoint.port, alias=endpoint.alias, api_key_file=endpoint.api_key_file
    )
    return Launch(
        engine=engine.kind,
        argv=(python, "-m", "glmplan.launchers.xllamacpp_server", config_file),
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/health",
        timings=True,
        files=(LaunchFile(path=config_file, text=text),),
        env=tuple(plan.placement.variables.items()),
        drop_env=("HF_TOKEN",),
    )

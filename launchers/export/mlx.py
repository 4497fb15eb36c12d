"""mlx-lm: a server for Apple silicon that reads MLX weights and takes all settings on its command line."""

import json
from typing import Final

from glmplan.launchers.export import targets
from glmplan.launchers.export.experts import experts_in_words, has_experts_in_main_memory
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    is_mac,
    refuse,
    require_private,
    without_huge_pages,
)
from glmplan.launchers.export.quoting import shell
from glmplan.launchers.export.weights import stand_in
from glmplan.placement import FlashAttention

# The name under which the server's own model is always to be had (mlx_lm/server.py `ModelProvider`).
DEFAULT_MODEL: Final = "default_model"


def command(request: ExportRequest) -> Exported:
    """`mlx_lm.server` as a shell command.

    Raises:
        NotExpressible: the plan quantises the KV cache, or keeps experts apart from the rest.
    """
    require_possible(request)
    facts = targets.of("mlx_lm")
    weights = stand_in(request.plan, "mlx", "mlx-lm")
    losses = (*weights.remarks, *losses_of(request))
    notes = (
        f"needs mlx-lm {facts['minimum_version']} or newer; {weights.repo} is fetched from the model hub",
        "ready when GET /health says ok and one token comes back: /health says ok while the model still loads",
    )
    words = ["mlx_lm.server", *(f"{name} {shell(value)}" for name, value in options(request, weights.repo).items())]
    text = comments(request, losses, also=notes) + " \\\n  ".join(words) + "\n"
    return Exported(text=text, suffix=".txt", losses=losses)


def require_possible(request: ExportRequest) -> None:
    """Stop when mlx-lm cannot run the plan at all.

    Raises:
        NotExpressible: the plan quantises the KV cache, keeps experts apart from the rest, or opens the server.
    """
    placement = request.placement
    require_private("mlx-lm", request, hint="--host 127.0.0.1, and a proxy with keys before it")
    refuse(
        "mlx-lm",
        {
            f"a KV cache of {placement.cache_type_k} (--kv-bits crashes with this model)": (
                placement.cache_type_k not in {"f16", "bf16"}
            ),
            experts_in_words(placement, request.plan.model.n_layer): has_experts_in_main_memory(placement),
        },
        hint="plan with --cache-type f16 for a Mac, or export for llama-server",
    )


def options(request: ExportRequest, model: str) -> dict[str, str]:
    """Every option of `mlx_lm.server` with its value; `model` is a repository of the hub or a folder."""
    placement, sampling = request.placement, request.defaults.sampling
    switches = {"enable_thinking": request.thinking}
    if request.thinking and request.defaults.preserve_thinking:
        switches["clear_thinking"] = False
    kv_bytes = targets.of("weights")["kv_bytes_per_token"]["bf16"] * placement.n_ctx
    return {
        "--model": model,
        "--host": request.endpoint.host,
        "--port": str(request.endpoint.port),
        "--temp": f"{sampling.temperature:g}",
        "--top-p": f"{sampling.top_p:g}",
        "--min-p": f"{sampling.min_p:g}",
        "--max-tokens": str(request.max_new_tokens),
        "--chat-template-args": json.dumps(switches),
        "--decode-concurrency": str(placement.n_parallel),
        "--prompt-concurrency": "1",
        "--prefill-step-size": str(placement.n_batch),
        "--prompt-cache-bytes": str(kv_bytes),
    }


def losses_of(request: ExportRequest) -> tuple[str, ...]:
    """What of the plan its command line cannot say."""
    placement, plan = request.placement, request.plan
    alias = request.endpoint.alias
    return applying({
        f"{placement.n_ctx} tokens of context: the cache grows as it likes, only the prompt cache is bounded": True,
        f"a ubatch of {placement.n_ubatch}: mlx-lm has one step size, {placement.n_batch}": (
            placement.n_batch != placement.n_ubatch
        ),
        f"{placement.n_gpu_layers} layers on the GPU: MLX computes everything there": (
            placement.n_gpu_layers <= plan.model.n_layer
        ),
        "flash attention off: MLX has no such setting": placement.flash_attn is FlashAttention.OFF,
        f"the model name {alias}: clients must ask for the repository's name, or for {DEFAULT_MODEL}": (
            alias != DEFAULT_MODEL
        ),
        "multi-token prediction: mlx-lm has none": placement.load_mtp,
        **without_huge_pages(placement),
        "the API key: mlx-lm has none": request.endpoint.api_key_file is not None,
        f"the machine: planned for {plan.machine.os}, MLX wants Apple silicon": not is_mac(plan),
    })  # fmt: skip

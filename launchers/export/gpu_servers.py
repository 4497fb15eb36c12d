"""vLLM and SGLang: everything on GPUs, weights from the model hub, the KV cache shared by all requests."""

import json
import math
from typing import Any, Final

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets, yaml_text
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
from glmplan.launchers.export.quoting import key_in_shell, shell
from glmplan.launchers.export.weights import Weights, stand_in
from glmplan.noun import noun
from glmplan.placement import FlashAttention
from glmplan.plan import Plan
from glmplan.units import format_bytes

_CHANGE: Final = "plan for llama-server, or for GPUs that hold the whole model"


@noun
class Serving:
    """What both runtimes are told."""

    weights: Weights
    tensor_parallel: int
    kv_type: str
    context: int
    losses: tuple[str, ...]


def vllm_command(request: ExportRequest) -> Exported:
    """`vllm serve` as a shell command."""
    serving = serving_of(request, "vllm", "vLLM")
    key_file = request.endpoint.api_key_file
    start = f"VLLM_API_KEY={key_in_shell(key_file)} vllm serve" if key_file else "vllm serve"
    words = [start, shell(serving.weights.repo), *_words(vllm_options(request, serving))]
    return _as_command(request, serving, words, vllm_notes(serving))


def vllm_config(request: ExportRequest) -> Exported:
    """The YAML file of `vllm serve --config FILE`.

    Raises:
        NotExpressible: not to be served so, or open to others: the key is no part of the file.
    """
    require_private("vLLM's configuration", request, hint="export the command (vllm): it reads the key file")
    serving = serving_of(request, "vllm", "vLLM")
    options = {"model": serving.weights.repo, **vllm_options(request, serving)}
    return _as_yaml(request, serving, options, (*vllm_notes(serving), *_key_note(request, "export VLLM_API_KEY=")))


def sglang_command(request: ExportRequest) -> Exported:
    """`python3 -m sglang.launch_server` as a shell command."""
    serving = serving_of(request, "sglang", "SGLang")
    key_file = request.endpoint.api_key_file
    words = ["python3 -m sglang.launch_server", *_words(_sglang_options(request, serving))]
    if key_file:  # its only way: whoever may list this machine's processes sees the key
        words.append(f"--api-key {key_in_shell(key_file)}")
    return _as_command(request, serving, words, _sglang_notes(request, serving))


def sglang_config(request: ExportRequest) -> Exported:
    """The YAML file of `python3 -m sglang.launch_server --config FILE`.

    Raises:
        NotExpressible: not to be served so, or open to others: the key is no part of the file.
    """
    require_private("SGLang's configuration", request, hint="export the command (sglang): it reads the key file")
    serving = serving_of(request, "sglang", "SGLang")
    return _as_yaml(
        request,
        serving,
        _sglang_options(request, serving),
        (*_sglang_notes(request, serving), *_key_note(request, "add --api-key ")),
    )


def serving_of(request: ExportRequest, target: str, runtime: str) -> Serving:
    """What can be served of the plan.

    Raises:
        NotExpressible: the plan leaves part of the model in main memory, or the weights do not fit on its GPUs.
    """
    facts, placement, plan = targets.of(target), request.placement, request.plan
    layers = plan.model.n_layer + 1
    refuse(
        runtime,
        {
            "a machine without GPUs": placement.n_gpu_layers == 0 or not plan.machine.gpus,
            f"{placement.n_gpu_layers} of {layers} layers on GPUs": 0 < placement.n_gpu_layers < layers - 1,
            experts_in_words(placement, plan.model.n_layer): has_experts_in_main_memory(placement),
            f"a KV cache of {placement.cache_type_k}": placement.cache_type_k not in facts["kv_types"],
            "Apple GPUs": is_mac(plan),
        },
        hint=_CHANGE,
    )
    weights = stand_in(plan, "safetensors", runtime)
    tensor_parallel, idle = _tensor_parallel(plan)
    context = placement.n_ctx if placement.kv_unified else placement.n_ctx // placement.n_parallel
    kv_type = facts["kv_types"][placement.cache_type_k]
    _require_room(plan, weights, tensor_parallel, kv_bytes=_kv_bytes(kv_type) * context, share=facts["memory_share"])
    return Serving(
        weights=weights,
        tensor_parallel=tensor_parallel,
        kv_type=kv_type,
        context=context,
        losses=(*weights.remarks, *idle, *_losses(request, runtime, kv_type)),
    )


def _tensor_parallel(plan: Plan) -> tuple[int, tuple[str, ...]]:
    """The most GPUs that divide the attention heads, and what is said about the others."""
    n_head, n_gpu = targets.of("weights")["n_head"], len(plan.machine.gpus)
    most = max(count for count in range(1, n_gpu + 1) if n_head % count == 0)
    idle = f"{n_gpu - most} of {n_gpu} GPUs stay idle: tensor parallel must divide {n_head} attention heads"
    return most, applying({idle: most < n_gpu})


def _kv_bytes(kv_type: str) -> int:
    rows: dict[str, int] = targets.of("weights")["kv_bytes_per_token"]
    return rows["fp8" if kv_type.startswith("fp8") else "bf16"]


def _require_room(plan: Plan, weights: Weights, tensor_parallel: int, *, kv_bytes: int, share: float) -> None:
    """Each GPU holds its part of the weights, and the whole KV cache (one latent row cannot be divided).

    Raises:
        NotExpressible: the smallest GPU is too small.
    """
    smallest = min(gpu.memory_total_bytes for gpu in plan.machine.gpus[:tensor_parallel])
    needed = math.ceil(weights.weights_bytes / tensor_parallel) + kv_bytes
    room = int(smallest * share)
    if needed <= room:
        return
    message = (
        f"{weights.repo} does not fit: {format_bytes(needed)} per GPU (weights and KV cache), "
        f"{format_bytes(room)} of {format_bytes(smallest)} are for them"
    )
    raise NotExpressible(
        message,
        hint="plan a smaller context (glmplan plan --n-ctx N), or stay with llama-server",
        facts={"needed_bytes": needed, "usable_bytes": room},
    )


def _losses(request: ExportRequest, runtime: str, kv_type: str) -> tuple[str, ...]:
    placement = request.placement
    return applying({
        f"KV cache {placement.cache_type_k}: {kv_type} instead, which not every attention backend takes": (
            kv_type.startswith("fp8")
        ),
        f"flash attention off: {runtime} chooses its attention backend": placement.flash_attn is FlashAttention.OFF,
        "a prompt cache in main memory: prefixes are cached in the KV cache": placement.cache_ram_bytes > 0,
        "weights locked in memory": placement.use_mlock,
        **without_huge_pages(placement),
    })  # fmt: skip


def vllm_options(request: ExportRequest, serving: Serving) -> dict[str, Any]:
    """Options of `vllm serve`, by name without the dashes; values that are objects are JSON texts."""
    facts, placement, sampling = targets.of("vllm"), request.placement, request.defaults.sampling
    generation = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repeat_penalty,
    }
    options: dict[str, Any] = {
        "served-model-name": request.endpoint.alias,
        "host": request.endpoint.host,
        "port": request.endpoint.port,
        "max-model-len": serving.context,
        "max-num-seqs": placement.n_parallel,
        "max-num-batched-tokens": max(placement.n_batch, placement.n_parallel),
        "gpu-memory-utilization": facts["memory_share"],
        "tensor-parallel-size": serving.tensor_parallel,
        "kv-cache-dtype": serving.kv_type,
        "enable-prefix-caching": True,
        "enable-auto-tool-choice": True,
        "tool-call-parser": facts["tool_parser"],
        "reasoning-parser": facts["reasoning_parser"],
        "override-generation-config": json.dumps(generation),
    }
    if switches := _template_switches(request):
        options["default-chat-template-kwargs"] = json.dumps(switches)
    if placement.load_mtp:
        options["speculative-config"] = json.dumps({"method": "mtp", "num_speculative_tokens": 1})
    return options


def _sglang_options(request: ExportRequest, serving: Serving) -> dict[str, Any]:
    facts, placement = targets.of("sglang"), request.placement
    options: dict[str, Any] = {
        "model-path": serving.weights.repo,
        "served-model-name": request.endpoint.alias,
        "host": request.endpoint.host,
        "port": request.endpoint.port,
        "tp-size": serving.tensor_parallel,
        "context-length": serving.context,
        "max-running-requests": placement.n_parallel,
        "chunked-prefill-size": placement.n_batch,
        "mem-fraction-static": facts["memory_share"],
        "attention-backend": facts["attention_backend"],
        "kv-cache-dtype": serving.kv_type,
        "tool-call-parser": facts["tool_parser"],
        "reasoning-parser": facts["reasoning_parser"],
        "sampling-defaults": "model",
        "enable-metrics": True,
    }
    if switches := _template_switches(request):
        options["default-chat-template-kwargs"] = json.dumps(switches)
    if placement.load_mtp:
        options |= {
            "speculative-algorithm": "EAGLE",
            "speculative-num-steps": 3,
            "speculative-eagle-topk": 1,
            "speculative-num-draft-tokens": 4,
        }
    return options


def _template_switches(request: ExportRequest) -> dict[str, bool]:
    if not request.thinking:
        return {"enable_thinking": False}
    return {"clear_thinking": False} if request.defaults.preserve_thinking else {}


def vllm_notes(serving: Serving) -> tuple[str, ...]:
    """What a file for vLLM says of versions and weights."""
    version = targets.of("vllm")["minimum_version"]
    return (f"needs vLLM {version} or newer; {serving.weights.repo} is fetched from the model hub",)


def _sglang_notes(request: ExportRequest, serving: Serving) -> tuple[str, ...]:
    version, sampling = targets.of("sglang")["minimum_version"], request.defaults.sampling
    return (
        f"needs SGLang {version} or newer; {serving.weights.repo} is fetched from the model hub",
        f"sampling is the repository's: requests name temperature {sampling.temperature:g}, top_p {sampling.top_p:g}",
    )


def _key_note(request: ExportRequest, before: str) -> tuple[str, ...]:
    """How the key gets to a server whose file cannot hold it."""
    key_file = request.endpoint.api_key_file
    return (f"the API key: {before}{key_in_shell(key_file)}",) if key_file else ()


def _words(options: dict[str, Any]) -> list[str]:
    return [f"--{name}" if value is True else f"--{name} {shell(str(value))}" for name, value in options.items()]


def _as_command(request: ExportRequest, serving: Serving, words: list[str], notes: tuple[str, ...]) -> Exported:
    text = comments(request, serving.losses, also=notes) + " \\\n  ".join(words) + "\n"
    return Exported(text=text, suffix=".txt", losses=serving.losses)


def _as_yaml(request: ExportRequest, serving: Serving, options: dict[str, Any], notes: tuple[str, ...]) -> Exported:
    text = comments(request, serving.losses, also=notes) + yaml_text.dump(options)
    return Exported(text=text, suffix=".yaml", losses=serving.losses)

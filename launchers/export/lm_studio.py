"""LM Studio: a portable model.yaml, the per-model defaults of the app, and the `lms` commands that load the model.

Keys are those of @lmstudio/sdk 2.0.0 (globalConfigSchematics). Offload is a ratio of layers there, not a count.
"""

import json
from typing import Any, Final

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.experts import (
    experts_in_words,
    has_experts_in_main_memory,
    layers_in_main_memory,
)
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    is_file,
    path_of,
    published_name,
    require_private,
    without_huge_pages,
)
from glmplan.launchers.export.quoting import shell
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Plan

_FINE: Final = 4  # digits of a ratio: enough to mean one layer of 48


def model_yaml(request: ExportRequest) -> Exported:
    """A model.yaml (modelyaml.org): the base model with load and sampling settings, for every LM Studio."""
    _refuse(request)
    facts = targets.of("weights")
    losses = _losses(request)
    document = {
        "model": f"glmplan/{request.endpoint.alias}",
        "base": [
            {
                "key": f"{facts['gguf_user']}/{facts['gguf_repo']}".lower(),
                "sources": [{"type": "huggingface", "user": facts["gguf_user"], "repo": facts["gguf_repo"]}],
            }
        ],
        "metadataOverrides": {
            "reasoning": True,
            "trainedForToolUse": True,
            "contextLengths": [request.plan.model.n_ctx_train],
        },
        "config": {
            "operation": {"fields": _fields(prediction_fields(request))},
            "load": {"fields": _fields(load_fields(request))},
        },
        "customFields": [_thinking_switch(request)],
    }
    note = (
        f"needs LM Studio {targets.of('lm_studio')['version']} or newer; download {published_name(request.plan)} in it"
    )
    return Exported(
        text=comments(request, losses, also=(note,)) + yaml_text.dump(document), suffix=".yaml", losses=losses
    )


def model_defaults(request: ExportRequest) -> Exported:
    """The app's own defaults for one model file: JSON, which holds no comments."""
    _refuse(request)
    document = {
        "preset": "",
        "operation": {"fields": _fields(prediction_fields(request))},
        "load": {"fields": _fields(load_fields(request))},
    }
    return Exported(text=json.dumps(document, indent=2) + "\n", suffix=".json", losses=_losses(request))


def load_command(request: ExportRequest) -> Exported:
    """The `lms` commands: import the file if there is one, load it, serve it."""
    _refuse(request)
    facts, plan, placement = targets.of("weights"), request.plan, request.placement
    name = path_of(plan.model.file).name if is_file(plan.model.file) else published_name(plan)
    repo = f"{facts['gguf_user']}/{facts['gguf_repo']}"
    key = f"{repo}/{name}"
    losses = _losses(request) + _losses_of_the_command(request)
    get = f"lms get {repo}@{plan.model.quantization.lower()}"
    if is_file(plan.model.file):
        get = f"lms import --user-repo {repo} --symbolic-link --yes {shell(plan.model.file)}"
    load = (
        f"lms load {shell(key)} --exact --yes --context-length {placement.n_ctx} --gpu {_as_word(offload_ratio(plan))} "
        f"--parallel {placement.n_parallel} --identifier {shell(request.endpoint.alias)}"
    )
    lines = [get, load, f"lms server start --port {request.endpoint.port}"]
    return Exported(text=comments(request, losses) + "\n".join(lines) + "\n", suffix=".sh", losses=losses)


def load_fields(request: ExportRequest) -> dict[str, Any]:
    """How the model is loaded, by LM Studio's keys."""
    placement = request.placement
    kv = {"checked": placement.cache_type_k != "f16", "value": placement.cache_type_k}
    fields: dict[str, Any] = {
        "llm.load.contextLength": placement.n_ctx,
        "llm.load.numParallelSessions": placement.n_parallel,
        "llm.load.useUnifiedKvCache": placement.kv_unified,
        "llm.load.offloadKVCacheToGpu": placement.n_gpu_layers > 0,
        "llm.load.numCpuExpertLayersRatio": expert_ratio(request.plan),
        "llm.load.llama.autoFit": False,
        "llm.load.llama.acceleration.offloadRatio": offload_ratio(request.plan),
        "llm.load.llama.cpuThreadPoolSize": placement.n_threads,
        "llm.load.llama.evalBatchSize": placement.n_batch,
        "llm.load.llama.physicalBatchSize": placement.n_ubatch,
        "llm.load.llama.flashAttention": placement.flash_attn is not FlashAttention.OFF,
        "llm.load.llama.tryMmap": placement.use_mmap,
        "llm.load.llama.keepModelInMemory": placement.use_mlock,
        "llm.load.llama.kCacheQuantizationType": kv,
        "llm.load.llama.vCacheQuantizationType": kv,
    }
    if placement.load_mtp:
        fields["llm.load.llama.speculativeDecoding.draftMtp"] = True
    return fields


def prediction_fields(request: ExportRequest) -> dict[str, Any]:
    """How answers are sampled; the repeat penalty, on by default there, is switched off."""
    sampling = request.defaults.sampling
    return {
        "llm.prediction.temperature": sampling.temperature,
        "llm.prediction.topPSampling": {"checked": True, "value": sampling.top_p},
        "llm.prediction.minPSampling": {"checked": True, "value": sampling.min_p},
        "llm.prediction.repeatPenalty": {"checked": False, "value": sampling.repeat_penalty},
        "llm.prediction.maxPredictedTokens": {"checked": True, "value": request.max_new_tokens},
        "llm.prediction.llama.cpuThreads": request.placement.n_threads,
        "llm.prediction.reasoning.enableThinking": request.thinking,
    }


def offload_ratio(plan: Plan) -> float | str:
    """`max`, `off`, or the share of layers on GPUs; rounded up, so that it never means one layer less."""
    layers = plan.model.n_layer + 1
    if plan.placement.n_gpu_layers >= layers:
        return "max"
    return _ratio(plan.placement.n_gpu_layers, layers)


def expert_ratio(plan: Plan) -> float | str:
    """`max`, `off`, or the share of layers whose experts stay in main memory."""
    count = layers_in_main_memory(plan.placement, plan.model.n_layer)
    return "max" if count >= plan.model.n_layer else _ratio(count, plan.model.n_layer)


def _ratio(count: int, of: int) -> float | str:
    return round(count / of, _FINE) if count else "off"


def _as_word(ratio: float | str) -> str:
    return ratio if isinstance(ratio, str) else f"{ratio:g}"


def _fields(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _thinking_switch(request: ExportRequest) -> dict[str, Any]:
    return {
        "key": "enableThinking",
        "displayName": "Think",
        "description": "Whether the model thinks before it answers",
        "type": "boolean",
        "defaultValue": request.thinking,
        "effects": [{"type": "setJinjaVariable", "variable": "enable_thinking"}],
    }


def _refuse(request: ExportRequest) -> None:
    """Stop at KV types LM Studio has not, and at addresses it cannot protect.

    Raises:
        NotExpressible: one of these.
    """
    placement, types = request.placement, targets.of("lm_studio")["cache_types"]
    if placement.cache_type_k not in types:
        message = f"LM Studio stores the KV cache as {', '.join(types)}, not as {placement.cache_type_k}"
        raise NotExpressible(message, hint="plan again with --cache-type f16 or q8_0", facts={"types": list(types)})
    require_private("LM Studio", request, hint="--host 127.0.0.1; switch on network access and its key in the app")


def _losses(request: ExportRequest) -> tuple[str, ...]:
    placement = request.placement
    count = layers_in_main_memory(placement, request.plan.model.n_layer)
    return applying({
        f"{placement.n_threads_batch} threads for prefill: LM Studio takes {placement.n_threads} for both": (
            placement.n_threads_batch != placement.n_threads
        ),
        f"experts tensor by tensor: LM Studio moves those of the first {count} layers, and no other tensors": bool(
            placement.override_tensor
        ),
        "tensor split: LM Studio splits by its own hardware settings": bool(placement.tensor_split),
        "repacking off: LM Studio has no setting for it": not placement.repack,
        f"NUMA {placement.numa}: LM Studio has no setting for it": placement.numa is not None,
        "op_offload off: LM Studio has no setting for it": not placement.op_offload,
        **without_huge_pages(placement),
        "flash attention 'auto': switched on": placement.flash_attn is FlashAttention.AUTO,
        f"a prompt cache of {placement.cache_ram_bytes} bytes: LM Studio decides": placement.cache_ram_bytes > 0,
        "the API key: LM Studio's is set in the app": request.endpoint.api_key_file is not None,
    })  # fmt: skip


def _losses_of_the_command(request: ExportRequest) -> tuple[str, ...]:
    placement: Placement = request.placement
    where = "only in the per-model defaults (glmplan export lm-studio-defaults)"
    return applying({
        f"{experts_in_words(placement, request.plan.model.n_layer)}: {where}": has_experts_in_main_memory(placement),
        f"KV cache {placement.cache_type_k}: {where}": placement.cache_type_k != "f16",
        f"batches, threads, flash attention, mmap and sampling: {where}": True,
    })  # fmt: skip

"""The configuration file of `python -m llama_cpp.server`: JSON, which holds no comments."""

import json
from dataclasses import replace
from typing import Any

from glmplan.engine import EngineKind
from glmplan.launchers import llama_cpp_python
from glmplan.launchers.export.experts import experts_in_words, has_experts_in_main_memory
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    model_path,
    refuse,
    require_private,
    without_huge_pages,
)
from glmplan.placement import FlashAttention, Placement


def config(request: ExportRequest) -> Exported:
    """The settings of the server and its one model; the API key, if any, comes from the variable API_KEY."""
    placement, endpoint = request.placement, request.endpoint
    require_private("llama-cpp-python", request, hint="--host 127.0.0.1, and a proxy with keys before it")
    refuse(
        str(EngineKind.LLAMA_CPP_PYTHON),
        {experts_in_words(placement, request.plan.model.n_layer): has_experts_in_main_memory(placement)},
        hint="plan for it: glmplan plan --engine llama-cpp-python",
    )
    path, assumed = model_path(request.plan)
    plan = replace(request.plan, placement=_expressible(placement), model=replace(request.plan.model, file=path))
    text = llama_cpp_python.config(plan, host=endpoint.host, port=endpoint.port, alias=endpoint.alias)
    document: dict[str, Any] = json.loads(text)
    switches = _template_switches(request)
    if switches:
        document["models"][0]["chat_template_kwargs"] = switches
    return Exported(
        text=json.dumps(document, indent=2) + "\n",
        suffix=".json",
        losses=assumed + _losses(request),
    )


def _template_switches(request: ExportRequest) -> dict[str, bool]:
    """Arguments of the chat template that differ from its own defaults: it thinks, and clears earlier thoughts."""
    if not request.thinking:
        return {"enable_thinking": False}
    return {"clear_thinking": False} if request.defaults.preserve_thinking else {}


def _expressible(placement: Placement) -> Placement:
    """The placement with the knobs this server lacks at what it does instead."""
    return replace(
        placement,
        engine=EngineKind.LLAMA_CPP_PYTHON,
        n_parallel=1,
        repack=True,
        op_offload=True,
        load_mtp=False,
        cache_ram_bytes=0,
        flash_attn=FlashAttention.ON if placement.flash_attn is FlashAttention.AUTO else placement.flash_attn,
    )


def _losses(request: ExportRequest) -> tuple[str, ...]:
    placement, sampling = request.placement, request.defaults.sampling
    return applying({
        f"{placement.n_parallel} slots: this server answers one request after the other": placement.n_parallel > 1,
        "repacking off: this server repacks on a CPU, which doubles the weights while loading": not placement.repack,
        "op_offload off: this server has no setting for it": not placement.op_offload,
        "multi-token prediction: this server has none": placement.load_mtp,
        **without_huge_pages(placement),
        f"a prompt cache of {placement.cache_ram_bytes} bytes: left out": placement.cache_ram_bytes > 0,
        "flash attention 'auto': switched on": placement.flash_attn is FlashAttention.AUTO,
        f"sampling defaults: requests must name temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, "
        f"min_p {sampling.min_p:g}": True,
        "tool calls and thoughts are not parsed: answers hold them as text": True,
        "the API key: set the variable API_KEY to the content of the key file": (
            request.endpoint.api_key_file is not None
        ),
    })  # fmt: skip

"""Other runtimes and older builds: which layout a version has, and what the ledger becomes under it.

The memory model counts current llama.cpp. A version's layout (`profiles/runtimes/*.yaml`) says what is stored per
token instead, and for llama.cpp how its compute buffers differed; engines of their own keep llama.cpp's weights and
compute buffers as a stand-in, which a warning says.
"""

import re
from dataclasses import replace
from typing import Final

from glmplan.errors import InputError
from glmplan.estimate import Basis, DeviceMemory, MemoryEstimate
from glmplan.ggml_types import GgmlType, cache_type, is_quantized, row_bytes
from glmplan.model import Attention, MlaAttention, ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.buffers import PIPELINE_COPIES
from glmplan.planner.kv_cache import row_widths
from glmplan.planner.memory import MemoryModel
from glmplan.runtime_layout import CacheContent, RuntimeHistory, RuntimeLayout

_BUILD: Final = re.compile(r"b(\d+)|(\d{3,})")
_DATE: Final = re.compile(r"\d{4}-\d{2}(-\d{2})?")
_DOTTED: Final = re.compile(r"v?(\d+(?:\.\d+)*)(?:[-+.]?(?:rc|dev|post|a|b).*)?")


def layout_of(history: RuntimeHistory, version: str | None) -> RuntimeLayout:
    """The layout of `version`: a build (b7836), a release (0.15.1) or a date (2026-02-15); None is the newest.

    Raises:
        InputError: before the version that first runs the model, or not a version.
    """
    if version is None:
        return history.layouts[-1]
    text = version.strip().lower()
    if _DATE.fullmatch(text):
        # A month alone means its last day.
        day = text if len(text) > len("2026-01") else f"{text}-31"
        older = [layout for layout in history.layouts if layout.date <= day]
    else:
        key = _key(text, history)
        older = [layout for layout in history.layouts if _key(layout.since, history) <= key]
    if older:
        return older[-1]
    message = f"{history.title} {version} cannot run this model: support starts with {history.floor}"
    raise InputError(
        message,
        hint=f"--runtime-version {history.floor} ({history.floor_date}) or newer",
        facts={"runtime": history.runtime, "version": version, "floor": history.floor},
    )


def _key(text: str, history: RuntimeHistory) -> tuple[int, ...]:
    """Order of versions; llama.cpp's dotted releases came after its numbered builds."""
    build = _BUILD.fullmatch(text)
    if build:
        return (0, int(build[1] or build[2]))
    dotted = _DOTTED.fullmatch(text)
    if dotted:
        return (1, *(int(part) for part in dotted[1].split(".")))
    message = f"not a version of {history.title}: {text!r}"
    raise InputError(message, hint=f"for example --runtime-version {history.layouts[-1].since}, or a date: 2026-02-15")


def stored_widths(attention: Attention, stores: CacheContent) -> tuple[int, ...]:
    """Elements of each tensor a layer caches of one token."""
    if not isinstance(attention, MlaAttention) or stores is CacheContent.LATENT_K:
        return row_widths(attention)
    if stores is CacheContent.LATENT_K_V:
        return (*row_widths(attention), attention.kv_lora_rank)
    return (attention.n_head * attention.key_length_mla, attention.n_head * attention.value_length_mla)


def stored_bytes_per_token(model: ModelProfile, stores: CacheContent, kv_type: GgmlType) -> int:
    """Bytes one token of context costs in all layers."""
    n_layers = model.n_layer - model.n_nextn_layers
    return n_layers * sum(row_bytes(kv_type, width) for width in stored_widths(model.attention, stores))


def fitted_placement(
    placement: Placement, history: RuntimeHistory, layout: RuntimeLayout, *, has_gpus: bool
) -> Placement:
    """`placement` as this version can run it: without flash attention where it has none.

    Raises:
        InputError: a cache type this runtime, or this version of it, does not have.
    """
    wanted = placement.cache_type_k
    if wanted not in history.cache_types:
        message = f"{history.title} has no {wanted} cache for this model"
        raise InputError(message, hint=f"--cache-type {' or '.join(history.cache_types)}")
    if not has_gpus or layout.flash_attention is not False:
        return placement
    if is_quantized(cache_type(wanted)):
        first = next((each.since for each in history.layouts if each.flash_attention), history.layouts[-1].since)
        message = f"a {wanted} cache needs flash attention, which {history.title} has for this model from {first} on"
        raise InputError(message, hint=f"--cache-type f16, or --runtime-version {first}")
    return replace(placement, flash_attn=FlashAttention.OFF)


def differences(model: ModelProfile, placement: Placement, history: RuntimeHistory, layout: RuntimeLayout) -> list[str]:
    """What is other than in current llama.cpp, one sentence each."""
    said: list[str] = []
    kv_type = cache_type(placement.cache_type_k)
    stored = stored_bytes_per_token(model, layout.stores, kv_type)
    current = stored_bytes_per_token(model, CacheContent.LATENT_K, kv_type)
    since = f"{'about ' if layout.about else ''}{layout.since}"
    if stored != current:
        kept = {CacheContent.LATENT_K_V: "the latent twice, as K and as V"}.get(layout.stores, "K and V of every head")
        said.append(
            f"{history.title} from {since} on stores {kept}: {stored} bytes per token, current llama.cpp {current}"
        )
    if layout.flash_attention is False:
        said.append(f"{history.title} from {since} on has no flash attention for this model on GPUs")
    if not layout.is_llama_cpp:
        also = "" if history.runtime == "mlx-lm" else " and speeds"
        said.append(f"weights, compute buffers{also} are llama.cpp's; those of {history.title}'s own engine differ")
    elif layout != history.layouts[-1]:
        said.append(f"compute buffers as llama.cpp had them from {since} on, within a few percent")
    return said


def ledger_of(memory: MemoryModel, placement: Placement, layout: RuntimeLayout) -> MemoryEstimate:
    """The ledger of `placement` under `layout`; the caller has fitted the placement to it."""
    now = memory.estimate(placement)
    kv_type = cache_type(placement.cache_type_k)
    stored = stored_bytes_per_token(memory.model, layout.stores, kv_type)
    current = stored_bytes_per_token(memory.model, CacheContent.LATENT_K, kv_type)
    compute = _compute_bytes(memory, placement, layout)
    pool = _pool_bytes(memory, placement, kv_type) if layout.converted_in_pool else 0
    rows = [
        replace(
            row,
            kv_cache_bytes=row.kv_cache_bytes * stored // current,
            compute_bytes=compute_bytes,
            overhead_bytes=row.overhead_bytes + (pool if row.id != "host" and row.kv_cache_bytes else 0),
        )
        for row, compute_bytes in zip(now.devices, compute, strict=True)
    ]
    rows[-1] = _shared(memory, now.devices, rows)
    return MemoryEstimate(devices=tuple(rows), basis=now.basis if layout.is_llama_cpp else Basis.ASSUMED)


def _shared(memory: MemoryModel, before: tuple[DeviceMemory, ...], rows: list[DeviceMemory]) -> DeviceMemory:
    """The host's row: one memory for both where a GPU is unified."""
    grown = sum(
        row.needed_bytes - old.needed_bytes
        for row, old, gpu in zip(rows, before, memory.spaces.gpus, strict=False)
        if gpu.unified
    )
    return replace(rows[-1], usable_bytes=rows[-1].usable_bytes - grown)


def _pool_bytes(memory: MemoryModel, placement: Placement, kv_type: GgmlType) -> int:
    """One layer's cache as f16, in CUDA's pool while attention runs."""
    if kv_type is GgmlType.F16 or placement.flash_attn is FlashAttention.OFF:
        return 0
    shape = memory.graph_shape(placement, kv_type)
    return sum(row_bytes(GgmlType.F16, width) for width in row_widths(memory.model.attention)) * shape.n_kv


def _compute_bytes(memory: MemoryModel, placement: Placement, layout: RuntimeLayout) -> list[int]:
    """Compute buffers of the GPUs in order, then of the host."""
    counted = placement
    if layout.converted_in_pool and placement.flash_attn is not FlashAttention.OFF:
        counted = replace(counted, cache_type_k="f16", cache_type_v="f16")
    if layout.batch_logits:
        counted = replace(counted, n_outputs=max(placement.n_outputs, placement.n_ubatch))
    with_logits = _compute_of(memory, counted)
    if not layout.masks_f32 or placement.flash_attn is FlashAttention.OFF:
        return with_logits
    shape = memory.graph_shape(counted, GgmlType.F16)
    without = _compute_of(memory, replace(counted, n_outputs=1))
    # An f16 mask takes two bytes, an f32 one four: each copy grows by two, and a cast to f16 comes beside them.
    step = shape.mask_bytes // 2
    ranges = memory.ranges(counted) if memory.spaces.gpus else ()
    if not _is_pipelined(counted, ranges):
        gpus = [max(a + 4 * step, b) for a, b in zip(without[:-1], with_logits[:-1], strict=True)]
        return [*gpus, with_logits[-1] + (2 if gpus else 4) * step]
    found: list[int] = []
    for index, (attention, total) in enumerate(zip(without[:-1], with_logits[:-1], strict=True)):
        grown = attention + (10 * step if index == 0 else 0)
        stage = total
        if layout.pipeline_logits_stage is not None:
            stage = layout.pipeline_logits_stage * shape.n_ubatch + PIPELINE_COPIES * shape.mask_bytes
        found.append(max(grown, stage) if total > attention else grown)
    return [*found, with_logits[-1] + 2 * PIPELINE_COPIES * step]


def _compute_of(memory: MemoryModel, placement: Placement) -> list[int]:
    gpus, host = memory.buffers(placement)
    return [*(gpu.compute_bytes for gpu in gpus), host.compute_bytes]


def _is_pipelined(placement: Placement, ranges: tuple[tuple[int, int], ...]) -> bool:
    moved = placement.n_cpu_moe > 0 or placement.override_tensor
    return len(ranges) > 1 and ranges[0][0] == 0 and not moved

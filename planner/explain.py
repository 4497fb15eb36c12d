"""Why a plan is what it is: reasons, warnings and runners-up, in sentences with their numbers."""

from collections.abc import Iterator, Sequence
from typing import Final

from glmplan.engine import EngineKind
from glmplan.ggml_types import cache_type
from glmplan.placement import FlashAttention
from glmplan.plan import Alternative, PlannedDevice, PlannedMemory, PlannedQuality, PlanRequest
from glmplan.planner.judging import Candidate, Judge, offloaded_bytes
from glmplan.planner.kv_cache import bytes_per_token
from glmplan.planner.objective import WANTED_CONTEXT
from glmplan.planner.offload import NO_PIPELINE
from glmplan.planner.room_prices import raised_limit_bytes
from glmplan.planner.slots import together
from glmplan.planner.spaces import planned_gpus
from glmplan.planner.wording import spell, spell_divergence
from glmplan.quality import Divergence, QualityTable
from glmplan.units import MIB, format_bytes

_THIN_MARGIN_BYTES: Final = 256 * MIB


def reasons(best: Candidate, ranked: Sequence[Candidate], judge: Judge) -> tuple[str, ...]:
    """What was chosen and why, most important first; `judge` is who judged `best`."""
    request, table = judge.request, judge.around.quality
    if best.memory.fits:
        found = [_quant_reason(best, ranked, judge), _context_reason(best, ranked, request)]
    else:
        nearest = f"{best.model.quantization} with {best.placement.n_ctx} tokens of context"
        found = [f"nothing fits; {nearest} is nearest to it, and --force asked to go on"]
    found += [_cache_reason(best, table), _placement_reason(best), _speed_reason(best, judge)]
    if best.placement.n_parallel > 1:
        found.append(_slots_reason(best, judge))
    found += _mtp_reasons(best, judge)
    found += _kernel_reasons(best)
    if judge.around.why_threads and (len(best.memory.devices) == 1 or offloaded_bytes(best)):
        found.append(judge.around.why_threads)
    return tuple(found)


def _kernel_reasons(best: Candidate) -> Iterator[str]:
    """What the CPU computes with, and flash attention where it is off."""
    without_flash = best.placement.flash_attn is FlashAttention.OFF
    if len(best.memory.devices) == 1 and not best.placement.repack:
        repacking = (
            "repacking is off: on a CPU it costs prefill speed and doubles memory while loading for a few percent of "
            "decode (measured on Zen 4)"
        )
        yield repacking if without_flash else f"{repacking}; flash attention is on: it speeds decode at depth"
    if best.placement.engine is EngineKind.IK_LLAMA and best.placement.repack:
        yield "weights are repacked while they are read: ik_llama.cpp's kernels gain both speeds by it (measured)"
    if without_flash:
        yield "flash attention is off: by the speeds this plan rests on, what was asked for is faster without it"


def _quant_reason(best: Candidate, ranked: Sequence[Candidate], judge: Judge) -> str:
    name, table = best.model.quantization, judge.around.quality
    told = f"; {spell_divergence(table.of_file(name))}" if table else ""
    if judge.request.quant is not None:
        return f"{name}: asked for{told}"
    rank = best.model.quality_rank
    better = {c.model.quantization for c in ranked if _is_better(c.model.quality_rank, rank)}
    if better:
        lost = f"{', '.join(sorted(better))} fits too, but costs more than half of the decode speed or of the context"
        return f"{name}: {lost}{told}"
    same = {c.model.quantization for c in ranked if c.model.quality_rank == rank} - {name}
    if same:
        floor = f", where measuring alone gives {table.floor:.2g}" if table else ""
        beside = f"{', '.join(sorted(same))} also fits, is slower and gives the same answers{told}{floor}"
        return f"{name}: the best quality that fits; {beside}"
    looked = {c.model.quantization for c in ranked}
    among = f" of {len(looked)} files that fit" if len(looked) > 1 else ""
    return f"{name}: the best quality{among or ' of the files looked at that fits'}{told}"


def _is_better(rank: int | None, other: int | None) -> bool:
    return rank is not None and other is not None and rank < other


def _context_reason(best: Candidate, ranked: Sequence[Candidate], request: PlanRequest) -> str:
    n_ctx = best.placement.n_ctx
    if request.n_ctx is not None:
        return f"{n_ctx} tokens of context: asked for"
    if n_ctx == best.model.n_ctx_train:
        return f"{n_ctx} tokens of context: all the model was trained for"
    longer = [
        c
        for c in ranked
        if c.model.quantization == best.model.quantization
        and c.placement.cache_type_k == best.placement.cache_type_k
        and c.placement.n_ctx > n_ctx
    ]
    if longer:
        nearest = min(longer, key=lambda c: c.placement.n_ctx)
        speed = nearest.speed.decode_tokens_per_s.value
        moved = offloaded_bytes(nearest) - offloaded_bytes(best)
        beside = f"move {format_bytes(moved)} of experts to main memory: " if moved > 0 else ""
        return (
            f"{n_ctx} tokens of context: {nearest.placement.n_ctx} fit as well, but {beside}decode at a quarter of "
            f"them falls to {speed:.1f} tokens/s ({nearest.speed.decode_tokens_per_s.basis})"
        )
    short = "" if n_ctx >= WANTED_CONTEXT else f", less than the {WANTED_CONTEXT} an agent wants"
    return f"{n_ctx} tokens of context: the longest that fits{short}"


def _cache_reason(best: Candidate, table: QualityTable | None) -> str:
    kind = best.placement.cache_type_k
    per_token = bytes_per_token(best.model.attention, cache_type(kind), best.model.n_layer - best.model.n_nextn_layers)
    one = "only K is stored (MLA)" if best.model.attention.kind == "mla" else "K and V"
    told = f"; {spell_divergence(table.of_cache(kind))}" if table and kind != "f16" else ""
    return f"KV cache {kind}: {per_token} bytes per token, {one}{told}"


def _mtp_reasons(best: Candidate, judge: Judge) -> Iterator[str]:
    would = judge.drafting(best)
    if would is None:
        return
    yield (
        f"MTP is off: one drafted token a step would make decode {would.times:.2g} times as fast at this depth "
        f"({spell(would.decode_tokens_per_s)} tokens/s; published: 0.83 times with vLLM, 1.11 to 1.28 with llama.cpp) "
        f"and take {format_bytes(would.n_bytes)}; it would be on if the least of that were a gain "
        "(--spec-type draft-mtp --spec-draft-n-max 1)"
    )


def _slots_reason(best: Candidate, judge: Judge) -> str:
    placement, depth = best.placement, best.speed.depth_tokens
    decode = spell(together(judge.speed, placement, depth))
    if placement.kv_unified:
        how = f"share one cache, in which any of them may take all {placement.n_ctx} tokens"
    else:
        each = placement.n_ctx // placement.n_parallel
        how = f"have a cache of {each} tokens each, so that none pays for the others' context"
    return f"{placement.n_parallel} slots {how}; all busy they decode {decode} tokens/s together"


def _placement_reason(best: Candidate) -> str:
    placement, devices = best.placement, best.memory.devices
    if len(devices) == 1:
        return f"everything in main memory; {_room(devices[0].margin_bytes)}"
    free = ", ".join(f"{device.id} {format_bytes(max(0, device.margin_bytes))}" for device in devices[:-1])
    if placement.n_gpu_layers <= best.model.n_layer:
        return f"{placement.n_gpu_layers} layers on the GPUs, the rest and all experts in main memory; free: {free}"
    beside = _pipeline_words(best)
    offloaded = offloaded_bytes(best)
    if offloaded:
        return (
            f"{format_bytes(offloaded)} of routed experts in main memory, the rest on the GPU; prompts in batches of "
            f"{placement.n_ubatch} tokens, each of which copies them once; free: {free}, filled on "
            f"purpose (--reserve keeps more free){beside}"
        )
    return f"all layers on the GPU; only the embedding stays in main memory; free: {free}{beside}"


def _room(margin_bytes: int) -> str:
    return f"{format_bytes(margin_bytes)} stay free" if margin_bytes >= 0 else f"{format_bytes(-margin_bytes)} short"


def _pipeline_words(best: Candidate) -> str:
    if NO_PIPELINE not in best.placement.override_tensor:
        return ""
    return "; an override that matches nothing turns pipeline copies off: their buffers would not fit"


def _speed_reason(best: Candidate, judge: Judge) -> str:
    decode, prefill = best.speed.decode_tokens_per_s, best.speed.prefill_tokens_per_s
    seen = judge.speed.rests_on(best.placement, best.speed.depth_tokens)
    rests = f"; speeds from {seen}" if seen else ""
    depth = best.speed.depth_tokens
    return f"at {depth} tokens of depth: decode {spell(decode)}, prefill {spell(prefill)} tokens/s{rests}"


def warnings(best: Candidate, request: PlanRequest) -> tuple[str, ...]:
    """What may go wrong with this plan, and that it goes wrong where the user insisted."""
    filled_on_purpose = len(best.memory.devices) > 1 and offloaded_bytes(best)
    found: list[str] = []
    for device in best.memory.devices:
        if device.margin_bytes < 0:
            short = format_bytes(-device.margin_bytes)
            found.append(f"{device.id}: {short} short: this plan does not fit and is made because of --force")
        elif device.margin_bytes < _THIN_MARGIN_BYTES and not (filled_on_purpose and device.id != "host"):
            free = format_bytes(device.margin_bytes)
            found.append(
                f"{device.id}: only {free} stay free; another program can push this plan out of memory (--reserve "
                "keeps more free)"
            )
    floor, decode = request.min_decode_tokens_per_s, best.speed.decode_tokens_per_s.value
    if floor is not None and decode < floor:
        found.append(f"decode reaches {decode:.1f} of the {floor:g} tokens/s asked for; made because of --force")
    if best.placement.n_ctx < WANTED_CONTEXT:
        found.append(f"{best.placement.n_ctx} tokens of context are short for coding agents ({WANTED_CONTEXT} wanted)")
    return (*found, *_metal_warnings(best, request))


def _metal_warnings(best: Candidate, request: PlanRequest) -> Iterator[str]:
    """A Mac whose limit, not its memory, keeps weights off the GPU, and the line that raises it."""
    for gpu, usable in planned_gpus(request.machine):
        raised, limit = raised_limit_bytes(gpu), gpu.memory_limit_bytes
        if raised is None or limit is None or raised <= usable or not offloaded_bytes(best):
            continue
        moved = format_bytes(offloaded_bytes(best))
        yield (
            f"Metal's limit of {format_bytes(limit)} (of {format_bytes(gpu.memory_total_bytes or 0)}) keeps {moved} of "
            f"weights off the GPU: `sudo sysctl iogpu.wired_limit_mb={raised // MIB}` raises it until the next restart"
        )


def alternatives(
    best: Candidate, ranked: Sequence[Candidate], table: QualityTable | None, limit: int = 6
) -> tuple[Alternative, ...]:
    """The best runner-up of every other file and cache type, and of the other contexts, with why each lost."""
    chosen: list[Candidate] = []
    seen = {(best.model.quantization, best.placement.cache_type_k)}
    for candidate in ranked:
        key = (candidate.model.quantization, candidate.placement.cache_type_k)
        if key not in seen:
            seen.add(key)
            chosen.append(candidate)
    same = [c for c in ranked[1:] if (c.model.quantization, c.placement.cache_type_k) == _key(best)]
    chosen += same[: max(0, limit - len(chosen))]
    return tuple(
        Alternative(
            quantization=candidate.model.quantization,
            placement=candidate.placement,
            memory=planned_memory(candidate),
            speed=candidate.speed,
            why_not=_why_not(candidate, best, table),
        )
        for candidate in chosen[:limit]
    )


def _key(candidate: Candidate) -> tuple[str, str]:
    return candidate.model.quantization, candidate.placement.cache_type_k


def _why_not(candidate: Candidate, best: Candidate, table: QualityTable | None) -> str:
    theirs, ours = candidate.speed.decode_tokens_per_s.value, best.speed.decode_tokens_per_s.value
    parts: list[str] = []
    if _is_better(best.model.quality_rank, candidate.model.quality_rank):
        found = table.of_file(candidate.model.quantization) if table else None
        told = f" (KL divergence {found.estimate.value:.2g})" if found and found.estimate else ""
        parts.append(f"lower quality{told}")
    if candidate.placement.n_ctx < best.placement.n_ctx:
        parts.append(f"{best.placement.n_ctx - candidate.placement.n_ctx} tokens of context less")
    if theirs < 0.95 * ours:
        parts.append(f"decode {theirs:.1f} instead of {ours:.1f} tokens/s")
    if candidate.placement.cache_type_k != "f16" and best.placement.cache_type_k == "f16":
        parts.append(f"a {candidate.placement.cache_type_k} cache, which the chosen plan does not need")
    return "; ".join(parts) or "no better in anything the objective looks at"


def planned_quality(best: Candidate, table: QualityTable | None) -> PlannedQuality | None:
    """What is known of how far the plan's file and cache move the answers."""
    if table is None:
        return None
    unknown = Divergence(estimate=None, rests_on="not published")
    return PlannedQuality(
        file=table.of_file(best.model.quantization) or unknown,
        cache=table.of_cache(best.placement.cache_type_k) or unknown,
    )


def planned_memory(candidate: Candidate) -> PlannedMemory:
    """The ledger of a candidate."""
    return PlannedMemory(
        devices=tuple(PlannedDevice.of(device) for device in candidate.memory.devices),
        basis=candidate.memory.basis.value,
    )

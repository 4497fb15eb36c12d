"""What one more step costs or buys: each step is planned, not scaled; pure."""

from collections.abc import Iterator
from dataclasses import replace

from glmplan.engine import EngineKind
from glmplan.estimate import Estimate
from glmplan.ggml_types import cache_type
from glmplan.model import ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Price
from glmplan.planner.batches import with_long_batches
from glmplan.planner.candidates import largest_context, undecided
from glmplan.planner.judging import Candidate, Judge
from glmplan.planner.kv_cache import fits_blocks
from glmplan.planner.offload import best_offload, fits_somehow, host_expert_bytes
from glmplan.planner.room_prices import room_prices
from glmplan.planner.slots import together, with_slots
from glmplan.planner.wording import spell, spell_divergence
from glmplan.units import format_bytes, three_digits

# One KV type down from each.
_SMALLER_CACHE = {"f32": "f16", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q4_0", "q5_1": "q4_0", "q5_0": "q4_0"}


def prices(best: Candidate, judge: Judge, better: ModelProfile | None) -> tuple[Price, ...]:
    """The price of every step from a chosen plan.

    Args:
        best: the plan.
        judge: who judged it.
        better: the file one quality up, where the catalog has one.
    """
    if not best.memory.fits:  # made because of --force: steps from there mean nothing
        return ()
    found = [_of_context(best, judge), *_of_cache(best, judge), *_of_quant(best, judge, better)]
    found += [*_of_slot(best, judge), *_of_batch(best, judge), *_of_mtp(best, judge)]
    return (*found, *room_prices(best, judge))


def _of_context(best: Candidate, judge: Judge) -> Price:
    wanted = min(2 * best.placement.n_ctx, best.model.n_ctx_train)
    step = f"{wanted} tokens of context"
    if wanted == best.placement.n_ctx:
        return Price(step=step, effect="nothing to gain: this is all the model was trained for")
    found = best_offload(judge.memory, replace(undecided(judge.memory, best.placement), n_ctx=wanted))
    if found is None:
        return Price(step=step, effect="does not fit")
    then = judge.judge(found)
    decode = then.speed.decode_tokens_per_s
    moved = host_expert_bytes(judge.memory, found) - host_expert_bytes(judge.memory, best.placement)
    beside = f", {format_bytes(moved)} more of experts in main memory" if moved > 0 else ""
    effect = f"decode {spell(decode)} tokens/s at {then.speed.depth_tokens} tokens of depth{beside}"
    return Price(step=step, effect=effect, n_ctx=wanted, decode_tokens_per_s=decode)


def _of_cache(best: Candidate, judge: Judge) -> Iterator[Price]:
    smaller = _SMALLER_CACHE.get(best.placement.cache_type_k)
    if (
        smaller is None
        or judge.request.cache_type is not None
        or not fits_blocks(best.model.attention, cache_type(smaller))
    ):
        return
    freed = sum(row.needed_bytes for row in best.memory.devices) - sum(
        row.needed_bytes for row in judge.memory.estimate(_with_cache(best.placement, smaller)).devices
    )
    found = best_offload(judge.memory, _with_cache(undecided(judge.memory, best.placement), smaller))
    step = f"KV cache {smaller} instead of {best.placement.cache_type_k}"
    quality = judge.around.quality.of_cache(smaller) if judge.around.quality else None
    effect = f"frees {format_bytes(freed)}; {spell_divergence(quality)}"
    if found is None:
        yield Price(step=step, effect=effect, frees_bytes=freed)
        return
    decode = judge.judge(found).speed.decode_tokens_per_s
    yield Price(
        step=step,
        effect=f"{effect}; {_instead(decode, best)}",
        frees_bytes=freed,
        decode_tokens_per_s=decode,
    )


def _with_cache(placement: Placement, kind: str) -> Placement:
    """`placement` with another cache type; a quantised one needs flash attention."""
    return replace(placement, cache_type_k=kind, cache_type_v=kind, flash_attn=FlashAttention.ON)


def _of_quant(best: Candidate, judge: Judge, better: ModelProfile | None) -> Iterator[Price]:
    if better is None:
        return
    other = Judge(better, judge.around, judge.request)
    table = judge.around.quality
    told = spell_divergence(table.of_file(better.quantization) if table else None)
    step = f"{better.quantization} instead of {best.model.quantization}"
    base = undecided(other.memory, best.placement)
    found = best_offload(other.memory, base)
    if found is not None:
        then = other.judge(found)
        decode = then.speed.decode_tokens_per_s
        moved = host_expert_bytes(other.memory, found) - host_expert_bytes(judge.memory, best.placement)
        beside = f", {format_bytes(moved)} more of experts in main memory" if moved > 0 else ""
        effect = f"{told}; {_instead(decode, best)}{beside}"
        yield Price(step=step, effect=effect, n_ctx=found.n_ctx, decode_tokens_per_s=decode)
        return
    longest = largest_context(other.memory, base, best.placement.n_ctx, fits_somehow)
    effect = f"fits with {longest.n_ctx} tokens of context" if longest else "does not fit"
    yield Price(step=step, effect=f"{told}; {effect}", n_ctx=longest.n_ctx if longest else None)


def _of_slot(best: Candidate, judge: Judge) -> Iterator[Price]:
    """One more slot in the shared cache, and, where there are several, a cache of its own for each."""
    depth, placement = best.speed.depth_tokens, best.placement
    if placement.engine is EngineKind.LLAMA_CPP_PYTHON:  # it answers one request at a time
        return
    more = with_slots(placement, placement.n_parallel + 1, kv_unified=placement.kv_unified)
    taken, fits = _taken(best, judge, more)
    now, then = together(judge.speed, placement, depth), together(judge.speed, more, depth)
    all_of = f"all slots share the {placement.n_ctx} tokens of context"
    effect = (
        f"takes {format_bytes(taken)}{fits}; all busy they decode {spell(then)} tokens/s together instead of "
        f"{three_digits(now.value)}; {all_of}"
    )
    yield Price(step=f"{more.n_parallel} slots at once", effect=effect, frees_bytes=-taken, together_tokens_per_s=then)
    if placement.n_parallel > 1:
        other = with_slots(placement, placement.n_parallel, kv_unified=not placement.kv_unified)
        taken, fits = _taken(best, judge, other)
        then = together(judge.speed, other, depth)
        whole = "one may use the whole context" if other.kv_unified else "none holds more than "
        part = "" if other.kv_unified else f"{placement.n_ctx // placement.n_parallel} tokens"
        yield Price(
            step="one cache shared by the slots" if other.kv_unified else "a cache for each slot",
            effect=f"takes {format_bytes(max(0, taken))}{fits}; all busy they decode {spell(then)} tokens/s together "
            f"instead of {three_digits(now.value)}; {whole}{part}",
            frees_bytes=-taken,
            together_tokens_per_s=then,
        )


def _taken(best: Candidate, judge: Judge, placement: Placement) -> tuple[int, str]:
    """Bytes more than the plan's, and words where they do not fit."""
    rows = judge.memory.estimate(placement)
    taken = sum(row.needed_bytes for row in rows.devices) - sum(row.needed_bytes for row in best.memory.devices)
    return taken, "" if rows.fits else " and does not fit beside this plan"


def _of_mtp(best: Candidate, judge: Judge) -> Iterator[Price]:
    would = judge.drafting(best)
    if would is None:
        return
    decode = would.decode_tokens_per_s
    effect = f"takes {format_bytes(would.n_bytes)}; decode {spell(decode)} tokens/s"
    yield Price(
        step="drafting with the file's MTP block, one token a step",
        effect=f"{effect} instead of {three_digits(best.speed.decode_tokens_per_s.value)}",
        frees_bytes=-would.n_bytes,
        decode_tokens_per_s=decode,
    )


def _instead(decode: Estimate, best: Candidate) -> str:
    return f"decode {spell(decode)} tokens/s instead of {three_digits(best.speed.decode_tokens_per_s.value)}"


def _of_batch(best: Candidate, judge: Judge) -> Iterator[Price]:
    """What longer prompt batches buy where experts are in main memory."""
    memory = judge.memory
    if not host_expert_bytes(memory, best.placement) or not memory.spaces.gpus:
        return
    if best.placement.engine is EngineKind.LLAMA_CPP_PYTHON:
        return
    for longer in with_long_batches(memory, best.placement):
        if longer.n_ubatch <= best.placement.n_ubatch:
            continue
        then = judge.judge(longer).speed
        moved = host_expert_bytes(memory, longer) - host_expert_bytes(memory, best.placement)
        effect = (
            f"prefill {spell(then.prefill_tokens_per_s)}, decode {spell(then.decode_tokens_per_s)} tokens/s, "
            f"{format_bytes(max(0, moved))} more of experts in main memory (--objective prefill_speed)"
        )
        yield Price(
            step=f"prompt batches of {longer.n_ubatch} tokens",
            effect=effect,
            decode_tokens_per_s=then.decode_tokens_per_s,
            prefill_tokens_per_s=then.prefill_tokens_per_s,
        )

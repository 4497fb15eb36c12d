"""One knob away from a plan: which, within whose memory, and what is left alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.engine import EngineKind
from glmplan.placement import FlashAttention, NumaMode, Placement
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.neighbours import KNOBS, Neighbour, Surroundings, Untried, combined, neighbours
from glmplan.planner.offload import best_offload
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.recipes import catalog_profile
from glmplan.units import GIB

MODEL = catalog_profile("q4_K_M")
AROUND = Surroundings(physical_cores=8, usable_cores=16, n_tokens=2048)


def memory_of(host: float, *gpus: float) -> MemoryModel:
    spaces = Spaces(
        gpus=tuple(
            GpuSpace(id=f"gpu{i}", kind=GpuKind.CUDA, usable_bytes=int(size * GIB), free_bytes=int(size * GIB))
            for i, size in enumerate(gpus)
        ),
        host=HostSpace(usable_bytes=int(host * GIB)),
    )
    return MemoryModel(MODEL, spaces)


def plan_on(
    memory: MemoryModel, *, kind: EngineKind = EngineKind.LLAMA_SERVER, cache: str = "f16", n_ctx: int = 8192
) -> Placement:
    base = base_placement(
        memory, engine=kind, n_ctx=n_ctx, cache=cache, n_parallel=1, n_threads=8, n_threads_batch=8
    )  # fmt: skip
    found = best_offload(memory, base)
    assert found is not None
    return found


def by_knob(found: list[Neighbour]) -> dict[str, list[Neighbour]]:
    table: dict[str, list[Neighbour]] = {}
    for each in found:
        (knob,) = each.knobs
        table.setdefault(knob, []).append(each)
    return table


def why(untried: list[Untried], words: str) -> str:
    return next(each.why for each in untried if words in each.turned)


def test_on_a_processor() -> None:
    memory = memory_of(64)
    found, untried = neighbours(plan_on(memory), memory, AROUND)
    turned = by_knob(found)
    assert set(turned) == {"flash_attn", "repack", "load_mode", "n_ubatch", "n_threads", "n_batch"}
    assert turned["flash_attn"][0].placement.flash_attn is FlashAttention.OFF
    assert turned["repack"][0].placement.repack is True
    assert {each.placement.n_ubatch for each in turned["n_ubatch"]} == {64, 128, 256, 1024, 2048}
    assert {each.placement.n_threads for each in turned["n_threads"]} == {4, 6, 7, 8, 16}
    assert "2048 tokens" in why(untried, "n_ubatch 4096")
    assert "--allow-cache-type" in why(untried, "q8_0 KV cache")
    assert "ulimit" in why(untried, "locked")


def test_experts_in_main_memory_and_a_card() -> None:
    memory = memory_of(64, 12)
    plan = plan_on(memory)
    found, _ = neighbours(plan, memory, AROUND)
    turned = by_knob(found)
    longer = {each.placement.n_ubatch: each.placement for each in turned["n_ubatch"]}
    # A longer batch takes memory: its experts were placed anew, and it fits.
    assert longer[2048].override_tensor != plan.override_tensor
    assert {each.placement.op_offload for each in turned["experts"]} == {True, False}
    assert all(memory.estimate(each.placement).fits for each in found)


def test_all_on_one_card_leaves_the_host_alone() -> None:
    memory = memory_of(64, 48)
    found, _ = neighbours(plan_on(memory), memory, AROUND)
    assert {"repack", "load_mode", "experts", "numa"}.isdisjoint(by_knob(found))


def test_layers_move_between_cards() -> None:
    memory = memory_of(64, 12, 12)
    plan = plan_on(memory)
    found, untried = neighbours(plan, memory, AROUND)
    shifted = by_knob(found).get("tensor_split", [])
    assert shifted or "short" in why(untried, "one layer from")
    assert all(sum(each.placement.tensor_split) == sum(plan.tensor_split) for each in shifted)


def test_nodes_make_numa_a_knob() -> None:
    memory = memory_of(64)
    found, _ = neighbours(plan_on(memory), memory, replace(AROUND, numa_nodes=2))
    assert {each.placement.numa for each in by_knob(found)["numa"]} == set(NumaMode)


def test_memory_decides() -> None:
    tight = memory_of(18.5)
    found, untried = neighbours(plan_on(tight, n_ctx=4096), tight, AROUND)
    assert "repack" not in by_knob(found)
    assert "together" in why(untried, "repacked")
    assert "n_ubatch 2048" in {each.turned for each in untried} | {each.turned for each in found}


def test_huge_pages_where_the_system_gives_them_when_asked() -> None:
    memory = memory_of(64)
    plan = plan_on(memory)
    assert "only Linux" in why(neighbours(plan, memory, AROUND)[1], "huge pages")
    has = replace(AROUND, no_huge_pages=None)
    turned = by_knob(neighbours(plan, memory, has)[0])["huge_pages"]
    assert [(each.placement.huge_pages, each.placement.use_mmap) for each in turned] == [(True, True), (True, False)]
    back = by_knob(neighbours(turned[0].placement, memory, has)[0])["huge_pages"]
    assert [each.placement.huge_pages for each in back] == [False]
    on_card = memory_of(64, 48)
    assert "huge_pages" not in by_knob(neighbours(plan_on(on_card), on_card, has)[0])


@pytest.mark.parametrize("knob", KNOBS)
def test_pins_stay(knob: str) -> None:
    memory = memory_of(64, 12)
    around = replace(AROUND, pins=frozenset({knob}), cache_types=frozenset({"q8_0"}), numa_nodes=2)
    found, untried = neighbours(plan_on(memory), memory, around)
    assert knob not in by_knob(found)
    assert why(untried, knob) == "pinned"


def test_a_coarser_cache_only_when_allowed_and_a_finer_one_always() -> None:
    memory = memory_of(64)
    asked = neighbours(plan_on(memory), memory, replace(AROUND, cache_types=frozenset({"q8_0"})))[0]
    assert [each.placement.cache_type_k for each in by_knob(asked)["cache_type"]] == ["q8_0"]
    coarse = neighbours(plan_on(memory, cache="q8_0"), memory, AROUND)
    assert [each.placement.cache_type_k for each in by_knob(coarse[0])["cache_type"]] == ["bf16", "bf16", "f16"]
    half = by_knob(neighbours(plan_on(memory), memory, replace(AROUND, cache_types=frozenset({"bf16"})))[0])
    assert [each.placement.flash_attn for each in half["cache_type"]] == [FlashAttention.ON, FlashAttention.OFF]
    assert "a q8_0 cache needs it" in why(coarse[1], "flash attention off")


def test_engines_without_a_setting_are_not_asked_for_it() -> None:
    memory = memory_of(64)
    plan = plan_on(memory, kind=EngineKind.LLAMA_CPP_PYTHON)
    found, untried = neighbours(plan, memory, AROUND)
    assert "no setting" in why(untried, "weights as they are")
    assert all(each.placement.n_outputs == each.placement.n_batch for each in found if "n_ubatch" in each.knobs)


def test_combining_turns_all_knobs_and_respects_memory() -> None:
    memory = memory_of(64)
    plan = plan_on(memory)
    turned = by_knob(neighbours(plan, memory, AROUND)[0])
    both = combined(plan, [turned["flash_attn"][0], turned["n_ubatch"][0]], memory)
    assert both is not None
    assert both.knobs == {"flash_attn", "n_ubatch"}
    assert both.placement.flash_attn is FlashAttention.OFF
    assert both.placement.n_ubatch == turned["n_ubatch"][0].placement.n_ubatch
    quantised = replace(plan, cache_type_k="q8_0", cache_type_v="q8_0")
    cache = Neighbour(frozenset({"cache_type"}), "q8_0 KV cache", quantised)
    assert combined(plan, [turned["flash_attn"][0], cache], memory) is None  # the engine refuses it


@given(
    host=st.floats(20, 80), gpu=st.one_of(st.none(), st.floats(8, 80)), n_ctx=st.sampled_from([4096, 16384]),
    cache=st.sampled_from(["f16", "q8_0"]),
)  # fmt: skip
def test_every_neighbour_passes_the_ledger(host: float, gpu: float | None, n_ctx: int, cache: str) -> None:
    memory = memory_of(host, *([gpu] if gpu else []))
    base = base_placement(
        memory, engine=EngineKind.LLAMA_SERVER, n_ctx=n_ctx, cache=cache, n_parallel=1, n_threads=8, n_threads_batch=8
    )
    plan = best_offload(memory, base)
    if plan is None:
        return
    found, _ = neighbours(plan, memory, replace(AROUND, cache_types=frozenset({"q8_0", "q4_0"})))
    assert all(memory.estimate(each.placement).fits for each in found)
    assert all((each.placement.n_ctx, each.placement.n_parallel) == (n_ctx, 1) for each in found)
    assert len({each.placement for each in found}) == len(found)

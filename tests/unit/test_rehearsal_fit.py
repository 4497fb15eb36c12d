"""The regression behind a rehearsal: exact lines are recovered, ranges hold what they promise, disturbed samples do not
move it."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.engine import EngineKind
from glmplan.errors import BenchError, InputError, UnsupportedModel
from glmplan.placement import Placement
from glmplan.planner.candidates import base_placement
from glmplan.planner.cuts import BASE, LEAD, Stack, cut_model, cut_placement, cuts_for, engine_bytes
from glmplan.planner.extrapolation import extrapolated, fit_phase
from glmplan.planner.least_squares import deviations_of_80_percent, fit, relative_noise
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import best_offload
from glmplan.planner.spaces import spaces_of
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.recipes import catalog_profile
from glmplan.rehearsal import Cut, Phase, Timing
from glmplan.units import GIB, MIB


def stack_on(on: str, quant: str = "q4_K_M", n_ctx: int = 32768) -> tuple[Stack, Placement, MemoryModel]:
    memory = MemoryModel(catalog_profile(quant), spaces_of(resolve_machine(on, None), reserve_bytes=0))
    base = base_placement(memory, engine=EngineKind.LLAMA_SERVER, n_ctx=n_ctx, cache="f16", n_parallel=1, n_threads=8)
    placement = best_offload(memory, base)
    assert placement is not None
    return Stack(memory, placement), placement, memory


STACKS = {on: stack_on(on) for on in ("cpu:32GiB", "gpu:12GiB", "gpu:24GiB", "gpu:12GiB,12GiB", "rtx-4090")}


@pytest.mark.parametrize("on", STACKS)
def test_every_layer_is_of_one_kind(on: str) -> None:
    stack, _, _ = STACKS[on]
    shares = stack.shares()
    assert math.isclose(sum(share.count for share in shares), 46)
    assert math.isclose(sum(share.by_bytes for share in shares), 46)
    assert sum(stack.layers_on(device) for device in set(stack.devices)) == 47


def test_a_card_that_is_too_small_has_layers_with_experts_in_main_memory() -> None:
    names = [share.kind.name for share in STACKS["gpu:12GiB"][0].shares()]
    assert set(names) == {"gpu0", "gpu0+host"}
    assert [share.kind.name for share in STACKS["cpu:32GiB"][0].shares()] == ["host"]
    assert {share.kind.name for share in STACKS["gpu:12GiB,12GiB"][0].shares()} >= {"gpu0", "gpu1"}


@pytest.mark.parametrize("on", STACKS)
def test_cuts_tell_every_kind_apart_within_their_room(on: str) -> None:
    stack, placement, _ = STACKS[on]
    room = 4 * GIB
    cuts = cuts_for(stack, placement, n_ctx=4096, room_bytes=room)
    kinds = [share.kind for share in stack.shares()]
    assert [cut.name for cut in cuts[:2]] == [LEAD, BASE]
    assert len(cuts) == 2 + len(kinds)
    assert max(engine_bytes(stack, cut, placement, 4096) for cut in cuts) <= room
    for kind, cut in zip(kinds, cuts[2:], strict=True):
        assert cut.kinds.count(kind) > cuts[1].kinds.count(kind)


@pytest.mark.parametrize("quant", ["q4_K_M", "q8_0", "bf16"])
def test_every_quant_of_the_model_can_be_cut_within_four_gib(quant: str) -> None:
    stack, placement, _ = stack_on("cpu:96GiB", quant)
    cuts = cuts_for(stack, placement, n_ctx=9216, room_bytes=4 * GIB)
    assert len(cuts[2].layers) >= 3
    if quant == "q4_K_M":  # small enough for all engines at once
        assert sum(engine_bytes(stack, cut, placement, 9216) for cut in cuts) <= 4 * GIB


def test_no_room_is_said_with_its_numbers() -> None:
    stack, placement, _ = STACKS["cpu:32GiB"]
    with pytest.raises(UnsupportedModel) as caught:
        cuts_for(stack, placement, n_ctx=4096, room_bytes=500 * MIB)
    assert caught.value.facts["room_bytes"] == 500 * MIB


@pytest.mark.parametrize("on", STACKS)
def test_a_cut_is_a_model_whose_layers_sit_where_its_kinds_say(on: str) -> None:
    stack, placement, memory = STACKS[on]
    for cut in cuts_for(stack, placement, n_ctx=4096, room_bytes=4 * GIB):
        model = cut_model(stack.model, cut)
        assert model.n_layer == len(cut.layers)
        wanted = sum(stack.bytes_of[layer] for layer in cut.layers)
        assert sum(t.n_bytes for t in model.tensors if t.name.startswith("blk.")) == wanted
        own = MemoryModel(model, memory.spaces)
        put = cut_placement(placement, cut, n_ctx=4096)
        placed = own.layers.offload(put.n_cpu_moe, put.override_tensor, load_mtp=False)
        ranges = own.ranges(put) if memory.spaces.gpus else ()
        for place, kind in enumerate(cut.kinds):
            where = [f"gpu{i}" for i, (start, end) in enumerate(ranges) if start <= place < end] or ["host"]
            assert where == [kind.device]
            moved = placed.host_overridden[place + 1] - placed.host_overridden[place]
            assert (moved > 0) == kind.experts_on_host


def timings(
    stack: Stack,
    cuts: tuple[Cut, ...],
    noise: float,
    draw: random.Random,
    *,
    fixed: float,
    layer: float,
    context: float,
) -> list[Timing]:
    """Five timings of every cut at depth 256, and of the leading one deeper, with relative noise."""
    found: list[Timing] = []
    for cut in cuts:
        weight = sum(stack.weight(i) for i in cut.layers[cut.n_lead :])
        for depth in (256, 1024, 4096) if cut.is_lead else (256,):
            true = fixed + layer * weight + context * len(cut.layers) * depth / 1000
            for _ in range(5):
                ms = true * math.exp(draw.gauss(0.0, noise)) if noise else true
                found.append(Timing(cut=cut.name, phase=Phase.DECODE, depth_tokens=depth, n_tokens=16, ms_per_token=ms,
                                    others_busy=0.0))  # fmt: skip
    return found


CPU_STACK, CPU_PLACEMENT, _ = STACKS["cpu:32GiB"]
CPU_CUTS = cuts_for(CPU_STACK, CPU_PLACEMENT, n_ctx=4608, room_bytes=4 * GIB)
positive = st.floats(0.5, 50.0)


@given(fixed=positive, layer=positive, context=st.floats(0.1, 5.0))
def test_an_exact_line_is_recovered(fixed: float, layer: float, context: float) -> None:
    found = timings(CPU_STACK, CPU_CUTS, 0.0, random.Random(1), fixed=fixed, layer=layer, context=context)
    line = fit_phase(CPU_STACK, CPU_CUTS, found, Phase.DECODE)
    by_part = {c.part: c.ms for c in line.regression.coefficients if c.in_full_model}
    assert math.isclose(by_part["fixed"], fixed, rel_tol=1e-6)
    assert math.isclose(by_part["layer"], layer, rel_tol=1e-6)
    assert math.isclose(by_part["context"], context, rel_tol=1e-6)
    true = fixed + 46 * layer + 47 * context * 8.0
    assert math.isclose(line.time_ms(8000.0)[0], true, rel_tol=1e-6)
    assert line.regression.residual < 1e-6


def share_inside(noise: float, *, disturbed: float = 0.0) -> float:
    draw = random.Random(47)
    inside, rounds = 0, 400
    true = 20.0 + 46 * 4.0 + 47 * 1.1 * 4.096
    for _ in range(rounds):
        found = timings(CPU_STACK, CPU_CUTS, noise, draw, fixed=20.0, layer=4.0, context=1.1)
        found = [replace(t, ms_per_token=t.ms_per_token * 5) if draw.random() < disturbed else t for t in found]
        line = fit_phase(CPU_STACK, CPU_CUTS, found, Phase.DECODE)
        value, error = line.time_ms(4096.0)
        inside += abs(value - true) <= deviations_of_80_percent(line.solved.freedom) * error
    return inside / rounds


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_the_line_alone_holds_80_percent(noise: float) -> None:
    assert 0.74 <= share_inside(noise) <= 0.9


def test_a_tenth_of_wild_samples_does_not_make_ranges_lie() -> None:
    assert share_inside(0.03, disturbed=0.1) >= 0.7


def test_disturbed_samples_count_only_where_there_are_no_others() -> None:
    found = timings(CPU_STACK, CPU_CUTS, 0.0, random.Random(1), fixed=20.0, layer=4.0, context=1.1)
    wild = [replace(t, ms_per_token=t.ms_per_token * 9, disturbed=True) for t in found]
    clean = fit_phase(CPU_STACK, CPU_CUTS, found, Phase.DECODE)
    both = fit_phase(CPU_STACK, CPU_CUTS, [*wild, *found], Phase.DECODE)
    assert math.isclose(both.time_ms(0.0)[0], clean.time_ms(0.0)[0], rel_tol=1e-9)
    assert math.isclose(fit_phase(CPU_STACK, CPU_CUTS, wild, Phase.DECODE).time_ms(0.0)[0], 9 * clean.time_ms(0.0)[0])


def test_deeper_than_measured_is_said_and_widens_the_range() -> None:
    found = timings(CPU_STACK, CPU_CUTS, 0.02, random.Random(1), fixed=20.0, layer=4.0, context=1.1)
    line = fit_phase(CPU_STACK, CPU_CUTS, found, Phase.DECODE)
    prefill = fit_phase(CPU_STACK, CPU_CUTS, [replace(t, phase=Phase.PREFILL) for t in found], Phase.PREFILL)
    rows = extrapolated(line, prefill, (0, 4096, 65536), batch_tokens=512)
    assert [row.beyond for row in rows] == [False, False, True]
    spread = [row.decode_tokens_per_s.high / row.decode_tokens_per_s.value for row in rows]
    assert spread[2] > spread[1]
    assert all(row.decode_tokens_per_s.low < row.decode_tokens_per_s.value for row in rows)


def test_too_few_points_are_no_answer() -> None:
    found = timings(CPU_STACK, CPU_CUTS, 0.0, random.Random(1), fixed=20.0, layer=4.0, context=1.1)
    only_base = [t for t in found if t.cut == BASE]
    with pytest.raises(BenchError):
        fit_phase(CPU_STACK, CPU_CUTS, only_base, Phase.DECODE)


def test_a_time_below_zero_is_refused() -> None:
    found = timings(CPU_STACK, CPU_CUTS, 0.0, random.Random(1), fixed=20.0, layer=4.0, context=1.1)
    upside_down = [replace(t, ms_per_token=100.0 - t.ms_per_token) for t in found]
    line = fit_phase(CPU_STACK, CPU_CUTS, upside_down, Phase.DECODE)
    with pytest.raises(BenchError):
        line.tokens_per_s(4096)


def test_singular_points_are_refused() -> None:
    with pytest.raises(InputError):
        fit([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])


def test_points_that_scatter_beyond_their_errors_widen_them() -> None:
    rows = [[1.0, float(x)] for x in range(6)]
    near = fit(rows, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.1] * 6)
    far = fit(rows, [1.5, 1.5, 3.5, 3.5, 5.5, 5.5], [0.1] * 6)
    assert far.standard_error(1) > 2 * near.standard_error(1)


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 1.638), (5, 1.476), (10, 1.372), (30, 1.310), (10_000, 1.2816)])
def test_students_quantiles(freedom: int, quantile: float) -> None:
    """Tables of the t distribution, one tail of 10 %."""
    assert math.isclose(deviations_of_80_percent(freedom), quantile, rel_tol=0.01)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_noise_is_told_from_few_samples(n: int) -> None:
    draw = random.Random(47)
    cells = [[100.0 * math.exp(draw.gauss(0.0, 0.05)) for _ in range(n)] for _ in range(500)]
    noise, freedom = relative_noise(cells)
    assert noise is not None
    assert math.isclose(noise, 0.05, rel_tol=0.15)
    assert freedom == 500 * (n - 1)


def test_single_samples_tell_no_noise() -> None:
    assert relative_noise([[1.0], [2.0]]) == (None, 0)

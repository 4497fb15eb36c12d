"""Weights by device against worked totals, and the layer arithmetic by hand."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glmplan.engine import EngineKind
from glmplan.errors import InputError, UnsupportedModel
from glmplan.model import ModelProfile
from glmplan.placement import FlashAttention, Placement, TensorOverride
from glmplan.planner.experts import overrides
from glmplan.planner.layers import CUDA_RULES, PLAIN_RULES, LayerTable, OffloadTable, device_ranges
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.recipes import catalog_profile
from glmplan.units import GIB


def one_gpu(n_gpu_layers: int = 48, n_cpu_moe: int = 0, overrides: tuple[TensorOverride, ...] = ()) -> Placement:
    return Placement(
        engine=EngineKind.LLAMA_SERVER, n_ctx=32768, n_gpu_layers=n_gpu_layers, n_cpu_moe=n_cpu_moe, n_batch=2048,
        n_ubatch=512, cache_type_k="f16", cache_type_v="f16", flash_attn=FlashAttention.ON, n_threads=2,
        n_threads_batch=2, use_mmap=False, use_mlock=False, override_tensor=overrides, n_outputs=4, n_parallel=4,
    )  # fmt: skip


def memory_of(profile: ModelProfile) -> MemoryModel:
    gpu = GpuSpace(id="gpu0", kind=GpuKind.CUDA, usable_bytes=96 * GIB, free_bytes=96 * GIB)
    return MemoryModel(profile, Spaces(gpus=(gpu,), host=HostSpace(usable_bytes=96 * GIB)))


# (device | host) bytes that llama.cpp 0c1e57098 itself reports for the stock recipes.
WORKED = [
    ("q4_K_M", 48, 0, 17_944_848_384, 178_421_760),
    ("q4_K_M", 48, 24, 9_611_814_912, 8_511_455_232),
    ("q4_K_M", 48, 47, 1_174_972_416, 16_948_297_728),
    ("q4_K_M", 24, 0, 9_128_591_616, 8_994_666_240),
    ("q8_0", 48, 0, 31_496_341_248, 337_018_880),
    ("q8_0", 48, 24, 16_736_585_472, 15_096_774_656),
    ("bf16", 48, 47, 3_698_833_920, 56_200_527_872),
    ("bf16", 24, 0, 29_865_001_728, 30_034_360_064),
]


@pytest.mark.parametrize(("quant", "n_gpu_layers", "n_cpu_moe", "device", "host"), WORKED)
def test_weights_equal_worked_totals(quant: str, n_gpu_layers: int, n_cpu_moe: int, device: int, host: int) -> None:
    devices, on_host = memory_of(catalog_profile(quant)).buffers(one_gpu(n_gpu_layers, n_cpu_moe))
    assert (devices[0].weights_bytes, on_host.weights_bytes) == (device, host)


def test_one_cpu_moe_layer_moves_nothing_because_layer_0_is_dense() -> None:
    memory = memory_of(catalog_profile("q4_K_M"))
    assert memory.buffers(one_gpu(n_cpu_moe=1))[1] == memory.buffers(one_gpu())[1]
    moved = memory.buffers(one_gpu(n_cpu_moe=2))[1].weights_bytes - memory.buffers(one_gpu())[1].weights_bytes
    assert moved == 391_643_136  # 373.5 MiB: a heavy layer, its ffn_down_exps is Q6_K


def test_overrides_by_pattern_equal_n_cpu_moe() -> None:
    memory = memory_of(catalog_profile("q4_K_M"))
    pattern = TensorOverride(pattern=r"blk\.([0-9]|1[0-9]|2[0-3])\.ffn_(up|down|gate)_exps")
    assert memory.buffers(one_gpu(overrides=(pattern,))) == memory.buffers(one_gpu(n_cpu_moe=24))


@pytest.mark.parametrize(
    ("override", "hint"),
    [(TensorOverride(pattern="x", buffer="CUDA1"), "CPU"), (TensorOverride(pattern="blk.(", buffer="CPU"), "quote")],
)
def test_overrides_outside_the_model_are_refused(override: TensorOverride, hint: str) -> None:
    with pytest.raises(InputError) as refused:
        memory_of(catalog_profile("q4_K_M")).buffers(one_gpu(overrides=(override,)))
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("n_all", "n_gpu_layers", "shares", "expected"),
    [
        (47, 48, (3.0, 1.0), ((0, 36), (36, 48))),
        (47, 48, (1.0, 1.0), ((0, 24), (24, 48))),
        (47, 1, (1.0,), ((47, 48),)),
        (47, 47, (1.0,), ((1, 48),)),
        (47, 0, (1.0, 1.0), ((48, 48), (48, 48))),
        (48, -1, (25.0, 24.0), ((0, 25), (25, 49))),
        (47, 48, (1.0, 0.0), ((0, 48), (48, 48))),
    ],
)
def test_layers_go_back_to_front(
    n_all: int, n_gpu_layers: int, shares: tuple[float, ...], expected: tuple[tuple[int, int], ...]
) -> None:
    assert device_ranges(n_all, n_gpu_layers, shares) == expected


def test_an_mtp_block_costs_nothing_unless_it_is_loaded() -> None:
    memory = memory_of(catalog_profile("q4_K_M", n_nextn_layers=1))
    plain = memory.buffers(one_gpu(49))[0][0]
    assert plain.weights_bytes == 17_944_848_384
    assert plain.kv_cache_bytes == 47 * 1152 * 32768
    loaded = replace(one_gpu(49), load_mtp=True)
    assert memory.buffers(loaded)[0][0].weights_bytes > plain.weights_bytes


def test_device_rules_pad_rows_on_cuda_only() -> None:
    table = LayerTable(catalog_profile("q4_K_M"), PLAIN_RULES).offload(0, (), load_mtp=False)
    padded = LayerTable(catalog_profile("q4_K_M"), CUDA_RULES).offload(0, (), load_mtp=False)
    assert 0 < padded.gpu[-1] - table.gpu[-1] < 64 * 1024


def test_a_model_without_coefficients_is_not_guessed() -> None:
    unknown = replace(catalog_profile("q4_K_M"), compute=None)
    with pytest.raises(UnsupportedModel):
        memory_of(unknown)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(1, 46), st.sets(st.sampled_from(["up", "gate", "down"]), min_size=1), max_size=46))
def test_patterns_whose_matches_are_known_give_the_same_table(host: dict[int, set[str]]) -> None:
    """`leave` is told what `offload` would find by searching every name."""
    model = catalog_profile("q4_K_M")
    parts = {layer: tuple(sorted(chosen)) for layer, chosen in host.items()}
    experts = {layer: LayerTable(model).expert_tensors(layer) for layer in range(1, 47)}
    n_cpu_moe, patterns = overrides(parts, experts)
    told, searched = LayerTable(model), LayerTable(model)
    told.leave(parts, n_cpu_moe, patterns, load_mtp=False)
    one = told.offload(n_cpu_moe, patterns, load_mtp=False)
    other = searched.offload(n_cpu_moe, patterns, load_mtp=False)
    assert all(getattr(one, name) == getattr(other, name) for name in OffloadTable.__slots__)

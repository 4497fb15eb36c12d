"""How fast the planner decides, in one process: `pytest -m bench -s tests/bench/test_planner_speed.py`."""

import os
import random
import time
from collections.abc import Callable
from typing import Final

import pytest

from glmplan.commands.situation import situation_of
from glmplan.engine import EngineKind
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import PlanRequest
from glmplan.planner.memory import MemoryModel
from glmplan.planner.search import Surroundings, search
from glmplan.planner.spaces import planned_gpus, spaces_of
from glmplan.profiles.recipes import catalog_profile, quantization_names, usual_quantizations
from glmplan.profiles.speed_classes import machine_speed
from glmplan.units import MIB

pytestmark = pytest.mark.bench
CONFIGURATIONS: Final = 20_000
CONFIGURATIONS_PER_S: Final = 20_000
SEARCH_BARS_S: Final = {
    "cpu:32GiB": 0.3,
    "gpu:16GiB": 0.3,
    "gpu:24GiB": 0.3,
    "apple-m4-max:64": 0.3,
    "2x rtx-3090": 1.0,
    "gpu:24GiB,16GiB,12GiB,8GiB": 1.0,
}
REPETITIONS: Final = 5
SANITY: Final = 10


def placements(n_gpus: int, *, seed: int) -> list[Placement]:
    """Random configurations over the whole domain; the same for the same seed."""
    dice = random.Random(seed)

    def one() -> Placement:
        cache = dice.choice(("f16", "q8_0", "q4_0"))
        n_parallel = dice.choice((1, 1, 2, 4))
        split = tuple(float(dice.randint(1, 9)) for _ in range(n_gpus)) if n_gpus > 1 and dice.random() < 0.7 else ()
        return Placement(
            engine=EngineKind.LLAMA_SERVER,
            n_ctx=dice.randrange(1024, 202_752),
            n_gpu_layers=dice.choice((48, 48, dice.randint(0, 48))),
            n_cpu_moe=dice.choice((0, dice.randint(0, 47))),
            n_batch=2048,
            n_ubatch=dice.choice((128, 256, 512, 1024, 2048)),
            cache_type_k=cache,
            cache_type_v=cache,
            flash_attn=FlashAttention.OFF if cache == "f16" and dice.random() < 0.2 else FlashAttention.ON,
            n_threads=8,
            n_threads_batch=8,
            use_mmap=True,
            use_mlock=False,
            tensor_split=split,
            n_parallel=n_parallel,
            n_outputs=n_parallel,
        )

    return [one() for _ in range(CONFIGURATIONS)]


def best_of(work: Callable[[], object], times: int) -> float:
    """The least of several wall times, seconds."""
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


@pytest.mark.parametrize("on", ["cpu:32GiB", "gpu:24GiB", "gpu:24GiB,16GiB,12GiB,8GiB"])
def test_configurations_are_judged_by_memory(on: str) -> None:
    machine = situation_of(on, None).machine
    memory = MemoryModel(catalog_profile("q4_K_M"), spaces_of(machine))
    tried = placements(len(machine.gpus), seed=47)
    works: dict[str, Callable[[], object]] = {
        "buffers": lambda: [memory.buffers(placement) for placement in tried],
        "estimate": lambda: [memory.estimate(placement) for placement in tried],
    }
    for name, work in works.items():
        per_s = CONFIGURATIONS / best_of(work, 3)
        over = "" if per_s >= CONFIGURATIONS_PER_S else "  below the bar"
        print(f"\n{on:28} {name:9} {per_s:10,.0f} a second (bar {CONFIGURATIONS_PER_S:,}){over}", end="")
        assert per_s > CONFIGURATIONS_PER_S / SANITY


def surroundings(on: str, spent_bytes: int) -> Surroundings:
    """The machine with a little of its memory spent: what was found for another size of memory is no help."""
    machine = situation_of(on, None).machine
    gpus = tuple(gpu for gpu, _ in planned_gpus(machine))
    speed = machine_speed(machine, gpus)
    return Surroundings(
        spaces=spaces_of(machine, reserve_bytes=spent_bytes), speed=speed, engine=EngineKind.LLAMA_SERVER, n_threads=8
    )


@pytest.mark.parametrize("quants", ["usual", "all"])
@pytest.mark.parametrize("on", SEARCH_BARS_S)
def test_a_whole_search(on: str, quants: str) -> None:
    names = usual_quantizations() if quants == "usual" else quantization_names()
    models = [catalog_profile(name) for name in names]
    request = PlanRequest(machine=situation_of(on, None).machine)
    sizes = iter(range(REPETITIONS + 1))
    arounds = [surroundings(on, size * MIB) for size in range(REPETITIONS + 1)]
    taken_s = best_of(lambda: search(models, arounds[next(sizes)], request), REPETITIONS)
    n_candidates = len(search(models, arounds[0], request))
    over = "" if taken_s <= SEARCH_BARS_S[on] else "  over the bar"
    print(
        f"\n{on:28} {len(models):2} files {taken_s:6.3f} s (bar {SEARCH_BARS_S[on]:.1f}), {n_candidates} feasible, "
        f"load {os.getloadavg()[0]:.2f}{over}",
        end="",
    )
    assert taken_s < SANITY * SEARCH_BARS_S[on]

"""Random configurations for the comparison with the engine, and our model of the same devices."""

import os
import random
from dataclasses import replace

from glmplan.engine import EngineKind
from glmplan.noun import noun
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.recipes import DEFAULT_MODEL, catalog_profile, model_facts
from glmplan.units import MIB

# total:free MiB of each card.
CARDS = ("24564:23964", "16380:15780,24564:23964", "12288:11700,24564:23964,8192:7600")
SHORTEST_BATCH = 32
_SEED_OF_CI = 4747


def seed_of_run() -> int:
    """`GLMPLAN_ORACLE_SEED`; in CI the same every time, so that a change has one verdict; otherwise a new one."""
    given = os.environ.get("GLMPLAN_ORACLE_SEED")
    seed = int(given) if given else _SEED_OF_CI if "CI" in os.environ else random.SystemRandom().randrange(2**32)
    print(f"seed: GLMPLAN_ORACLE_SEED={seed}")  # repeat a failure with it
    return seed


@noun
class Sample:
    """One configuration; `placement` says it in our words."""

    quant: str
    n_nextn_layers: int
    placement: Placement
    model: str = DEFAULT_MODEL


def draw(generator: random.Random, n_gpus: int, model: str = DEFAULT_MODEL) -> Sample:
    """A configuration within the stated domain: at least 32 prompt tokens per stream, some layer on a GPU."""
    facts = model_facts(model)["hyper_parameters"]
    n_nextn = int(facts["n_nextn_layers"] or (model == DEFAULT_MODEL and generator.random() < 0.15))
    n_all = int(facts["n_layer"]) + n_nextn
    n_parallel = generator.choice([1, 1, 2, 4])
    flash = generator.random() < 0.8
    # Without flash attention only 16-bit caches are allowed.
    cache = generator.choice(["f16", "f16", "q8_0", "q4_0", "q5_0", "bf16"] if flash else ["f16", "bf16"])
    full = generator.random() < 0.7
    n_cpu_moe = generator.randint(0, n_all) if generator.random() < 0.5 else 0
    n_ubatch = generator.choice([128, 256, 512, 512, 512, 1024, 2048])
    placement = Placement(
        engine=EngineKind.LLAMA_SERVER,
        n_ctx=generator.choice([4096, 8192, 16384, 32768, 65536, 131072, 202752, generator.randint(2048, 202752)]),
        n_gpu_layers=n_all + 1 if full else generator.randint(1, n_all + 1),
        n_cpu_moe=n_cpu_moe,
        n_batch=2048,
        n_ubatch=n_ubatch,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attn=FlashAttention.ON if flash else FlashAttention.OFF,
        n_threads=2,
        n_threads_batch=2,
        use_mmap=False,
        use_mlock=False,
        tensor_split=tuple(round(generator.uniform(0.1, 4), 2) for _ in range(n_gpus))
        if n_gpus > 1 and generator.random() < 0.5
        else (),
        n_parallel=n_parallel,
        kv_unified=generator.random() < 0.8,
        n_outputs=generator.choice([n_parallel, n_parallel, n_parallel, n_ubatch]),
    )
    quant = generator.choice(["q4_K_M", "q8_0", "bf16", "q4_0"])
    return Sample(quant=quant, n_nextn_layers=n_nextn, placement=placement, model=model)


def draw_corner(generator: random.Random, n_gpus: int, model: str = DEFAULT_MODEL) -> Sample:
    """The same domain where formulas break: few or nearly all layers on GPUs, lopsided splits, short contexts,
    batches that are no power of two, many slots, any number of logits, every cache type.
    """
    dice, sample = generator, draw(generator, n_gpus, model)
    n_all = int(model_facts(model)["hyper_parameters"]["n_layer"]) + sample.n_nextn_layers
    n_parallel = dice.choice([1, 1, 2, 3, 4, 8])
    shortest = SHORTEST_BATCH * n_parallel
    n_ubatch = max(shortest, dice.choice([shortest, 2 * shortest, 128, 256, 512, 768, 2048, dice.randint(32, 2048)]))
    n_layers = dice.choice([1, 2, 3, n_all - 1, n_all, n_all + 1, n_all + 1, *(dice.randint(1, n_all),) * 3])
    n_experts = dice.choice([0, 0, 0, 1, 2, 47, 48, dice.randint(0, 48), *(n_all - n_layers + 1 + i for i in range(3))])
    flash = dice.random() < 0.75
    types = ["f16", "q8_0", "q4_0", "q5_0", "q4_1", "q5_1", "bf16", "bf16"]
    cache = dice.choice(types if flash else ["f16", "bf16"])
    contexts = [
        1024,
        2048,
        4096,
        16384,
        65536,
        202752,
        *(dice.randint(1024, limit) for limit in (16384, 65536, 202752)),
    ]
    shares = [dice.choice([0.0, 0.01, 0.1, 1.0, 3.0, 10.0, dice.uniform(0.1, 4)]) for _ in range(n_gpus)]
    placement = replace(
        sample.placement,
        n_ctx=dice.choice(contexts),
        n_gpu_layers=n_layers,
        n_cpu_moe=n_experts,
        n_ubatch=n_ubatch,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attn=FlashAttention.ON if flash else FlashAttention.OFF,
        tensor_split=tuple(shares) if n_gpus > 1 and any(shares) else (),
        n_parallel=n_parallel,
        kv_unified=dice.random() < 0.6,
        n_outputs=max(n_parallel, dice.choice([n_parallel, n_ubatch, dice.randint(1, n_ubatch)])),
    )
    return replace(sample, placement=placement)


def memory_of(sample: Sample, gpus: str, *, kind: GpuKind = GpuKind.CUDA) -> MemoryModel:
    """Our model of the same file on the same devices (`total:free` MiB each)."""
    free = [int(entry.split(":")[-1]) * MIB for entry in gpus.split(",")] if gpus else []
    spaces = Spaces(
        gpus=tuple(
            GpuSpace(id=f"gpu{index}", kind=kind, usable_bytes=size, free_bytes=size) for index, size in enumerate(free)
        ),
        host=HostSpace(usable_bytes=2**40),
    )
    return MemoryModel(catalog_profile(sample.quant, model=sample.model, n_nextn_layers=sample.n_nextn_layers), spaces)

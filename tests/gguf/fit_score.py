"""Our plans beside llama.cpp's `--fit`, at the same memory left free.

`python tests/gguf/fit_score.py` writes docs/vs-fit.md.
"""

import re
from dataclasses import replace
from functools import cache
from typing import Final

from fit_oracle import QUANTS, ROOT, SETTINGS, FitAnswer, free_mib, recorded

from glmplan.engine import EngineKind
from glmplan.ggml_types import cache_type
from glmplan.machine import Cpu, HostMemory, Machine, OperatingSystem
from glmplan.noun import noun
from glmplan.plan import PlanRequest
from glmplan.planner import overheads
from glmplan.planner.buffers import GraphShape
from glmplan.planner.candidates import base_placement, largest_context
from glmplan.planner.judging import Candidate, Judge, Surroundings
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import host_expert_bytes, on_gpus
from glmplan.planner.search import search
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.speed_classes import SpeedClasses
from glmplan.profiles.store import shipped
from glmplan.units import GIB, MIB

DOCUMENT: Final = ROOT / "docs" / "vs-fit.md"
# What `--fit` leaves free on every device (common/common.h:481-486).
FIT_TARGET_BYTES: Final = 1024 * MIB
IDLE_BYTES: Final = 64 * MIB
_MODELS: Final = {quant: catalog_profile(quant) for quant in QUANTS}


@noun
class Row:
    """One question: what fit answers, and what we do with the same file, cache type and context."""

    cards: str
    quant: str
    setting: str
    fit_n_ctx: int
    fit_host_bytes: int
    ours_host_bytes: int
    ours_idle_bytes: int
    longest_on_gpus: int


def spaces_of_cards(cards: str) -> Spaces:
    """Cards of which the engine's own buffers may take all but fit's target; our overhead comes out of the target."""
    request = base_placement_shape()
    gpus: list[GpuSpace] = []
    for index, mib in enumerate(free_mib(cards)):
        space = GpuSpace(id=f"gpu{index}", kind=GpuKind.CUDA, usable_bytes=0, free_bytes=mib * MIB)
        usable = mib * MIB - FIT_TARGET_BYTES + overheads.gpu_bytes(space, request)
        gpus.append(replace(space, usable_bytes=usable))
    return Spaces(gpus=tuple(gpus), host=HostSpace(usable_bytes=256 * GIB))


@cache
def base_placement_shape() -> GraphShape:
    """The graph of the default batch, which sizes our overhead."""
    memory = MemoryModel(_MODELS["q4_K_M"], Spaces(gpus=(), host=HostSpace(usable_bytes=GIB)))
    placement = base_placement(
        memory, engine=EngineKind.LLAMA_SERVER, n_ctx=4096, cache="f16", n_parallel=1, n_threads=8
    )
    return memory.graph_shape(placement, cache_type("f16"))


def _cache_of(setting: str) -> str:
    return "q8_0" if "-ctk" in SETTINGS[setting] else "f16"


def cards_judge(cards: str, quant: str, setting: str, n_ctx: int | None = None) -> Judge:
    """The file on the cards, with the cache type of the setting; speeds do not matter here."""
    spaces = spaces_of_cards(cards)
    classes = SpeedClasses(shipped("speeds", "classes.yaml"))
    device = classes.device("x", "cuda", bandwidth=1e12, flops=1e14)
    host = classes.host(5e10, 4.5e10, 8)
    speed = classes.machine(tuple(device for _ in spaces.gpus), host, pcie_bytes_per_s=2e10)
    machine = Machine(
        os=OperatingSystem(system="Linux", version=None, container=False),
        cpu=Cpu(name="any", physical_cores=8, usable_cores=8, features=()),
        memory=HostMemory(total_bytes=None, limit_bytes=None, available_bytes=None, bandwidth_bytes_per_s=None),
        gpus=(),
    )
    request = PlanRequest(machine=machine, quant=quant, n_ctx=n_ctx, cache_type=_cache_of(setting))
    return Judge(_MODELS[quant], Surroundings(spaces, speed, EngineKind.LLAMA_SERVER, 8), request)


def ours(cards: str, quant: str, setting: str, n_ctx: int) -> Candidate:
    """Our plan with fit's context."""
    judge = cards_judge(cards, quant, setting, n_ctx)
    return search([judge.model], judge.around, judge.request)[0]


def fit_host_expert_bytes(quant: str, answer: FitAnswer) -> int:
    """Bytes of routed experts that fit leaves in main memory."""
    model = _MODELS[quant]
    wanted = model.n_layer + 1 if answer.n_gpu_layers < 0 else answer.n_gpu_layers
    first = model.n_layer + 1 - wanted
    total = 0
    for tensor in model.tensors:
        if "_exps" not in tensor.name:
            continue
        buffer = next((where for pattern, where in answer.overrides if re.search(pattern, tensor.name)), None)
        off_gpu = int(tensor.name.split(".")[1]) < first if buffer is None else buffer.startswith("CPU")
        total += tensor.n_bytes if off_gpu else 0
    return total


def _longest_on_gpus(cards: str, quant: str, setting: str) -> int:
    memory = MemoryModel(_MODELS[quant], spaces_of_cards(cards))
    base = base_placement(
        memory, engine=EngineKind.LLAMA_SERVER, n_ctx=4096, cache=_cache_of(setting), n_parallel=1, n_threads=8
    )
    found = largest_context(memory, base, memory.model.n_ctx_train, lambda m, p: on_gpus(m, p) is not None)
    return found.n_ctx if found else 0


def row_of(cards: str, quant: str, setting: str, answer: FitAnswer) -> Row:
    """The comparison of one question."""
    best = ours(cards, quant, setting, answer.n_ctx)
    memory = MemoryModel(_MODELS[quant], spaces_of_cards(cards))
    return Row(
        cards=cards,
        quant=quant,
        setting=setting,
        fit_n_ctx=answer.n_ctx,
        fit_host_bytes=fit_host_expert_bytes(quant, answer),
        ours_host_bytes=host_expert_bytes(memory, best.placement),
        ours_idle_bytes=max(row.margin_bytes for row in best.memory.devices[:-1]),
        longest_on_gpus=_longest_on_gpus(cards, quant, setting),
    )


@cache
def rows() -> tuple[Row, ...]:
    """All questions, in the order of the record."""
    return tuple(row_of(*key, answer) for key, answer in recorded().items())


_HEAD: Final = """# Beside `--fit`

Written by `python tests/gguf/fit_score.py`; `tests/contract/test_vs_fit.py` checks that it is current, asks the
compiled `llama-fit-params` again, and has llama.cpp's own dry run size every plan below.

The GPUs are a backend that reports memory and never computes, so llama.cpp's own loader, graph reserve and fit run
without a card. A card of N GB has N x 1024 - 604 MiB free. `--fit` leaves 1,024 MiB free on each; our plans leave the
same: the engine's buffers may take all but those 1,024 MiB, of which our own allowance for the CUDA context,
workspace and pool (614 MiB at a batch of 512, more with longer batches) is a part. Host memory is unlimited for both,
as fit assumes.

"Experts" are MiB of routed experts left in main memory: each of them slows every token. "Same context" plans the
context that fit chose; "idle" is the most that any card then has left beyond the margin. "All on GPU" is the longest
context, in steps of 256 tokens, that we place without moving any expert. `--fit` cuts the context to 4,096 before it
moves one expert: the rows `default` show where.

Why fewer bytes: fit reserves logits for a whole batch where llama-server with pinned slots needs one row per slot; it
moves the router and the shared expert of a partial layer along with its experts; it counts the output layer as one
with experts; and it stops at whole layers and thirds of one, where ours close the gap with the tensors that fit best.
What is still free then buys a longer prompt batch. Where two cards have gaps that no common batch fills, one more
expert tensor leaves (never more than fit leaves there) if the longer batch it makes room for repays it.
"""


def document() -> str:
    """docs/vs-fit.md."""
    parts = [_HEAD]
    for quant in QUANTS:
        parts.append(f"\n## {quant}\n")
        parts.append("| cards | setting | fit: context | fit: experts | same context: experts | idle | all on GPU |")
        parts.append("|---|---|---:|---:|---:|---:|---:|")
        parts += [_line(row) for row in rows() if row.quant == quant]
    better = sum(row.ours_host_bytes < row.fit_host_bytes for row in rows())
    longer = sum(row.longest_on_gpus > row.fit_n_ctx for row in rows() if not row.fit_host_bytes)
    equal = sum(not row.fit_host_bytes for row in rows())
    offloaded = len(rows()) - equal
    parts.append(
        f"\nOf {len(rows())} questions fit leaves experts in main memory in {offloaded}; ours leave fewer bytes in\n"
        f"{better} of them, the same in {offloaded - better}, and never more. Of the {equal} others ours\n"
        f"hold a longer context on the GPUs in {longer}, the same (all that was asked for) in {equal - longer}."
    )
    return "\n".join(parts) + "\n"


def _line(row: Row) -> str:
    idle = f"{row.ours_idle_bytes // MIB}" if row.ours_host_bytes else "-"
    longest = f"{row.longest_on_gpus:,}" if row.longest_on_gpus else "-"
    return (
        f"| {row.cards} | `{row.setting}` | {row.fit_n_ctx:,} | {row.fit_host_bytes // MIB:,} | "
        f"{row.ours_host_bytes // MIB:,} | {idle} | {longest} |"
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document())

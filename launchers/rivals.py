"""What a plan runs against: llama-server with `--fit on`, and an engine's own defaults, at the plan's context."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from glmplan.engine import Engine, EngineKind
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.llama_server import launch_of
from glmplan.noun import noun
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Plan

FIT: Final = "--fit on"
DEFAULTS: Final = "the engine's defaults"
_N_BATCH, _N_UBATCH = 2048, 512  # common/common.h, Llama.__init__
_THREADS: Final = re.compile(r"n_threads = (\d+) \(n_threads_batch = (\d+)\)")
_OFFLOADED: Final = re.compile(r"offloaded (\d+)/(\d+) layers")
_NO_FLASH: Final = re.compile(r"flash[_ ]attn?\w*\s*(?:=|was auto, set to)\s*(?:disabled|0\b)", re.IGNORECASE)


@noun
class Rival:
    """One configuration of the engine's own choosing; `words` are added to model, context and address."""

    name: str
    words: tuple[str, ...]


def rivals_of(engine: Engine) -> tuple[Rival, ...]:
    """Who is measured beside a plan; an engine without a command line has its defaults as a placement instead."""
    if engine.kind is not EngineKind.LLAMA_SERVER:
        return ()
    fit = (Rival(name=FIT, words=("--fit", "on")),) if "--fit" in engine.flags else ()
    return (*fit, Rival(name=DEFAULTS, words=()))


def launch(rival: Rival, plan: Plan, engine: Engine, endpoint: Endpoint) -> Launch:
    """llama-server as it chooses itself: only the file, the context and the address are said."""
    words = [engine.path, "--model", plan.model.file, "--ctx-size", str(plan.placement.n_ctx), "--host", endpoint.host]
    words += ["--port", str(endpoint.port), "--alias", endpoint.alias, *rival.words]
    words += [flag for flag in ("--offline", "--no-webui") if flag in engine.flags]
    if "--load-mode" in engine.flags:
        words += ["--log-verbosity", "4"]  # the thread and buffer lines, as plans ask for them
    return launch_of(words, plan, engine, endpoint)


def defaults_of(placement: Placement) -> Placement:
    """An engine's defaults as a placement, at the plan's context and slots; of ik_llama.cpp, its own of `--help`."""
    in_python, by_ik = placement.engine is EngineKind.LLAMA_CPP_PYTHON, placement.engine is EngineKind.IK_LLAMA
    n_batch = _N_UBATCH if in_python else _N_BATCH
    return replace(
        placement,
        n_batch=n_batch,
        n_ubatch=_N_UBATCH,
        n_outputs=n_batch if in_python else placement.n_outputs,
        flash_attn=FlashAttention.OFF if in_python else FlashAttention.AUTO,
        repack=not by_ik,
        use_mmap=True,
        use_mlock=False,
        op_offload=True,
        numa=None,
        huge_pages=False,
    )


def pinned(placement: Placement, log: Path) -> Placement | None:
    """What llama-server chose, with every knob said, read from its log; None where the log does not tell it.

    Without GPUs `--fit` moves nothing. With them only "all layers, no override" can be told from the log.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    threads = list(_THREADS.finditer(text))
    if not threads:
        return None
    n_gpu_layers = 0
    if (offloaded := _OFFLOADED.search(text)) is not None:
        n_gpu_layers = int(offloaded[1])
        if n_gpu_layers != int(offloaded[2]) or "buffer type overridden" in text:
            return None
    elif placement.n_gpu_layers:
        return None
    return replace(
        defaults_of(replace(placement, engine=EngineKind.LLAMA_SERVER)),
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=0,
        override_tensor=(),
        cache_type_k="f16",
        cache_type_v="f16",
        flash_attn=FlashAttention.OFF if _NO_FLASH.search(text) else FlashAttention.ON,
        n_threads=int(threads[-1][1]),
        n_threads_batch=int(threads[-1][2]),
    )

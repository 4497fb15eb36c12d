"""Plan to the server of ik_llama.cpp, a fork of llama.cpp with processor kernels of its own.

Source: ik_llama.cpp as packed with ik-llama-cpp-python 0.1.5, common/common.cpp and examples/server. What differs from
llama-server: `--run-time-repack` in place of `--no-repack`, and `--mla-use`. Its cache of this model is as large as
llama.cpp's, its compute buffer larger (planner/buffers.py). Only plans without GPUs are handed to it, because where it
puts layers was not compared.
"""

from typing import Final

from glmplan.engine import Engine
from glmplan.errors import NotExpressible
from glmplan.launchers.knobs import Knob, words
from glmplan.launchers.launch import MODEL_CARD, Endpoint, Launch
from glmplan.launchers.llama_server import DROP_ENV, answering
from glmplan.placement import Placement
from glmplan.plan import Plan
from glmplan.units import MIB

# The latent cache alone, with fused attention: its readme, `-mla 3`.
_LATENT_CACHE: Final = "3"
_ANY_ORIGIN: Final = "ik_llama.cpp has no --cors-origins: any web page can call a server without an API key"


def launch(plan: Plan, engine: Engine, endpoint: Endpoint) -> Launch:
    """The server of the plan's file at `endpoint`.

    Raises:
        NotExpressible: the plan has GPUs, several slots or multi-token prediction.
        EngineTooOld: the build lacks an option that the plan depends on.
    """
    placement = plan.placement
    _require_possible(placement)
    knobs = [
        Knob(spellings=("--model",), value=plan.model.file, needed_for="the model file"),
        Knob(spellings=("--host",), value=endpoint.host, needed_for="the address"),
        Knob(spellings=("--port",), value=str(endpoint.port), needed_for="the port"),
        *_memory(placement),
        *_compute(placement),
        *_service(),
    ]
    if endpoint.api_key_file is not None:
        knobs.append(Knob(spellings=("--api-key-file",), value=endpoint.api_key_file, needed_for="an API key"))
    return Launch(
        engine=engine.kind,
        argv=(*words(engine, knobs), "--alias", endpoint.alias),  # taken, though --help does not list it
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/health",
        timings=True,
        env=tuple(placement.variables.items()),
        drop_env=DROP_ENV,
        losses=(_ANY_ORIGIN,) if endpoint.api_key_file is None else (),
    )


def _require_possible(placement: Placement) -> None:
    asked = {
        "layers on a GPU": placement.n_gpu_layers > 0,
        "several slots": placement.n_parallel > 1,
        "multi-token prediction": placement.load_mtp,
    }
    found = [what for what, is_asked in asked.items() if is_asked]
    if found:
        message = f"the plan has {found[0]}, which glmplan does not hand to ik_llama.cpp"
        raise NotExpressible(message, hint="plan for llama-server, or for the processor with one slot")


def _memory(placement: Placement) -> list[Knob]:
    knobs = [
        Knob(spellings=("--ctx-size",), value=str(placement.n_ctx), needed_for="the context"),
        Knob(spellings=("--parallel",), value=str(placement.n_parallel)),
        Knob(spellings=("--batch-size",), value=str(placement.n_batch), needed_for="the batch size"),
        Knob(spellings=("--ubatch-size",), value=str(placement.n_ubatch), needed_for="the ubatch size"),
        Knob(spellings=("--cache-type-k",), value=placement.cache_type_k, needed_for="the KV cache type"),
        Knob(spellings=("--cache-type-v",), value=placement.cache_type_v, needed_for="the KV cache type"),
        Knob(spellings=("--cache-ram",), value=str(placement.cache_ram_bytes // MIB)),
        Knob(spellings=("--ctx-checkpoints",), value="0"),  # copies of the cache, 32 by default
    ]
    if placement.repack:
        knobs.append(Knob(spellings=("--run-time-repack",), needed_for="weights that are repacked"))
    elif not placement.use_mmap:
        knobs.append(Knob(spellings=("--no-mmap",), needed_for="loading without mmap"))
    if placement.use_mlock:
        knobs.append(Knob(spellings=("--mlock",), needed_for="locking weights in memory"))
    return knobs


def _compute(placement: Placement) -> list[Knob]:
    knobs = [
        Knob(spellings=("--mla-use",), value=_LATENT_CACHE, needed_for="the small cache"),
        Knob(spellings=("--threads",), value=str(placement.n_threads), needed_for="the thread count"),
        Knob(spellings=("--threads-batch",), value=str(placement.n_threads_batch)),
        Knob(spellings=("--flash-attn",), value=placement.flash_attn.value, needed_for="the flash attention setting"),
    ]
    if placement.numa is not None:
        knobs.append(Knob(spellings=("--numa",), value=placement.numa.value, needed_for="NUMA nodes"))
    return knobs


def _service() -> list[Knob]:
    """Nothing here changes memory."""
    return [
        *answering(MODEL_CARD),
        Knob(spellings=("--webui",), value="none"),
        Knob(spellings=("--log-disable",)),  # a second log, in whatever folder this is started
    ]

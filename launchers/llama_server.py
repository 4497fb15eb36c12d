"""Plan to `llama-server` command line: every knob pinned, each flag only if this very build lists it.

Flags: llama.cpp common/arg.cpp and tools/server/README.md. `--fit off` because `--fit` changes what is not set;
`-np` and `--cache-ram` because their defaults (4 slots, 8192 MiB) change memory behind a plan.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

from glmplan.engine import Engine, EngineKind, engine_environment
from glmplan.launchers.knobs import Knob, words
from glmplan.launchers.launch import MODEL_CARD, Endpoint, Launch, Sampling, override_patterns
from glmplan.placement import Placement
from glmplan.plan import Plan
from glmplan.units import MIB

DROP_ENV: Final = ("LLAMA_ARG_*", "LLAMA_API_KEY", "HF_TOKEN")


def argv(
    plan: Plan,
    engine: Engine,
    *,
    host: str,
    port: int,
    alias: str,
    api_key_file: str | None = None,
    sampling: Sampling = MODEL_CARD,
) -> list[str]:
    """The command line that serves `plan` with this build of llama-server.

    Raises:
        EngineTooOld: the build lacks an option that the plan depends on.
    """
    endpoint = Endpoint(host=host, port=port, alias=alias, api_key_file=api_key_file)
    return words(engine, knobs_of(plan, engine, endpoint, sampling))


def knobs_of(plan: Plan, engine: Engine, endpoint: Endpoint, sampling: Sampling = MODEL_CARD) -> list[Knob]:
    """Every option of the command line that serves `plan`, before this build is asked whether it has them."""
    placement = plan.placement
    knobs = [
        Knob(spellings=("--model",), value=plan.model.file, needed_for="the model file"),
        Knob(spellings=("--alias",), value=endpoint.alias),
        Knob(spellings=("--host",), value=endpoint.host, needed_for="the address"),
        Knob(spellings=("--port",), value=str(endpoint.port), needed_for="the port"),
        *_memory(placement),
        *_offload(placement, engine),
        *_compute(placement),
        *_service(engine, sampling),
    ]
    if endpoint.api_key_file is not None:
        knobs.append(Knob(spellings=("--api-key-file",), value=endpoint.api_key_file, needed_for="an API key"))
    return knobs


def launch(plan: Plan, engine: Engine, endpoint: Endpoint) -> Launch:
    """`argv` with its environment.

    Raises:
        EngineTooOld: the build lacks an option that the plan depends on.
    """
    command = argv(
        plan,
        engine,
        host=endpoint.host,
        port=endpoint.port,
        alias=endpoint.alias,
        api_key_file=endpoint.api_key_file,
    )
    served = launch_of(command, plan, engine, endpoint)
    return dataclasses.replace(served, env=(*served.env, *plan.placement.variables.items()))


def launch_of(command: Sequence[str], plan: Plan, engine: Engine, endpoint: Endpoint) -> Launch:
    """A llama-server of any command line, with its environment."""
    return Launch(
        engine=EngineKind.LLAMA_SERVER,
        argv=tuple(command),
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/health",
        timings=True,
        env=tuple(engine_environment(engine, {}).items()),
        drop_env=DROP_ENV,
    )


def _memory(placement: Placement) -> list[Knob]:
    """What decides bytes: context, slots, batches, KV types, loading."""
    several = "parallel slots" if placement.n_parallel > 1 else None
    knobs = [
        Knob(spellings=("--fit",), value="off"),  # absent: nothing would change the plan
        Knob(spellings=("--ctx-size",), value=str(placement.n_ctx), needed_for="the context"),
        Knob(spellings=("--parallel",), value=str(placement.n_parallel), needed_for=several),
    ]
    if placement.kv_unified:
        knobs.append(Knob(spellings=("--kv-unified",), needed_for=several))
    knobs += [
        Knob(spellings=("--batch-size",), value=str(placement.n_batch), needed_for="the batch size"),
        Knob(spellings=("--ubatch-size",), value=str(placement.n_ubatch), needed_for="the ubatch size"),
        Knob(spellings=("--cache-type-k",), value=placement.cache_type_k, needed_for="the KV cache type"),
        Knob(spellings=("--cache-type-v",), value=placement.cache_type_v, needed_for="the KV cache type"),
        Knob(spellings=("--cache-ram",), value=str(placement.cache_ram_bytes // MIB)),
    ]
    if not placement.repack:
        knobs.append(Knob(spellings=("--no-repack",), needed_for="weights that are not repacked"))
    return knobs


def _loading(placement: Placement, engine: Engine) -> list[Knob]:
    """`--load-mode`, or the pair of flags it replaced."""
    if "--load-mode" in engine.flags:
        return [Knob(spellings=("--load-mode",), value=placement.load_mode.value)]
    return loading_flags(placement)


def loading_flags(placement: Placement) -> list[Knob]:
    """What builds before `--load-mode` have instead."""
    knobs: list[Knob] = []
    if not placement.use_mmap:
        knobs.append(Knob(spellings=("--no-mmap",), needed_for="loading without mmap"))
    if placement.use_mlock:
        knobs.append(Knob(spellings=("--mlock",), needed_for="locking weights in memory"))
    return knobs


def _offload(placement: Placement, engine: Engine) -> list[Knob]:
    """What goes where."""
    knobs = [
        Knob(
            spellings=("--n-gpu-layers", "--gpu-layers"),
            value=str(placement.n_gpu_layers),
            needed_for="GPU offload" if placement.n_gpu_layers else None,
        )
    ]
    if placement.n_cpu_moe and "--n-cpu-moe" in engine.flags:
        knobs.append(Knob(spellings=("--n-cpu-moe",), value=str(placement.n_cpu_moe)))
    overrides = override_tensor(placement, spell_out_experts="--n-cpu-moe" not in engine.flags)
    if overrides:
        knobs.append(Knob(spellings=("--override-tensor",), value=overrides, needed_for="expert offload"))
    if placement.tensor_split:
        shares = ",".join(f"{share:g}" for share in placement.tensor_split)
        knobs += [
            Knob(spellings=("--split-mode",), value="layer"),
            Knob(spellings=("--tensor-split",), value=shares, needed_for="several GPUs"),
        ]
    if not placement.op_offload:
        knobs.append(Knob(spellings=("--no-op-offload",), needed_for="keeping host operations on the CPU"))
    if placement.load_mtp:
        knobs += [
            Knob(spellings=("--spec-type",), value="draft-mtp", needed_for="multi-token prediction"),
            Knob(spellings=("--spec-draft-n-max",), value="1"),  # two and three were slower (planner/mtp.py)
        ]
    if placement.numa is not None:
        knobs.append(Knob(spellings=("--numa",), value=placement.numa.value, needed_for="NUMA nodes"))
    return knobs + _loading(placement, engine)


def override_tensor(placement: Placement, *, spell_out_experts: bool) -> str:
    """The value of `--override-tensor`; with `spell_out_experts` it covers `n_cpu_moe` too."""
    pairs = [f"{override.pattern}={override.buffer}" for override in placement.override_tensor]
    if spell_out_experts:
        pairs += [f"{pattern}=CPU" for pattern in override_patterns(placement.n_cpu_moe)]
    return ",".join(pairs)


def _compute(placement: Placement) -> list[Knob]:
    return [
        Knob(spellings=("--threads",), value=str(placement.n_threads), needed_for="the thread count"),
        Knob(spellings=("--threads-batch",), value=str(placement.n_threads_batch)),
        Knob(spellings=("--flash-attn",), value=placement.flash_attn.value, needed_for="the flash attention setting"),
    ]


def _service(engine: Engine, sampling: Sampling) -> list[Knob]:
    """Templates, sampling, monitoring; nothing here changes memory."""
    knobs = [
        *answering(sampling),
        Knob(spellings=("--offline",)),
        Knob(spellings=("--no-webui", "--no-ui")),
        # Any web page could otherwise call a keyless server on this machine (llama.cpp PR 25655).
        Knob(spellings=("--cors-origins",), value="localhost"),
    ]
    if "--load-mode" in engine.flags:
        # Buffer sizes moved to level 4 with PR 23021; before it level 4 logged prompts, and 3 the sizes.
        # --load-mode is younger than that change.
        knobs.append(Knob(spellings=("--log-verbosity",), value="4"))
    return knobs


def answering(sampling: Sampling) -> list[Knob]:
    """Templates, sampling and monitoring, as llama-server and its forks spell them."""
    return [
        Knob(spellings=("--jinja",)),
        Knob(spellings=("--temp",), value=f"{sampling.temperature:g}"),
        Knob(spellings=("--top-p",), value=f"{sampling.top_p:g}"),
        Knob(spellings=("--min-p",), value=f"{sampling.min_p:g}"),
        Knob(spellings=("--repeat-penalty",), value=f"{sampling.repeat_penalty:g}"),
        Knob(spellings=("--metrics",)),
    ]

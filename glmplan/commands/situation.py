"""What the deciding commands share: the machine asked about, its engine, and the model files to choose among."""

from collections.abc import Sequence
from dataclasses import replace

from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineNotFound, InputError
from glmplan.machine import EngineFound, Machine
from glmplan.model import ModelProfile
from glmplan.noun import noun

# Backends of an engine that can use a GPU of the machine.
_GPU_BACKENDS = frozenset({"cuda", "metal", "vulkan", "hip", "rocm", "sycl"})


@noun
class Situation:
    """A machine, the engine a plan is for, and what is to be said about the choice.

    Without an engine the plan is for any build of `wanted_kind`. A machine read from a file may have been observed
    without being the one this runs on: only `is_here` allows to ask its engine.
    """

    machine: Machine
    engine: Engine | None
    notes: tuple[str, ...]
    use_gpus: bool
    is_here: bool = False
    wanted_kind: EngineKind = EngineKind.LLAMA_SERVER

    @property
    def engine_kind(self) -> EngineKind:
        """The kind the plan is made for."""
        return self.engine.kind if self.engine else self.wanted_kind


def situation_of(on: str | None, ram: str | None, *, engine: str | None = None) -> Situation:
    """The machine that `--on` names (this one without it) and the best engine it has.

    Raises:
        EngineNotFound: `engine` was asked for by kind and is not there.
        InputError: no such machine, or no such kind of engine.
    """
    from glmplan.profiles.catalog import resolve_machine

    return situation_on(resolve_machine(on or "", ram), engine=engine, is_here=(on or "").strip() in {"", "here"})


def situation_on(machine: Machine, *, engine: str | None = None, is_here: bool = False) -> Situation:
    """`machine` and the best engine it has; `is_here` if it is the one this runs on.

    Raises:
        EngineNotFound: `engine` was asked for by kind and is not there.
        InputError: no such kind of engine.
    """
    kind = checked_kind(engine)
    observed = machine.source == "observed"
    chosen = _choose_engine(machine, kind) if observed else None
    here = Situation(
        machine=machine,
        engine=chosen,
        notes=_engine_notes(chosen, observed=observed),
        use_gpus=True,
        is_here=observed and is_here,
        wanted_kind=kind or EngineKind.LLAMA_SERVER,
    )
    if not observed or not machine.gpus:
        return here
    if chosen is not None and chosen.kind is EngineKind.IK_LLAMA:
        note = "glmplan drives ik_llama.cpp on the processor alone: the plan leaves the GPU idle"
        return replace(here, notes=(note,), use_gpus=False)
    if (
        chosen is None
        or not chosen.kind.is_llama_cpp
        or _GPU_BACKENDS & {backend.lower() for backend in chosen.backends}
    ):
        return here
    names = ", ".join(gpu.name for gpu in machine.gpus)
    note = (
        f"this machine has {names}, but {chosen.kind} {chosen.version or ''} was built for the CPU only: the plan "
        "leaves the GPU idle; install a build with its backend (docs/install.md)"
    )
    return replace(here, notes=(note,), use_gpus=False)


def checked_kind(wanted: str | None) -> EngineKind | None:
    """The kind of engine by its name; None for None.

    Raises:
        InputError: no such kind.
    """
    if wanted is None:
        return None
    try:
        return EngineKind(wanted)
    except ValueError:
        message = f"unknown kind of engine {wanted!r}"
        raise InputError(message, hint=f"--engine is one of: {', '.join(EngineKind)}") from None


def _choose_engine(machine: Machine, wanted: EngineKind | None) -> Engine | None:
    """The first engine of the machine that glmplan can launch, or the one asked for."""
    kinds = {kind.value for kind in EngineKind if kind.is_llama_cpp} if wanted is None else {wanted.value}
    usable = [found for found in machine.engines if found.kind in kinds]
    if not usable and wanted is EngineKind.OLLAMA:
        usable = _ollama_daemon()
    if not usable and wanted is not None:
        message = f"no {wanted} on this machine"
        raise EngineNotFound(message, hint=how_to_install(wanted))
    if not usable:
        return None
    first = min(usable, key=lambda found: list(EngineKind).index(EngineKind(found.kind)))
    return Engine(
        kind=EngineKind(first.kind),
        path=first.path,
        version=first.version,
        build=first.build,
        backends=first.backends,
    )


def _ollama_daemon() -> list[EngineFound]:
    """An Ollama that runs without its program being here: in a container, for example."""
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.other_servers import find_ollama

    daemon = find_ollama(LocalHost())
    return (
        []
        if daemon is None
        else [EngineFound(kind=daemon.kind.value, path=daemon.path, version=daemon.version, build=None)]
    )


def how_to_install(kind: EngineKind) -> str:
    """What to do where an engine that was asked for is missing."""
    if kind is EngineKind.MLX_LM:
        return "pip install mlx-lm (on Linux: pip install 'mlx[cpu]' mlx-lm)"
    if kind is EngineKind.IK_LLAMA:
        return "compile its server (docs/install.md) and name it in GLMPLAN_IK_LLAMA_SERVER"
    if kind is EngineKind.OLLAMA:
        return "install Ollama 0.30 or newer (ollama.com/download), or set OLLAMA_HOST to where one runs"
    return "pip install 'glmplan[quick]' brings xllamacpp, 'glmplan[engine]' compiles llama-cpp-python"


def _engine_notes(engine: Engine | None, *, observed: bool) -> tuple[str, ...]:
    if engine is None and observed:
        return (
            "no engine is installed: the plan is for a current llama-server; `pip install 'glmplan[quick]'` brings one",
        )
    if engine is not None and not engine.kind.is_llama_cpp:
        return (f"memory and speed of this plan are llama.cpp's: {engine.kind} may differ (docs/run.md)",)
    return ()


def without_gpus(machine: Machine) -> Machine:
    """The machine as an engine without a GPU backend sees it."""
    return replace(machine, gpus=())


def models_for(
    quant: str | None, gguf: str | None, machine: Machine, *, model: str | None = None
) -> Sequence[ModelProfile]:
    """The files a plan may choose: one quant, one file, or the usual variants of a catalog model.

    Raises:
        ProfileError: unknown model or quant.
        GgufError: the file is no model.
        InputError: a file and a catalog model are both named.
    """
    if gguf is not None:
        if model is not None:
            message = f"--gguf {gguf} and --model {model}: a file says itself what model it is"
            raise InputError(message, hint="leave one of them out")
        from glmplan.profiles.gguf import read_profile
        from glmplan.profiles.recipes import with_catalog_facts

        return [with_catalog_facts(read_profile(gguf))]
    from glmplan.profiles.recipes import DEFAULT_MODEL, usual_quantizations

    name = model or DEFAULT_MODEL
    wanted = usual_quantizations(name) if quant is None or quant == "auto" else (quant,)
    return _by_names(wanted, machine, name)


def smaller_models(machine: Machine, model: str | None = None) -> Sequence[ModelProfile]:
    """Smaller files of the catalog, for machines that a model's usual variants are too large for."""
    from glmplan.profiles.recipes import DEFAULT_MODEL, smaller_quantizations

    name = model or DEFAULT_MODEL
    return _by_names(smaller_quantizations(name), machine, name)


def best_first(machine: Machine, model: str | None = None) -> Sequence[ModelProfile]:
    """All files a plan looks at on its own, by quality."""
    found = (*models_for(None, None, machine, model=model), *smaller_models(machine, model))
    return sorted(found, key=lambda model: model.quality_rank if model.quality_rank is not None else len(found))


def next_better(model: ModelProfile) -> ModelProfile | None:
    """The smallest file of the catalog's next better quality; the original where only that is left."""
    from glmplan.profiles.recipes import better_quantizations, catalog_profile

    names = better_quantizations(model)
    profiles = [catalog_profile(name, model=model.name) for name in names]
    return min(profiles, key=lambda profile: profile.file_bytes, default=None)


def _by_names(names: Sequence[str], machine: Machine, model: str) -> Sequence[ModelProfile]:
    from glmplan.profiles.recipes import DEFAULT_MODEL, catalog_profile

    # The stores are searched for files of the default model only.
    found_here = machine.models if model.lower() == DEFAULT_MODEL else ()
    here = {found.quantization.lower(): found for found in found_here if found.quantization}
    profiles: list[ModelProfile] = []
    for name in names:
        profile = catalog_profile(name, model=model)
        found = here.get(profile.quantization.lower()) if "/" not in name else None
        # A file that is here already may use other tensor types than the recipe: its own header is the truth.
        profiles.append(_local(found.path, profile) if found else profile)
    return profiles


def file_notes(model: ModelProfile, room_bytes: int) -> tuple[str, ...]:
    """What a user must know of a catalog file's tensors: that they are assumed, or larger than `room_bytes` allows."""
    if model.file is not None:
        return ()
    from glmplan.profiles.recipes import published_as
    from glmplan.units import format_bytes

    own = published_as(model)
    if model.assumed_bytes:
        note = (
            f"{model.quantization}: the types of its tensors are not known here; a recipe of its size stands in, and "
            f"{format_bytes(model.assumed_bytes)} of it may lie in other tensors than assumed; each GPU keeps room for "
            f"that (glmplan inspect {own.reference if own else 'FILE'} sums the real header, --gguf plans with it)"
        )
        return (note,)
    if own is None or own.tensor_bytes is None or own.reference == model.download:
        return ()
    more = own.tensor_bytes - 2 * own.uncertainty_bytes - model.tensor_bytes
    if more <= max(0, room_bytes):
        return ()
    note = (
        f"the file that is fetched, {own.reference}, holds {format_bytes(more)} more than the recipe "
        f"{model.quantization} planned here: --quant {own.publisher}/{own.quant} plans with its own tensors"
    )
    return (note,)


def _local(path: str, fallback: ModelProfile) -> ModelProfile:
    from glmplan.errors import GlmplanError
    from glmplan.profiles.gguf import read_profile
    from glmplan.profiles.recipes import with_catalog_facts

    try:
        return with_catalog_facts(read_profile(path))
    except GlmplanError:
        return fallback

"""Settings made elsewhere that reach an engine behind a plan's back, bad model files, and ports in use.

Sources: llama.cpp common/preset.cpp and common/arg.cpp (system-wide files are applied before environment and
command line; LLAMA_ARG_* variables), src/llama-context.cpp (K and V types of MLA models must match);
ollama envconfig/config.go.
"""

from collections.abc import Iterator
from typing import Final

from glmplan.diagnosis import Checkup, Finding, Harm, Setting

_OFF: Final = frozenset({"off", "0", "false", "disabled"})
# Options that change memory, speed or answers; a plan pins most of them, other starts of the engine do not.
_STEERING: Final = frozenset({
    "ctx-size", "n-gpu-layers", "gpu-layers", "n-cpu-moe", "cpu-moe", "override-tensor", "tensor-split", "split-mode",
    "main-gpu", "device", "batch-size", "ubatch-size", "threads", "threads-batch", "parallel", "kv-unified",
    "cache-type-k", "cache-type-v", "flash-attn", "load-mode", "mmap", "no-mmap", "mlock", "fit", "fit-target",
    "cache-ram", "no-kv-offload", "override-kv", "numa", "rpc",
})  # fmt: skip
_SPELLINGS: Final = {
    "c": "ctx-size", "ngl": "n-gpu-layers", "gpu-layers": "n-gpu-layers", "ncmoe": "n-cpu-moe", "cmoe": "cpu-moe",
    "ot": "override-tensor", "ts": "tensor-split", "sm": "split-mode", "mg": "main-gpu", "dev": "device",
    "b": "batch-size", "ub": "ubatch-size", "t": "threads", "tb": "threads-batch", "np": "parallel",
    "n-parallel": "parallel", "fa": "flash-attn", "ctk": "cache-type-k", "ctv": "cache-type-v", "lm": "load-mode",
    "cram": "cache-ram", "batch": "batch-size", "ubatch": "ubatch-size",
}  # fmt: skip


def option_name(setting: Setting) -> str:
    """The long option a setting stands for: `LLAMA_ARG_CTX_SIZE`, `c` and `ctx_size` are `ctx-size`."""
    bare = setting.name.removeprefix("LLAMA_ARG_").lower().replace("_", "-").lstrip("-")
    return _SPELLINGS.get(bare, bare)


def setting_findings(checkup: Checkup) -> Iterator[Finding]:
    """llama.cpp's and Ollama's settings, and the plan's own."""
    settings = {option_name(setting): setting for setting in checkup.configuration.llama_cpp}
    yield from _mixed_types(checkup, settings)
    yield from _flash_attention(checkup, settings)
    yield from _steering(settings)
    yield from _ollama(checkup)


def _mixed_types(checkup: Checkup, settings: dict[str, Setting]) -> Iterator[Finding]:
    key, value = settings.get("cache-type-k"), settings.get("cache-type-v")
    kinds = (key.value if key else "f16", value.value if value else "f16")
    origin = next((setting.origin for setting in (key, value) if setting), "")
    if checkup.plan is not None and not origin:
        placement = checkup.plan.placement
        kinds, origin = (placement.cache_type_k, placement.cache_type_v), "the plan"
    if origin and kinds[0] != kinds[1]:
        yield Finding(
            code="mixed-kv-types",
            harm=Harm.DOES_NOT_RUN,
            what=f"{origin} asks for K cache {kinds[0]} and V cache {kinds[1]}: this model has one latent cache, and "
            "llama.cpp refuses different types",
            fix=f"set both to {kinds[0]}, or neither",
        )


def _flash_attention(checkup: Checkup, settings: dict[str, Setting]) -> Iterator[Finding]:
    named = [settings["flash-attn"]] if "flash-attn" in settings else []
    named += [setting for setting in checkup.configuration.ollama if setting.name == "OLLAMA_FLASH_ATTENTION"]
    for setting in named:
        if setting.value.strip().lower() in _OFF:
            yield Finding(
                code="flash-attention-off",
                harm=Harm.SLOW,
                what=f"flash attention is off ({setting.name}={setting.value} in {setting.origin}): decode speed falls "
                "several times over with a long context, and a quantised KV cache is impossible",
                fix=f"remove {setting.name} from {setting.origin}; old advice to switch it off predates February 2026",
            )
    if checkup.plan is not None and checkup.plan.placement.flash_attn == "off":
        yield Finding(
            code="flash-attention-off",
            harm=Harm.SLOW,
            what="the plan has flash attention off",
            fix="plan again without --flash-attn off",
        )


def _steering(settings: dict[str, Setting]) -> Iterator[Finding]:
    by_origin: dict[str, list[str]] = {}
    for name, setting in settings.items():
        if name in _STEERING:
            by_origin.setdefault(setting.origin, []).append(f"{setting.name}={setting.value}")
    for origin, names in by_origin.items():
        yield Finding(
            code="llama-cpp-settings",
            harm=Harm.CHANGES_A_PLAN,
            what=f"{origin} sets {', '.join(names)} for every llama.cpp program: it changes whatever is not on the "
            "command line",
            fix=f"remove them from {origin}; plans of glmplan pin every knob they know",
        )


def _ollama(checkup: Checkup) -> Iterator[Finding]:
    settings = {setting.name: setting for setting in checkup.configuration.ollama}
    parallel = settings.get("OLLAMA_NUM_PARALLEL")
    if parallel is not None and parallel.value.strip().isdecimal() and int(parallel.value) > 1:
        yield Finding(
            code="ollama-parallel",
            harm=Harm.CHANGES_A_PLAN,
            what=f"OLLAMA_NUM_PARALLEL={parallel.value} in {parallel.origin} multiplies the context of every model",
            fix="set it to 1 for one user, or divide num_ctx by it",
        )


def file_findings(checkup: Checkup) -> Iterator[Finding]:
    """What is known to be wrong with the model files here."""
    for file in checkup.files:
        yield Finding(code=file.code, harm=Harm.WRONG_ANSWERS, what=f"{file.path}: {file.message}", fix=file.hint)


def port_findings(checkup: Checkup) -> Iterator[Finding]:
    """Ports glmplan would listen on."""
    for holder in checkup.port_holders:
        who = f"{holder.name} (process {holder.pid})" if holder.name else "another process"
        yield Finding(
            code="port-taken",
            harm=Harm.DOES_NOT_RUN,
            what=f"port {holder.port} is in use by {who}",
            fix=f"glmplan run --port {holder.port + 1}, or stop it first",
        )

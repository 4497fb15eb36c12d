"""Ollama: the Modelfile of a plan, and the variables of `ollama serve` that a Modelfile cannot hold.

Since 0.30 Ollama runs llama.cpp's llama-server, so memory is as planned; it passes `-c num_ctx*parallel -np parallel`,
one KV type for K and V, and num_batch as both -b and -ub (ollama llm/llama_server.go). Every LLAMA_ARG_* variable of
`ollama serve` reaches that llama-server unless Ollama passes the option itself.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.export.experts import experts_in_words, has_experts_in_main_memory
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    is_file,
    require_private,
)
from glmplan.launchers.export.quoting import BYTE_ORDER_MARK, powershell, shell, systemd_variable
from glmplan.launchers.llama_server import override_tensor
from glmplan.placement import FlashAttention, LoadMode, Placement
from glmplan.units import MIB

_SPLIT: Final = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_ENVIRONMENT: Final = "set it in the server's environment (glmplan export ollama-env)"


def modelfile(request: ExportRequest) -> Exported:
    """The Modelfile: what the model is, its load-time options and its sampling."""
    require_possible(request)
    facts = targets.of("ollama")
    imported = is_file(request.plan.model.file)
    losses = modelfile_losses(request)
    lines = [f"FROM {_value(_origin(request, facts))}", f"REQUIRES {facts['llama_server_version']}"]
    if imported:  # the library's own model brings them
        lines += [f"RENDERER {facts['renderer']}", f"PARSER {facts['parser']}"]
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(request).items()]
    return Exported(text=comments(request, losses) + "\n".join(lines) + "\n", suffix=".Modelfile", losses=losses)


def create_request(request: ExportRequest, name: str) -> dict[str, Any]:
    """The same as a body of POST /api/create (api/types.go `CreateRequest`), without the file's digest."""
    facts = targets.of("ollama")
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda value: value == "true"}
    values = {name: readers[facts["parameters"][name]](value) for name, value in _parameters(request).items()}
    return {"model": name, "renderer": facts["renderer"], "parser": facts["parser"], "parameters": values}


def is_split(file: str) -> bool:
    """Whether a file is one of several that make a model."""
    return _SPLIT.search(file) is not None


def environment(request: ExportRequest) -> Exported:
    """The variables as a file for `. FILE` in a shell, before `ollama serve`."""
    lines = [f"export {name}={shell(value)}" for name, value in variables(request).items()]
    return _as_lines(request, lines, ".env.sh", "then: ollama serve")


def systemd_drop_in(request: ExportRequest) -> Exported:
    """A drop-in of Ollama's own unit, for Linux.

    Raises:
        NotExpressible: a value with a control character.
    """
    lines = [f"Environment={systemd_variable(name, value)}" for name, value in variables(request).items()]
    note = "put into /etc/systemd/system/ollama.service.d/glmplan.conf, then systemctl daemon-reload and restart ollama"
    return _as_lines(request, ["[Service]", *lines], ".conf", note)


def launchctl(request: ExportRequest) -> Exported:
    """Commands that give the variables to Ollama's app on a Mac until it is shut down."""
    lines = [f"launchctl setenv {name} {shell(value)}" for name, value in variables(request).items()]
    return _as_lines(request, lines, ".sh", "then quit Ollama and start it again")


def windows(request: ExportRequest) -> Exported:
    """PowerShell commands that keep the variables for the user of a Windows machine.

    Raises:
        NotExpressible: a value with a double quote or a control character.
    """
    lines = [
        f"[Environment]::SetEnvironmentVariable({powershell(name)}, {powershell(value)}, 'User')"
        for name, value in variables(request).items()
    ]
    return _as_lines(request, lines, ".ps1", "then quit Ollama and start it again")


def _as_lines(request: ExportRequest, lines: list[str], suffix: str, note: str) -> Exported:
    losses = environment_losses(request)
    text = comments(request, losses, also=(note,)) + "\n".join(lines) + "\n"
    if suffix == ".ps1" and not text.isascii():
        text = BYTE_ORDER_MARK + text
    return Exported(text=text, suffix=suffix, losses=losses)


def variables(request: ExportRequest) -> dict[str, str]:
    """The environment of `ollama serve`; it holds for every model this server loads."""
    require_possible(request)
    placement, endpoint = request.placement, request.endpoint
    values: dict[str, str | None] = {
        "OLLAMA_HOST": f"[{endpoint.host}]:{endpoint.port}"
        if ":" in endpoint.host
        else f"{endpoint.host}:{endpoint.port}",
        "OLLAMA_CONTEXT_LENGTH": str(context_per_slot(placement)),
        "OLLAMA_NUM_PARALLEL": str(placement.n_parallel),
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KV_CACHE_TYPE": placement.cache_type_k,
        "OLLAMA_FLASH_ATTENTION": {FlashAttention.ON: "1", FlashAttention.OFF: "0"}.get(placement.flash_attn),
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_CACHE_RAM": str(placement.cache_ram_bytes // MIB),
        **_inherited(placement),
        **placement.variables,
    }
    return {name: value for name, value in values.items() if value is not None}


def context_per_slot(placement: Placement) -> int:
    """Tokens of one slot: Ollama multiplies its context by the number of slots."""
    return placement.n_ctx // placement.n_parallel


def environment_losses(request: ExportRequest) -> tuple[str, ...]:
    """What of the plan not even the environment can say."""
    placement = request.placement
    leaning = ", ".join(name for name, value in _inherited(placement).items() if value is not None)
    return applying({
        f"{leaning}: read by the llama-server inside Ollama {targets.of('ollama')['llama_server_version']} or newer, "
        "not promised by Ollama": bool(leaning),
        "op_offload off: Ollama has no setting for it": not placement.op_offload,
        **_losses_either_way(placement),
    })  # fmt: skip


def _inherited(placement: Placement) -> dict[str, str | None]:
    overrides = override_tensor(placement, spell_out_experts=False)
    locked = placement.load_mode in {LoadMode.MLOCK, LoadMode.MMAP_MLOCK}
    return {
        "LLAMA_ARG_N_CPU_MOE": str(placement.n_cpu_moe) if placement.n_cpu_moe else None,
        "LLAMA_ARG_OVERRIDE_TENSOR": overrides or None,
        "LLAMA_ARG_TENSOR_SPLIT": ",".join(f"{share:g}" for share in placement.tensor_split) or None,
        "LLAMA_ARG_REPACK": None if placement.repack else "0",
        "LLAMA_ARG_LOAD_MODE": placement.load_mode.value if locked else None,
        "LLAMA_ARG_NUMA": placement.numa.value if placement.numa else None,
    }


def require_possible(request: ExportRequest) -> None:
    """Stop when Ollama cannot run the plan at all.

    Raises:
        NotExpressible: a KV cache type it does not have, or an address that others can reach.
    """
    placement = request.placement
    types = targets.of("ollama")["cache_types"]
    if placement.cache_type_k not in types or placement.cache_type_k != placement.cache_type_v:
        message = f"Ollama stores the KV cache as {', '.join(types)}, not as {placement.cache_type_k}"
        raise NotExpressible(message, hint=f"plan again with --cache-type {types[1]}", facts={"types": types})
    require_private("Ollama", request, hint="--host 127.0.0.1, and a proxy with keys before it")


def _origin(request: ExportRequest, facts: dict[str, Any]) -> str:
    """A path as it is; a quantisation the library has by its tag; otherwise the published file of the hub."""
    model = request.plan.model
    if is_file(model.file):
        return model.file
    tag = facts["library_tags"].get(model.quantization.lower())
    return str(tag or f"{targets.of('weights')['gguf_hub']}:{model.quantization}")


def _parameters(request: ExportRequest) -> dict[str, str]:
    placement, sampling = request.placement, request.defaults.sampling
    parameters = {
        "num_ctx": str(context_per_slot(placement)),
        "num_gpu": str(placement.n_gpu_layers),
        "num_batch": str(placement.n_ubatch),
        "num_thread": str(placement.n_threads),
        "use_mmap": "true" if placement.use_mmap else "false",
    }
    if placement.load_mtp:
        parameters["draft_num_predict"] = "1"
    return parameters | {
        "temperature": f"{sampling.temperature:g}",
        "top_p": f"{sampling.top_p:g}",
        "min_p": f"{sampling.min_p:g}",
        "repeat_penalty": f"{sampling.repeat_penalty:g}",
        "num_predict": str(request.max_new_tokens),
    }


def modelfile_losses(request: ExportRequest) -> tuple[str, ...]:
    """What of the plan a Modelfile, or a model made through the API, cannot say."""
    placement = request.placement
    return applying({
        f"KV cache {placement.cache_type_k}: {_ENVIRONMENT}": placement.cache_type_k != "f16",
        f"flash attention {placement.flash_attn}: {_ENVIRONMENT}": placement.flash_attn is FlashAttention.OFF,
        f"{placement.n_parallel} slots: {_ENVIRONMENT}": placement.n_parallel > 1,
        f"{experts_in_words(placement, request.plan.model.n_layer)}: {_ENVIRONMENT}, or the GPU runs out": (
            has_experts_in_main_memory(placement)
        ),
        f"tensor split: {_ENVIRONMENT}": bool(placement.tensor_split),
        f"repacking off: {_ENVIRONMENT}": not placement.repack,
        f"weights locked in memory: {_ENVIRONMENT}": placement.use_mlock,
        f"NUMA {placement.numa}: {_ENVIRONMENT}": placement.numa is not None,
        f"buffers in huge pages: {_ENVIRONMENT}": placement.huge_pages,
        "op_offload off: Ollama has no setting for it": not placement.op_offload,
        f"{placement.n_batch} tokens per batch: num_batch is one value for both, the ubatch of {placement.n_ubatch} "
        "decides memory": placement.n_batch != placement.n_ubatch,
        "answers without thinking: requests must say `think: false`": not request.thinking,
        "a split file: merge its parts first (llama-gguf-split --merge)": bool(
            is_split(request.plan.model.file)
        ),
        "the API key: Ollama has none": request.endpoint.api_key_file is not None,
        **_losses_either_way(placement),
    })  # fmt: skip


def _losses_either_way(placement: Placement) -> dict[str, bool]:
    return {
        f"{placement.n_threads_batch} threads for prefill: Ollama takes {placement.n_threads} for both": (
            placement.n_threads_batch != placement.n_threads
        ),
        f"one context shared by {placement.n_parallel} slots: each has its own {context_per_slot(placement)} tokens": (
            placement.n_parallel > 1 and placement.kv_unified
        ),
    }


def _value(text: str) -> str:
    """A value as the Modelfile parser gives it back: it drops what is not printable and trims spaces outside quotes.

    Raises:
        NotExpressible: it would come back changed.
    """
    if not text.isprintable() or text.startswith('"'):
        message = f"a Modelfile cannot hold {text!r}: its parser drops characters that are not printable"
        raise NotExpressible(message, hint="rename the file", facts={"value": text})
    return f'"{text}"' if text != text.strip() else text

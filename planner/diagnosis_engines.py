"""Engines that cannot run the model, or run it with an old cache layout or without its attention kernels.

Sources. llama.cpp: PR 19067 (V-less KV cache, merged 24-25 January 2026), PRs 18953, 18986, 19057, 19092, 19097, 19142
(flash attention for this head size, 20-27 January 2026); issue 19169 shows build 7865 on 29 January, issue 19307 build
7917 on 3 February. Ollama: issues 13863, 13805, 13789, 14273, 15855; PRs 13870, 14054. vLLM: PR 32614.
"""

import re
from collections.abc import Iterator
from typing import Final

from glmplan.diagnosis import Checkup, Finding, Harm
from glmplan.engine import EngineKind
from glmplan.machine import EngineFound, Vendor

V_LESS_BUILD: Final = 7865
FLASH_ATTENTION_BUILD: Final = 7917
LLAMA_CPP_PYTHON_FLOOR: Final = (0, 3, 17)  # 0.3.16 is of August 2025, before the model
OLLAMA_FLOOR: Final = (0, 14, 3)
OLLAMA_LLAMA_SERVER: Final = (0, 30, 0)
VLLM_MLA: Final = (0, 15, 0)
_OLLAMA_WITHDRAWN_BYTES: Final = 18_754_370_628
_LAUNCHABLE: Final = frozenset(kind.value for kind in EngineKind if kind.is_llama_cpp)
_ONLY_WHEN_NAMED: Final = tuple(kind.value for kind in EngineKind if not kind.is_llama_cpp)
_GPU_BACKENDS: Final = {
    Vendor.NVIDIA: frozenset({"cuda", "vulkan"}),
    Vendor.APPLE: frozenset({"metal", "mtl"}),
    Vendor.AMD: frozenset({"hip", "vulkan"}),
    Vendor.INTEL: frozenset({"sycl", "vulkan"}),
}
_INSTALL: Final = (
    "pip install 'glmplan[quick]' (prebuilt) or 'glmplan[engine]' (compiled here), or put llama-server on PATH"
)


def version_of(text: str | None) -> tuple[int, ...]:
    """The numbers a version begins with: `0.14.3-rc2` is (0, 14, 3); empty when there are none."""
    match = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", text or "")
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def engine_findings(checkup: Checkup) -> Iterator[Finding]:
    """llama.cpp in its forms, and vLLM."""
    engines = checkup.machine.engines
    launchable = [engine for engine in engines if engine.kind in _LAUNCHABLE]
    if not launchable:
        others = ", ".join(engine.kind for engine in engines)
        named = [kind for kind in _ONLY_WHEN_NAMED if any(engine.kind == kind for engine in engines)]
        yield Finding(
            code="no-engine",
            harm=Harm.DOES_NOT_RUN,
            what=f"no engine that glmplan launches by itself is installed{f' (found: {others})' if others else ''}",
            fix="; or ".join([_INSTALL, *(f"glmplan run --engine {kind}" for kind in named)]),
        )
    for engine in launchable:
        yield from _old_build(engine)
    if launchable:
        yield from _idle_gpu(checkup, launchable)
    for engine in engines:
        version = version_of(engine.version)
        if engine.kind == "vllm" and version and version < VLLM_MLA:
            yield Finding(
                code="vllm-before-mla",
                harm=Harm.OUT_OF_MEMORY,
                what=f"vLLM {engine.version} does not know this model's latent attention: about 29 GB of KV cache for "
                "131,072 tokens instead of 7",
                fix="pip install -U 'vllm>=0.15'",
            )


def _old_build(engine: EngineFound) -> Iterator[Finding]:
    """Judged by the old build numbers only: since mid-2026 a shallow clone counts from 1."""
    version = version_of(engine.version)
    if engine.kind == "llama-cpp-python" and version and version < LLAMA_CPP_PYTHON_FLOOR:
        yield Finding(
            code="llama-cpp-python-too-old",
            harm=Harm.DOES_NOT_RUN,
            what=f"llama-cpp-python {engine.version} is older than the model",
            fix="pip install -U 'llama-cpp-python[server]>=0.3.36'",
        )
    written = engine.build or ""
    build = int(written) if written.isdecimal() else 0
    if engine.kind == "llama-cpp-python" or not 1000 <= build < FLASH_ATTENTION_BUILD:
        return
    if build < V_LESS_BUILD:
        yield Finding(
            code="llama-cpp-before-v-less",
            harm=Harm.OUT_OF_MEMORY,
            what=f"{engine.kind} build {build} keeps a V cache that this model does not need: 102,272 bytes per token "
            "of context instead of 54,144",
            fix=f"update llama.cpp to a build from February 2026 or later (b{FLASH_ATTENTION_BUILD} and above)",
        )
    yield Finding(
        code="llama-cpp-before-fa-kernels",
        harm=Harm.SLOW,
        what=f"{engine.kind} build {build} lacks part of the flash-attention kernels for this model's head size: on "
        "CUDA attention may fall back to the CPU",
        fix=f"update llama.cpp to b{FLASH_ATTENTION_BUILD} (February 2026) or later",
    )


def _idle_gpu(checkup: Checkup, launchable: list[EngineFound]) -> Iterator[Finding]:
    """A GPU, and no launchable engine built for it."""
    backends = {backend for engine in launchable for backend in engine.backends}
    for vendor in dict.fromkeys(gpu.vendor for gpu in checkup.machine.gpus if gpu.memory_usable_bytes is not None):
        if not backends or backends & _GPU_BACKENDS[vendor]:
            continue
        names = ", ".join(gpu.name for gpu in checkup.machine.gpus if gpu.vendor is vendor)
        wanted = " or ".join(sorted(_GPU_BACKENDS[vendor] - {"mtl"}))
        yield Finding(
            code="gpu-not-used",
            harm=Harm.SLOW,
            what=f"{names} will stay idle: the engines here were built for {', '.join(sorted(backends))} only",
            fix=f"install a build of llama.cpp with {wanted} (docs/install.md)",
        )


def ollama_findings(checkup: Checkup) -> Iterator[Finding]:
    """Ollama by version range, and the library file that was withdrawn."""
    ollama = next((engine for engine in checkup.machine.engines if engine.kind == "ollama"), None)
    if ollama is None:
        return
    version = version_of(ollama.version)
    if version:
        yield from _ollama_by_version(version, ollama.version or "")
    for model in checkup.machine.models:
        if model.store == "ollama" and model.bytes == _OLLAMA_WITHDRAWN_BYTES:
            yield Finding(
                code="ollama-withdrawn-file",
                harm=Harm.OUT_OF_MEMORY,
                what=f"{model.path} is the first, withdrawn library file: its KV cache takes 962,560 bytes per token",
                fix="ollama pull glm-4.7-flash",
            )


def _ollama_by_version(version: tuple[int, ...], text: str) -> Iterator[Finding]:
    if version < OLLAMA_FLOOR:
        yield Finding(
            code="ollama-too-old",
            harm=Harm.DOES_NOT_RUN,
            what=f"Ollama {text} cannot run this model: it needs 0.14.3",
            fix="update Ollama to 0.30 or later (ollama.com/download)",
        )
    elif version == OLLAMA_FLOOR:
        yield Finding(
            code="ollama-full-kv",
            harm=Harm.OUT_OF_MEMORY,
            what=f"Ollama {text} keeps full keys and values: 962,560 bytes per token, 18 times as much as needed "
            "(145 GB at 128,000 tokens)",
            fix="update Ollama to 0.30 or later, then `ollama pull glm-4.7-flash`: the file changed too",
        )
    elif version < OLLAMA_LLAMA_SERVER:
        yield Finding(
            code="ollama-keeps-v",
            harm=Harm.OUT_OF_MEMORY,
            what=f"Ollama {text} keeps a V cache beside the latent keys (about 1.9 times the memory), and refuses "
            "flash attention, and with it a quantised cache, for files that are not from its library",
            fix="update Ollama to 0.30 or later",
        )

"""Write docs/models.md from the catalog and the planner: what works, what each file takes, and what holds it.

    python scripts/docs_models.py            # rewrites docs/models.md

tests/contract/test_models_page.py fails when the file is not current.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from glmplan.engine import EngineKind
from glmplan.model import ModelProfile
from glmplan.planner.candidates import base_placement, largest_context
from glmplan.planner.memory import MemoryModel
from glmplan.planner.offload import on_gpus
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces, spaces_of
from glmplan.profiles.benchmarks import benchmark_figures
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.model_rows import f16_cache_bytes_per_token
from glmplan.profiles.published_rows import KnownBy, PublishedFile, published_rows
from glmplan.profiles.recipes import catalog_profile, model_facts, model_names, quantization_names
from glmplan.units import GIB, MIB

PAGE: Final = Path(__file__).parents[1] / "docs" / "models.md"
_CARDS_GB: Final = (12, 16, 24, 32, 48, 80)
# Where the weights of GLM-4.7 find room: servers, and a workstation with one large memory.
_CLUSTERS: Final = ("2x h100", "4x h100", "8x h100", "2x h200", "4x h200", "8x h200", "apple-m3-ultra:512")
# A model larger than this in 4 bits is shown on clusters instead of cards.
_LARGE_BYTES: Final = 100 * GIB
# What a desktop and the driver leave of a card: as in docs/vs-fit.md.
_NOT_FREE_MIB: Final = 604
_KNOWN: Final = {
    KnownBy.RECIPE: "the recipe's",
    KnownBy.LISTED: "listed",
    KnownBy.ASSUMED: "assumed",
}

_HEAD: Final = """# Models

Written by `python scripts/docs_models.py` from `profiles/models/*.yaml`; `tests/contract/test_models_page.py`
checks that it is current. `--model` names one of the catalog's models, `--quant` a file of it: a recipe of
`llama-quantize` (`q4_K_M`), a file that only its publisher makes (`UD-Q4_K_XL`), or one publisher's own file of a
name that others use too (`unsloth/q4_K_M`). `glmplan models NAME` lists them in the terminal, `--json` for programs.
"""

_FILES_NOTE: Final = """A quantisation's name is not a file: publishers give some tensors other types than the recipe of
that name. *The recipe's*: the size is the recipe's. *Listed*: the types were printed tensor by tensor, or follow rules
printed for a sister file, and sum to the file's size to the byte. *Assumed*: only the size is known, or not even that;
a recipe, grown by experts' types until it is as large, stands in, never below the file, and a plan says how many bytes
may lie elsewhere. A file that is here, or an address (`--gguf hf:REPO/FILE`), is read from its own header."""


def page() -> str:
    """docs/models.md."""
    parts = [_HEAD.rstrip(), "", *_what_works(), "", "## Published files", "", _FILES_NOTE, "", *_benchmarks()]
    for name in model_names():
        parts += ["", *_section(name)]
    return "\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; columns after the first are aligned right where their head ends in a colon."""
    names = [name.removesuffix(":") for name in head]
    rule = ["---:" if name.endswith(":") else "---" for name in head]
    return [f"| {' | '.join(cells)} |" for cells in (names, rule, *rows)]


def _what_works() -> list[str]:
    rows: list[Sequence[str]] = []
    for name in model_names():
        facts = model_facts(name)
        whole = catalog_profile("bf16", model=name)
        planned = facts.get("compute_buffers") is not None
        per_token = f"{f16_cache_bytes_per_token(whole):,} B"
        works = (
            "`plan`, `estimate`, `what-if`, `run` with its files"
            if planned
            else "`estimate --exact`: the engine's own dry run of the header; `plan` refuses"
        )
        rows.append((f"`{name}`", f"{whole.n_parameters / 1e9:.2f} B", per_token, f"{whole.n_ctx_train:,}", works))
    head = ("`--model`", "parameters:", "f16 cache per token:", "context:", "what works")
    lines = ["## What works", "", *_table(head, rows), ""]
    return [
        *lines,
        "Files of other models: `glmplan inspect FILE` reads them, `estimate --exact --gguf FILE` asks the engine, and",
        "`plan` refuses rather than guesses. Nemotron's recurrent layers keep 49,930,240 bytes per slot beside the",
        "cache.",
    ]


def _benchmarks() -> list[str]:
    figures = benchmark_figures()
    sources = list(dict.fromkeys(figure.source for figure in figures))
    rows = [
        (
            figure.model,
            figure.benchmark + ("" if figure.unit == "percent" else f", {figure.unit}"),
            _figure(figure.stated),
            _figure(figure.public),
            "**differs**" if figure.disagrees else "",
            str(sources.index(figure.source) + 1),
            figure.note or "",
        )
        for figure in figures
    ]
    differing = [f"{figure.benchmark} of {figure.model}" for figure in figures if figure.disagrees]
    return [
        "## Benchmarks",
        "",
        "*Stated*: by the document this project began with. *Public*: by the source numbered below. No figure here",
        f"decides anything in a plan. The two differ in {', '.join(differing[:-1])} and {differing[-1]}.",
        "",
        *_table(("model", "figure", "stated:", "public:", "", "source:", "note"), rows),
        "",
        *(f"{number}. {source}" for number, source in enumerate(sources, 1)),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _section(name: str) -> list[str]:
    facts = model_facts(name)
    profiles = [catalog_profile(quant, model=name) for quant in quantization_names(name)]
    lines = [f"## {facts['title']}", ""]
    lines += [f"{facts['developer']}, {facts['released']}, {facts['license']}; `{facts['architecture']}` in llama.cpp."]
    lines += ["", f"Recipes: {_sentence(facts['quantizations'])}."]
    lines += ["", f"Quality: {_sentence(facts['quality'])}.", "", *_room(facts, profiles)]
    if published := published_rows(facts):
        lines += ["", "Published files:", "", *_published(published)]
    if ollama := facts.get("ollama_variants"):
        lines += [
            "",
            f"Tags of {ollama['source']} (Ollama {ollama['minimum_version']} or newer):",
            "",
            *_ollama(ollama),
        ]
    return lines


def _ollama(known: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"`{row['tag']}`",
            str(row["download_gb"]),
            str(row["stated_ram_gb"]),
            ", ".join(str(name) for name in row.get("manifests", ())) or "-",
        )
        for row in known["variants"]
    ]
    return _table(("tag", "GB:", "RAM asked for, GB:", "manifests seen"), rows)


def _sentence(facts: Mapping[str, Any]) -> str:
    return " ".join(str(facts["source"]).split()).rstrip(".")


def _room(facts: Mapping[str, Any], profiles: Sequence[ModelProfile]) -> list[str]:
    """What each file takes, and the longest context that machines hold with all weights on their GPUs."""
    head = ["file", "MiB:", "bits per weight:", "quality:"]
    if facts.get("compute_buffers") is None:
        machines: dict[str, Spaces] = {}
        said = (
            "There is no memory model of this architecture: the engine's dry run (`estimate --exact`) says what fits."
        )
    elif max(profile.tensor_bytes for profile in profiles if profile.quantization == "q4_K_M") > _LARGE_BYTES:
        machines = {name: spaces_of(resolve_machine(name, None)) for name in _CLUSTERS}
        said = (
            "The columns are the longest context, in tokens, with all weights and an f16 cache on the GPUs of that"
            " machine; `-` where they do not fit: `glmplan plan --model glm-4.7 --on MACHINE --ram SIZE` moves experts"
            " to main memory."
        )
    else:
        machines = {f"{size} GB": _card(size) for size in _CARDS_GB}
        said = (
            "The columns are the longest context, in tokens, with all weights and an f16 cache on one CUDA card of that"
            f" many GB ({_NOT_FREE_MIB} MiB less free) and nothing moved to main memory; `-` where that is not"
            " possible: experts in main memory then make room (`glmplan plan --on gpu:12GiB`). Quality is an order of"
            " files (0 is the best)."
        )
    rows = [
        (
            profile.quantization + (" (assumed)" if profile.assumed_bytes else ""),
            f"{profile.tensor_bytes // MIB:,}",
            f"{8 * profile.tensor_bytes / profile.n_parameters:.2f}",
            "-" if profile.quality_rank is None else str(profile.quality_rank),
            *(_longest(profile, spaces) for spaces in machines.values()),
        )
        for profile in sorted(profiles, key=lambda p: p.tensor_bytes)
    ]
    return [said, "", *_table([*head, *(f"{name}:" for name in machines)], rows)]


def _card(size_gb: int) -> Spaces:
    free = size_gb * GIB - _NOT_FREE_MIB * MIB
    gpu = GpuSpace(id="gpu0", kind=GpuKind.CUDA, usable_bytes=free, free_bytes=free)
    return Spaces(gpus=(gpu,), host=HostSpace(usable_bytes=64 * GIB))


def _longest(profile: ModelProfile, spaces: Spaces) -> str:
    memory = MemoryModel(profile, spaces)
    base = base_placement(
        memory, engine=EngineKind.LLAMA_SERVER, n_ctx=profile.n_ctx_train, cache="f16", n_parallel=1, n_threads=8
    )
    found = largest_context(memory, base, profile.n_ctx_train, lambda m, p: on_gpus(m, p) is not None)
    return f"{found.n_ctx:,}" if found else "-"


def _published(files: Sequence[PublishedFile]) -> list[str]:
    rows = [
        (
            f"{row.publisher}/{row.quant}",
            "-" if row.n_bytes is None else f"{row.n_bytes / 1e9:.{3 if not row.uncertainty_bytes else 1}f}",
            _KNOWN[row.known_by],
            "yes" if row.sha256 else "-",
            row.file,
            " ".join(row.source.split()),
        )
        for row in files
    ]
    return _table(("`--quant`", "GB:", "tensor types", "sha256", "file", "source"), rows)


if __name__ == "__main__":
    PAGE.write_text(page())

"""Model files that other tools have already put on this machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from glmplan.machine import ModelFile
from glmplan.profiles.gguf_shards import part_path
from glmplan.profiles.stores import (
    HUGGING_FACE,
    LLAMA_CPP,
    LM_STUDIO,
    OLLAMA,
    OllamaName,
    Stores,
    find_ollama,
    folders,
    gguf_files,
    read_small,
    snapshots,
)

# As file names spell it: Q4_K_M, UD-Q4_K_XL, IQ4_XS, MXFP4_MOE, BF16.
_QUANTIZATION: Final = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32))(?![A-Za-z0-9])", re.IGNORECASE
)
_PARTS: Final = re.compile(r"-00001-of-(\d{5})\.gguf$")


def stored_models(stores: Stores) -> tuple[ModelFile, ...]:
    """Every model file in every store; a split file once, by its first part, with the bytes of all parts.

    The quantisation is what the name says (for Ollama: what its configuration says); the header was not opened.
    """
    found: dict[str, ModelFile] = {}
    for path, store in _files(stores):
        n_bytes = _bytes_of(path)
        if n_bytes is not None:
            quantization = quantization_in_name(path.name)
            found[str(path)] = ModelFile(path=str(path), quantization=quantization, bytes=n_bytes, store=store)
    for folder in stores.ollama_folders:
        for model in _ollama_models(stores, folder):
            found.setdefault(model.path, model)
    return tuple(found.values())


def quantization_in_name(name: str) -> str | None:
    """The quantisation a file name ends with, such as `UD-Q4_K_XL`; None when it names none."""
    stem = _PARTS.sub("", name).removesuffix(".gguf")
    spelled = _QUANTIZATION.findall(stem)
    return str(spelled[-1]) if spelled else None


def _files(stores: Stores) -> Iterator[tuple[Path, str]]:
    for folder in stores.hub_folders:
        for repository in folders(folder, "models--*"):
            for snapshot in snapshots(repository, "main")[:1]:
                yield from ((path, HUGGING_FACE) for path in gguf_files(snapshot))
    for store, roots in ((LLAMA_CPP, stores.llama_cpp_folders), (LM_STUDIO, stores.lm_studio_folders)):
        for folder in roots:
            yield from ((path, store) for path in gguf_files(folder, skip="models--*"))


def _bytes_of(path: Path) -> int | None:
    """Bytes of a file and its later parts; None when one is missing."""
    match = _PARTS.search(path.name)
    count = int(match[1]) if match else 1
    paths = [part_path(str(path), number, count) or str(path) for number in range(1, count + 1)]
    try:
        return sum(Path(part).stat().st_size for part in paths)
    except OSError:
        return None


def _ollama_models(stores: Stores, folder: Path) -> Iterator[ModelFile]:
    alone = Stores(env={"OLLAMA_MODELS": str(folder)}, home=stores.home, root=stores.root)
    for manifest in sorted((folder / "manifests").glob("*/*/*/*")):
        host, namespace, model, tag = manifest.parts[-4:]
        found = find_ollama(alone, OllamaName(host=host, namespace=namespace, model=model, tag=tag))
        if found is not None and found.path.is_relative_to(folder):
            quantization = _configured_type(folder, manifest) or quantization_in_name(tag)
            n_bytes = _bytes_of(found.path)
            if n_bytes is not None:
                yield ModelFile(path=str(found.path), quantization=quantization, bytes=n_bytes, store=OLLAMA)


def _configured_type(folder: Path, manifest: Path) -> str | None:
    """`file_type` of the configuration a manifest points to."""
    try:
        digest = json.loads(read_small(manifest) or "")["config"]["digest"]
        config = json.loads(read_small(folder / "blobs" / str(digest).replace(":", "-")) or "")
        file_type = config["file_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return file_type if isinstance(file_type, str) else None

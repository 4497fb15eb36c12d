"""Files of GLM-4.7-Flash already on this machine, in any tool's store, so that nothing is downloaded twice."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from glmplan.errors import JsonValue
from glmplan.machine import ModelFile
from glmplan.profiles.host import Host
from glmplan.profiles.probes.json_fields import integer, items, text
from glmplan.profiles.store_listing import quantization_in_name, stored_models
from glmplan.profiles.stores import HUGGING_FACE, OLLAMA, OllamaName, Stores, find_ollama, folders, snapshots

_MODEL: Final = re.compile(r"glm[-_.]?4[._]7[-_.]?flash", re.IGNORECASE)
_BITS: Final = re.compile(r"(?<![A-Za-z0-9])(\d-?bit|FP8|NVFP4|AWQ)(?![A-Za-z0-9])", re.IGNORECASE)


def collect(env: Mapping[str, str]) -> JsonValue:
    """The model's files by store: path, bytes, quantisation."""
    stores = Stores(env=env, home=Path.home())
    pulled = set(_ollama_blobs(stores))
    found: list[JsonValue] = [
        {"path": model.path, "bytes": model.bytes, "store": model.store, "quantization": model.quantization}
        for model in stored_models(stores)
        if model.path in pulled or (model.store != OLLAMA and _MODEL.search(model.path))
    ]
    return found + list(_safetensors(stores))


def find_models(host: Host) -> tuple[ModelFile, ...]:
    """Every file of the model that is here, by store, largest first."""
    files = [
        ModelFile(path=path, quantization=text(entry.get("quantization")), bytes=size,
                  store=text(entry.get("store")) or "unknown")
        for entry in items(host.call("models", lambda: collect(host.env)))
        if (path := text(entry.get("path"))) and (size := integer(entry.get("bytes"))) is not None
    ]  # fmt: skip
    return tuple(sorted(files, key=lambda entry: (entry.store, -entry.bytes, entry.path)))


def _ollama_blobs(stores: Stores) -> Iterator[str]:
    """Blobs of this model's tags: their own names say nothing."""
    for folder in stores.ollama_folders:
        alone = Stores(env={"OLLAMA_MODELS": str(folder)}, home=stores.home, root=stores.root)
        for manifest in (folder / "manifests").glob("*/*/*/*"):
            host, namespace, model, tag = manifest.parts[-4:]
            if _MODEL.search(model):
                found = find_ollama(alone, OllamaName(host=host, namespace=namespace, model=model, tag=tag))
                if found is not None:
                    yield str(found.path)


def _safetensors(stores: Stores) -> Iterator[JsonValue]:
    """Repositories in the formats of mlx-lm, vLLM and SGLang: one entry per snapshot."""
    for folder in stores.hub_folders:
        for repository in folders(folder, "models--*"):
            if not _MODEL.search(repository.name):
                continue
            for snapshot in snapshots(repository, "main")[:1]:
                size = sum(path.stat().st_size for path in snapshot.rglob("*.safetensors") if path.exists())
                if size:
                    name = _BITS.search(repository.name)
                    yield {"path": str(snapshot), "bytes": size, "store": HUGGING_FACE,
                           "quantization": name[1] if name else quantization_in_name(repository.name)}  # fmt: skip

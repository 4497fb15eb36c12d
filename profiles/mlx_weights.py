"""A folder of MLX weights as a plan names it: what its `config.json` says, and its bytes."""

import json
from pathlib import Path
from typing import Final

from glmplan.errors import InputError
from glmplan.plan import PlannedModel
from glmplan.profiles.probes.json_fields import Fields, fields, integer, text
from glmplan.profiles.stores import Stores, snapshots

_PLAIN_TYPES: Final = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def find_weights(stores: Stores, repo: str) -> Path | None:
    """The newest snapshot of a hub repository that some tool on this machine has fetched whole."""
    for folder in stores.hub_folders:
        for snapshot in snapshots(folder / f"models--{repo.replace('/', '--')}", "main"):
            if (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
                return snapshot
    return None


def read_weights(folder: Path) -> PlannedModel:
    """The model in `folder`.

    Raises:
        InputError: it holds no `config.json` or no safetensors files.
    """
    shards = sorted(folder.glob("*.safetensors"))
    config = _config(folder)
    architecture, n_layer = text(config.get("model_type")), integer(config.get("num_hidden_layers"))
    if not shards or architecture is None or not n_layer:
        missing = "no *.safetensors" if not shards else "no config.json with model_type and num_hidden_layers"
        message = f"{folder} is no folder of MLX weights: it has {missing}"
        raise InputError(message, hint="--weights FOLDER, for example a snapshot of mlx-community/GLM-4.7-Flash-4bit")
    bits = integer(fields(config.get("quantization")).get("bits"))
    stored = text(config.get("torch_dtype")) or text(config.get("dtype")) or ""
    return PlannedModel(
        name=_name(folder),
        architecture=architecture,
        file=str(folder.absolute()),
        file_bytes=sum(shard.stat().st_size for shard in shards),
        quantization=f"{bits}bit" if bits else _PLAIN_TYPES.get(stored, "unquantised"),
        n_layer=n_layer,
        n_ctx_train=integer(config.get("max_position_embeddings")) or 1,
    )


def _config(folder: Path) -> Fields:
    try:
        return fields(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _name(folder: Path) -> str:
    """The repository of a snapshot in the hub's cache, or the folder's own name."""
    kept = folder.absolute().parent.parent.name
    return kept.rpartition("--")[2] if kept.startswith("models--") else folder.absolute().name

"""A model's header turned into the noun a planner reads."""

from pathlib import PurePosixPath
from typing import Final

from glmplan.errors import UnsupportedModel
from glmplan.model import ModelProfile
from glmplan.profiles.gguf_attention import attention_of, expert_gating_of
from glmplan.profiles.gguf_keys import ModelKeys
from glmplan.profiles.gguf_quantization import quantization_of
from glmplan.profiles.gguf_shards import GgufModel

_HINT: Final = "`glmplan inspect` shows what the file says; a planner needs a language model with attention"


def n_vocab_of(keys: ModelKeys, model: GgufModel) -> int | None:
    """Size of the vocabulary: stated, or the length of the token list, or the rows of the embedding."""
    stated = keys.whole(".vocab_size") or keys.length("tokenizer.ggml.tokens")
    if stated:
        return stated
    for shard in model.shards:
        for entry in shard.header.tensors:
            if entry.tensor.name == "token_embd.weight" and len(entry.tensor.shape) == 2:
                return entry.tensor.shape[1]
    return None


def profile_of(
    model: GgufModel,
    *,
    file: str | None,
    sha256: str | None = None,
    download: str | None = None,
) -> ModelProfile:
    """The profile of a model file.

    Args:
        model: its header(s).
        file: where it is on this machine; None for one that is not.
        sha256: of the file, when a store vouches for it.
        download: where it can be fetched.

    Raises:
        UnsupportedModel: not a language model, or nothing known about its attention.
        GgufError: a key of the wrong type.
    """
    keys = model.keys
    _refuse_other_kinds(keys)
    tensors = model.tensors
    names = frozenset(tensor.name for tensor in tensors)
    attention = attention_of(keys, names)
    if attention is None:
        raise _unsupported(keys, "says nothing about attention heads")
    n_vocab = n_vocab_of(keys, model)
    gating = expert_gating_of(keys, n_vocab)
    needed = sum(shard.header.needed_bytes for shard in model.shards)
    return ModelProfile(
        name=keys.text("general.name") or PurePosixPath(model.shards[0].path).stem,
        architecture=keys.architecture or "",
        quantization=quantization_of(keys.whole("general.file_type"), tensors).name,
        n_layer=_required(keys, ".block_count"),
        n_nextn_layers=keys.whole(".nextn_predict_layers") or 0,
        n_layer_dense_lead=keys.whole(".leading_dense_block_count") or 0,
        n_ctx_train=_required(keys, ".context_length"),
        n_embd=_required(keys, ".embedding_length"),
        n_ff=keys.whole(".feed_forward_length") or 0,
        n_vocab=n_vocab or 0,
        n_expert=keys.whole(".expert_count") or 0,
        n_expert_used=keys.whole(".expert_used_count") or 0,
        n_ff_expert=keys.whole(".expert_feed_forward_length") or 0,
        attention=attention,
        tensors=tensors,
        file=file,
        file_bytes=model.file_bytes or needed,
        sha256=sha256,
        expert_gating=gating.function if gating else None,
        synthetic=keys.flag("glmplan.synthetic"),
        download=download,
    )


def _refuse_other_kinds(keys: ModelKeys) -> None:
    if keys.architecture is None:
        raise _unsupported(keys, "names no architecture")
    kind = keys.text("general.type")
    if kind not in {None, "model"} or keys.architecture == "clip":
        raise _unsupported(keys, f"is of kind {kind or 'projector'!r}, not a language model")


def _required(keys: ModelKeys, key: str) -> int:
    value = keys.whole(key)
    if not value:
        raise _unsupported(keys, f"has no {keys.full(key)}")
    return value


def _unsupported(keys: ModelKeys, why: str) -> UnsupportedModel:
    message = f"{keys.file} {why}"
    facts = {"file": keys.file, "architecture": keys.architecture}
    return UnsupportedModel(message, hint=_HINT, facts=facts)

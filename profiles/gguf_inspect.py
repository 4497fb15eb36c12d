"""Everything `glmplan inspect` tells about a model, from its header(s) alone; works for any architecture."""

from collections import Counter
from collections.abc import Iterator

from glmplan.inspection import GroupBytes, Inspection, ShardBytes, TensorBytes, TensorGroup
from glmplan.profiles.gguf_attention import attention_of, expert_gating_of, kv_cache_of
from glmplan.profiles.gguf_groups import group_of
from glmplan.profiles.gguf_keys import ModelKeys
from glmplan.profiles.gguf_profile import n_vocab_of
from glmplan.profiles.gguf_quantization import quantization_of, type_histogram
from glmplan.profiles.gguf_shards import GgufModel
from glmplan.profiles.gguf_template import chat_template
from glmplan.profiles.gguf_warnings import Suspect, file_warnings


def inspection_of(
    model: GgufModel, *, source: str, store: str | None = None, sha256: str | None = None, with_tensors: bool = False
) -> Inspection:
    """The inspection of a model.

    Args:
        model: its header(s).
        source: what the user named.
        store: the store a local file was found in.
        sha256: of the file, when the store vouches for it.
        with_tensors: include the table of tensors.

    Raises:
        GgufError: a key of the wrong type.
    """
    keys, tensors, first = model.keys, model.tensors, model.shards[0].header
    names = frozenset(tensor.name for tensor in tensors)
    n_parameters = sum(tensor.n_elements for tensor in tensors)
    tensor_bytes = sum(tensor.n_bytes for tensor in tensors)
    n_vocab, attention, template = n_vocab_of(keys, model), attention_of(keys, names), chat_template(keys)
    gating = expert_gating_of(keys, n_vocab)
    quantization = quantization_of(keys.whole("general.file_type"), tensors)
    table = tuple(_tensor_table(model, keys))
    suspect = Suspect(
        keys=keys,
        tensor_names=names,
        n_vocab=n_vocab,
        gating=gating,
        attention=attention,
        template=template,
        big_endian=first.big_endian,
    )
    return Inspection(
        source=_printable(source),
        store=store,
        shards=tuple(_shards(model)),
        bytes_read=model.bytes_read,
        file_bytes=model.file_bytes,
        sha256=sha256,
        gguf_version=first.version,
        big_endian=first.big_endian,
        alignment=first.alignment,
        n_metadata_keys=len(keys),
        name=keys.text("general.name"),
        architecture=keys.architecture,
        file_kind=keys.text("general.type"),
        quantization=quantization.name,
        quantization_stated=quantization.stated,
        n_tensors=len(tensors),
        n_parameters=n_parameters,
        tensor_bytes=tensor_bytes,
        bits_per_weight=round(tensor_bytes * 8 / n_parameters, 4) if n_parameters else None,
        block_count=keys.whole(".block_count"),
        nextn_layers=keys.whole(".nextn_predict_layers") or 0,
        n_ctx_train=keys.whole(".context_length"),
        n_embd=keys.whole(".embedding_length"),
        n_vocab=n_vocab,
        n_expert=keys.whole(".expert_count") or 0,
        n_expert_used=keys.whole(".expert_used_count") or 0,
        expert_gating=gating,
        attention=attention,
        kv_cache=kv_cache_of(keys, attention),
        chat_template=template,
        groups=_groups(table, {tensor.name: tensor.n_elements for tensor in tensors}),
        types=type_histogram(tensors),
        warnings=file_warnings(suspect),
        tensors=table if with_tensors else None,
    )


def _printable(path: str) -> str:
    """A path whose bytes are no UTF-8, escaped: a JSON document cannot carry it."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _tensor_table(model: GgufModel, keys: ModelKeys) -> Iterator[TensorBytes]:
    blocks, nextn = keys.whole(".block_count"), keys.whole(".nextn_predict_layers")
    first_nextn = blocks - nextn if blocks is not None and nextn and blocks >= nextn else None
    for number, shard in enumerate(model.shards):
        for entry in shard.header.tensors:
            tensor = entry.tensor
            yield TensorBytes(
                name=tensor.name,
                group=group_of(tensor.name, first_nextn),
                type=tensor.type.name,
                shape=tensor.shape,
                bytes=tensor.n_bytes,
                offset=shard.header.data_offset + entry.offset,
                shard=number,
            )


def _shards(model: GgufModel) -> Iterator[ShardBytes]:
    for shard in model.shards:
        yield ShardBytes(
            path=_printable(shard.path),
            file_bytes=shard.header.file_bytes,
            n_tensors=len(shard.header.tensors),
            data_offset=shard.header.data_offset,
            bytes_read=shard.bytes_read,
        )


def _groups(table: tuple[TensorBytes, ...], elements: dict[str, int]) -> tuple[GroupBytes, ...]:
    """Sums by group in the order of `TensorGroup`, empty groups left out."""
    count, size, parameters = Counter[TensorGroup](), Counter[TensorGroup](), Counter[TensorGroup]()
    for row in table:
        count[row.group] += 1
        size[row.group] += row.bytes
        parameters[row.group] += elements[row.name]
    return tuple(
        GroupBytes(group=group, n_tensors=count[group], n_parameters=parameters[group], bytes=size[group])
        for group in TensorGroup
        if count[group]
    )

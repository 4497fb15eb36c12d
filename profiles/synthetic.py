"""Synthetic model files: the true header and shapes of a model, without its weights.

The file is sparse: its data is a hole of the full length, so that 56 GiB take about 4 MB of disk. An engine
sizes every buffer from it exactly (`no_alloc`), and really loads and runs a cut with fewer layers; what it
then writes is noise, while its memory and its speed are real.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from glmplan.errors import InputError, ProfileError
from glmplan.full_disk import not_written
from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.model import Attention, MlaAttention, ModelProfile
from glmplan.profiles.noise import noise_blocks, one_blocks
from glmplan.profiles.recipes import model_facts
from glmplan.profiles.store import shipped_text

_ALIGNMENT: Final = 32
_SEED: Final = 4747
_CHUNK_BLOCKS: Final = 65536
_DISK_SLACK_BYTES: Final = 2**30
# llama.h llama_ftype; only a label.
_FILE_TYPES: Final = {"f16": 1, "q4_0": 2, "q8_0": 7, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
                      "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq3_xxs": 23,
                      "iq4_nl": 25, "iq3_m": 27, "iq2_m": 29, "iq4_xs": 30, "bf16": 32, "mxfp4_moe": 38}  # fmt: skip
# llama.cpp llama_expert_gating_func_type
_GATING: Final = {"softmax": 1, "sigmoid": 2}

Metadata = dict[str, str | int | float | bool | list[int]]


def write_synthetic(
    path: Path,
    profile: ModelProfile,
    *,
    random_weights: bool = False,
    every_tensor: bool = False,
    noise_tokens: int | None = None,
    tokenizer: bool = True,
) -> int:
    """Write `profile` as a GGUF file, sparse unless `every_tensor`, atomically; return the bytes it takes on disk.

    Args:
        path: where; replaced if it exists.
        profile: from `recipes.catalog_profile`, whole or cut.
        random_weights: fill embedding, output and routers with seeded noise, so that tokens are routed
            to different experts as a real model's are. Everything else stays zero.
        every_tensor: noise in all of them, as large on disk as a real file: nothing on the way to the processor
            can be quick about zeros.
        noise_tokens: only the first tokens of embedding and output get noise, which keeps a sparse file of a few layers
            near 20 MB; prompts then must stay among them, and answers do by themselves.
        tokenizer: include a vocabulary of full size and the chat template; without it the header is 56 KB
            and the engine can size the file but not serve it.

    Raises:
        InputError: the folder cannot be written, its file system has no sparse files, or too little room.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_header(temporary, profile, tokenizer=tokenizer)
        offsets, total = _data_layout(profile, temporary.stat().st_size)
        if every_tensor:
            _refuse_full_disk(path.parent, total)
        os.truncate(temporary, total)
        if random_weights or every_tensor:
            _fill(temporary, profile, offsets, every_tensor=every_tensor, noise_tokens=noise_tokens or profile.n_vocab)
        on_disk = temporary.stat().st_blocks * 512 if every_tensor else _refuse_dense(temporary, total)
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        told = not_written(error)
        message = f"the synthetic model: {told.message}"
        raise InputError(message, hint=told.hint, facts=told.facts) from error
    finally:
        temporary.unlink(missing_ok=True)
    return on_disk


def _refuse_full_disk(folder: Path, total_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < total_bytes + _DISK_SLACK_BYTES:
        message = f"{folder} has {free} bytes free, the model takes {total_bytes}"
        raise InputError(message, hint="choose another folder", facts={"free_bytes": free, "needed_bytes": total_bytes})


def _refuse_dense(path: Path, total_bytes: int) -> int:
    """Bytes on disk; a file system without holes (FAT, some network mounts) would have written all of them."""
    on_disk = path.stat().st_blocks * 512
    if total_bytes > 2**30 and on_disk > total_bytes // 2:
        message = f"{path.parent} does not keep sparse files: {on_disk} of {total_bytes} bytes were written"
        raise InputError(message, hint="choose a folder on ext4, xfs, btrfs, tmpfs or APFS")
    return on_disk


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _data_layout(profile: ModelProfile, data_offset: int) -> tuple[dict[str, int], int]:
    """Absolute offset of every tensor, and the length of the whole file."""
    offsets: dict[str, int] = {}
    position = data_offset
    for tensor in profile.tensors:
        offsets[tensor.name] = position
        position += _padded(tensor.n_bytes)
    return offsets, position


def _write_header(path: Path, profile: ModelProfile, *, tokenizer: bool) -> None:
    import gguf
    import numpy as np

    facts = model_facts(profile.name)
    writer = gguf.GGUFWriter(path, profile.architecture)
    for key, value in _metadata(profile, facts).items():
        _add(writer, key, value)
    if tokenizer and "tokenizer" not in facts:
        message = f"no synthetic vocabulary of {profile.name} is known"
        raise ProfileError(message, hint="write the file without a tokenizer: an engine can size it")
    if tokenizer:
        _add_tokenizer(writer, facts)
    else:
        writer.add_string("tokenizer.ggml.model", "none")
    for tensor in profile.tensors:
        writer.add_tensor_info(
            tensor.name,
            tuple(reversed(tensor.shape)),
            np.dtype(np.float32),  # ignored beside raw_dtype, but uint8 would mean packed rows
            tensor.n_bytes,
            raw_dtype=gguf.GGMLQuantizationType(int(tensor.type)),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = path.stat().st_size
    os.truncate(path, _padded(size))


def _metadata(profile: ModelProfile, facts: Mapping[str, Any]) -> Metadata:
    """Keys as llama.cpp's converter writes them (conversion/deepseek.py, glm.py, qwen.py, nemotron.py)."""
    hyper, arch = facts["hyper_parameters"], profile.architecture
    general: Metadata = {
        "general.type": "model",
        "general.name": f"{facts['title']} (synthetic weights)",
        "general.basename": facts["title"],
        "general.license": str(facts["license"]).lower(),
        "general.quantization_version": 2,
        "general.file_type": _FILE_TYPES.get(profile.quantization.lower(), 0),
        "glmplan.synthetic": True,
    }
    own: Metadata = {
        "block_count": profile.n_layer,
        "context_length": profile.n_ctx_train,
        "embedding_length": profile.n_embd,
        "feed_forward_length": profile.n_ff,
        "vocab_size": profile.n_vocab,
        "attention.head_count": profile.attention.n_head,
        "attention.layer_norm_rms_epsilon": float(hyper["rms_norm_epsilon"]),
        "rope.freq_base": float(hyper["rope_theta"]),
        "expert_count": profile.n_expert,
        "expert_used_count": profile.n_expert_used,
        "expert_feed_forward_length": profile.n_ff_expert,
    }
    own.update(_attention_keys(profile.attention))
    if "rope_dimensions" in hyper:
        own["rope.dimension_count"] = hyper["rope_dimensions"]
    if hyper["n_expert_shared"]:
        own.update(
            {
                "leading_dense_block_count": profile.n_layer_dense_lead,
                "expert_shared_count": hyper["n_expert_shared"],
                "expert_weights_scale": float(hyper["expert_weights_scale"]),
                "expert_weights_norm": bool(hyper["expert_weights_norm"]),
                "expert_gating_func": _GATING[hyper["expert_gating"]],
            }
        )
    if profile.n_nextn_layers:
        own["nextn_predict_layers"] = profile.n_nextn_layers
    if "layer_pattern" in hyper:
        own.update(_hybrid_keys(hyper, profile.n_layer))
    return {**general, **{f"{arch}.{key}": value for key, value in own.items()}}


def _hybrid_keys(hyper: Mapping[str, Any], n_layer: int) -> Metadata:
    """Which blocks attend, which hold experts and which are recurrent: llama.cpp reads it off two lists."""
    pattern, attention = hyper["layer_pattern"][:n_layer], hyper["attention"]
    return {
        "attention.head_count_kv": [attention["n_head_kv"] if kind == "*" else 0 for kind in pattern],
        "feed_forward_length": [hyper["n_ff"] if kind == "E" else 0 for kind in pattern],
        "attention.layer_norm_epsilon": float(hyper["rms_norm_epsilon"]),
        "expert_shared_feed_forward_length": hyper["n_ff_shared"],
        **{f"ssm.{key}": value for key, value in hyper["recurrence"].items()},
    }


def _attention_keys(attention: Attention) -> Metadata:
    if isinstance(attention, MlaAttention):
        latent, rope = attention.kv_lora_rank, attention.rope_dimensions
        return {
            "attention.head_count_kv": 1,
            "attention.key_length": latent + rope,
            "attention.value_length": latent,
            "attention.key_length_mla": attention.key_length_mla,
            "attention.value_length_mla": attention.value_length_mla,
            "attention.q_lora_rank": attention.q_lora_rank or 0,
            "attention.kv_lora_rank": latent,
            "rope.dimension_count": rope,
        }
    return {
        "attention.head_count_kv": attention.n_head_kv,
        "attention.key_length": attention.key_length,
        "attention.value_length": attention.value_length,
    }


def _add(writer: Any, key: str, value: str | float | bool | list[int]) -> None:  # noqa: ANN401 - gguf is untyped
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of GPT-2's byte-level BPE (openai/gpt-2 encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        stand_ins.setdefault(byte, chr(256 + len(stand_ins) - len(printable)))
    return [stand_ins[byte] for byte in range(256)]


def _add_tokenizer(writer: Any, facts: Mapping[str, Any]) -> None:  # noqa: ANN401 - gguf is untyped
    """A vocabulary of the true size: bytes, numbered words, and the real special tokens in their places."""
    tokens = facts["tokenizer"]
    n_vocab = facts["hyper_parameters"]["n_vocab"]
    texts = _byte_alphabet() + [f"Ġw{number}" for number in range(256, n_vocab)]
    types = [1] * n_vocab
    for place, text in tokens["special"].items():
        texts[place], types[place] = text, 3
    writer.add_tokenizer_model(tokens["model"])
    writer.add_tokenizer_pre(tokens["pre"])
    writer.add_token_list(texts)
    writer.add_token_types(types)
    # llama.cpp refuses a BPE vocabulary without merges; one is enough.
    writer.add_token_merges(["Ġ w"])
    writer.add_bos_token_id(tokens["bos"])
    writer.add_eos_token_id(tokens["eos"])
    writer.add_eot_token_id(tokens["eot"])
    writer.add_eom_token_id(tokens["eom"])
    writer.add_unk_token_id(tokens["unk"])
    writer.add_pad_token_id(tokens["pad"])
    writer.add_chat_template(shipped_text("models", facts["chat_template"]))


def _fill(
    path: Path, profile: ModelProfile, offsets: Mapping[str, int], *, every_tensor: bool, noise_tokens: int
) -> None:
    """Seeded noise for the tensors that decide which experts a token visits, or for all; ones for the norms."""
    import numpy as np

    generator = np.random.default_rng(_SEED)
    tiles: dict[GgmlType, bytes] = {}
    with path.open("r+b") as stream:
        for tensor in profile.tensors:
            n_blocks = tensor.n_bytes // BLOCKS[tensor.type][1]
            stream.seek(offsets[tensor.name])
            if tensor.name.endswith("norm.weight"):
                stream.write(one_blocks(n_blocks))
            elif tensor.name in {"token_embd.weight", "output.weight"} or "ffn_gate_inp" in tensor.name:
                if tensor.name.startswith(("token_embd", "output")):  # one row for each token
                    n_blocks = n_blocks * min(noise_tokens, tensor.shape[-1]) // tensor.shape[-1]
                for start in range(0, n_blocks, _CHUNK_BLOCKS):
                    chunk = min(_CHUNK_BLOCKS, n_blocks - start)
                    stream.write(noise_blocks(generator, tensor.type, chunk))
            elif every_tensor:
                # Drawing tens of gigabytes would take longer than writing them: one chunk of noise is repeated.
                if tensor.type not in tiles:
                    tiles[tensor.type] = noise_blocks(generator, tensor.type, _CHUNK_BLOCKS)
                _write_tiled(stream, tiles[tensor.type], tensor.n_bytes)


def _write_tiled(stream: BinaryIO, tile: bytes, n_bytes: int) -> None:
    stream.writelines(tile[: min(len(tile), n_bytes - start)] for start in range(0, n_bytes, len(tile)))

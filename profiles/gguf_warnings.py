"""What is known to be wrong with model files of this kind, each with the way out.

Sources: llama.cpp PRs 18980 (gating), 19067 (V-less cache), 25871 (equal KV types); ollama PR 13870 and its issues
13863, 13805 (absorption); llama.cpp src/models/deepseek2.cpp.
"""

from collections.abc import Collection, Iterator
from typing import Final

from glmplan.inspection import ChatTemplate, ExpertGating, FileWarning, WarningLevel
from glmplan.model import Attention, MlaAttention
from glmplan.noun import noun
from glmplan.profiles.gguf_attention import OLLAMA_ARCHITECTURE, is_absorbed, is_glm_flash
from glmplan.profiles.gguf_keys import ModelKeys

_PER_HEAD_TIMES: Final = 17.8  # 962,560 / 54,144 bytes per token


@noun
class Suspect:
    """What the checks look at."""

    keys: ModelKeys
    tensor_names: Collection[str]
    n_vocab: int | None
    gating: ExpertGating | None
    attention: Attention | None
    template: ChatTemplate | None
    big_endian: bool


def file_warnings(suspect: Suspect) -> tuple[FileWarning, ...]:
    """Everything known about such a file, warnings before notes."""
    found = [
        *_gating(suspect),
        *_absorption(suspect),
        *_byte_order(suspect),
        *_nextn(suspect),
        *_architecture(suspect),
        *_cache_types(suspect),
        *_template(suspect),
    ]
    return tuple(sorted(found, key=lambda warning: warning.level is WarningLevel.NOTE))


def _warn(code: str, message: str, hint: str = "") -> FileWarning:
    return FileWarning(code=code, level=WarningLevel.WARNING, message=message, hint=hint)


def _note(code: str, message: str, hint: str = "") -> FileWarning:
    return FileWarning(code=code, level=WarningLevel.NOTE, message=message, hint=hint)


def _gating(suspect: Suspect) -> Iterator[FileWarning]:
    gating, keys = suspect.gating, suspect.keys
    if gating is None or not is_glm_flash(keys, suspect.n_vocab):
        return
    if gating.stated and gating.function != "sigmoid":
        yield _warn(
            "softmax-gating",
            f"expert gating is {gating.function}, this model needs sigmoid: files made on 19-21 January 2026 loop "
            "and answer badly",
            "download the file again (converted after 21 January 2026, llama.cpp PR 18980), or run it with "
            f"--override-kv {keys.full('.expert_gating_func')}=int:2",
        )
    elif not gating.stated:
        yield _note(
            "gating-not-stated",
            "the file does not state its expert gating; llama.cpp since 21 January 2026 takes sigmoid for this model",
            f"with an older build add --override-kv {keys.full('.expert_gating_func')}=int:2",
        )


def _absorption(suspect: Suspect) -> Iterator[FileWarning]:
    keys, names = suspect.keys, suspect.tensor_names
    if not keys.whole(".attention.kv_lora_rank") or not names or is_absorbed(names):
        return
    combined = "blk.0.attn_kv_b.weight" in names
    if not combined and "blk.0.attn_kv_a_mqa.weight" not in names:
        return
    what = "attn_kv_b is there unsplit" if combined else "nothing stands in for them"
    yield _warn(
        "mla-not-absorbed",
        f"attn_k_b and attn_v_b are missing ({what}), as in Ollama's first glm-4.7-flash blob (ff14144f31df): the "
        f"runtime caches full keys and values of every head, {_PER_HEAD_TIMES:.1f} times the memory for GLM-4.7-Flash",
        "pull the model again (`ollama pull` with an Ollama newer than 0.14.3), or take a GGUF converted for llama.cpp",
    )


def _byte_order(suspect: Suspect) -> Iterator[FileWarning]:
    if suspect.big_endian:
        yield _warn(
            "big-endian",
            "the file is in big-endian byte order and loads only on machines of that order (s390x)",
            "take the little-endian file, or convert it with gguf-convert-endian",
        )


def _nextn(suspect: Suspect) -> Iterator[FileWarning]:
    keys = suspect.keys
    declared = keys.whole(".nextn_predict_layers") or 0
    present = any(".nextn." in name for name in suspect.tensor_names)
    if declared and present:
        yield _note(
            "nextn-present",
            f"{declared} multi-token-prediction block(s) included in block_count: full offload is one layer more; "
            "the block is loaded only with --spec-type draft-mtp",
        )
    elif declared:
        yield _warn(
            "nextn-missing",
            f"nextn_predict_layers is {declared}, yet the file has no nextn tensors: no speculative decoding with it",
            "run it without --spec-type draft-mtp",
        )
    elif is_glm_flash(keys, suspect.n_vocab):
        yield _note(
            "nextn-absent",
            "no multi-token-prediction block in this file (the checkpoint has one): --spec-type draft-mtp cannot work",
        )


def _architecture(suspect: Suspect) -> Iterator[FileWarning]:
    if suspect.keys.architecture == OLLAMA_ARCHITECTURE:
        yield _warn(
            "ollama-only",
            f"architecture {OLLAMA_ARCHITECTURE} is Ollama's own: llama.cpp does not load this file",
            "run it with Ollama (from 0.30 it translates the file to deepseek2), or take a llama.cpp GGUF",
        )


def _cache_types(suspect: Suspect) -> Iterator[FileWarning]:
    if isinstance(suspect.attention, MlaAttention):
        yield _note(
            "equal-kv-types",
            "V is read from the K row, so the two cache types cannot differ: give -ctk and -ctv the same type",
        )


def _template(suspect: Suspect) -> Iterator[FileWarning]:
    if suspect.template is None and suspect.keys.text("general.type") in {None, "model"}:
        yield _note("no-chat-template", "no chat template in the file", "pass one with --chat-template-file")
    elif suspect.template is not None and not suspect.template.tools:
        yield _note("no-tools", "the chat template does not handle tools", "pass another with --chat-template-file")

"""What a chat template understands, read off its text without running it."""

import hashlib
import re
from typing import Final

from glmplan.inspection import ChatTemplate
from glmplan.profiles.gguf_keys import ModelKeys

_KEY: Final = "tokenizer.chat_template"
_TAG: Final = re.compile(r"\{[%{]")
_WORD: Final = re.compile(r"(?<![\w.'\"])[A-Za-z_]\w*")

# Variables that turn thinking on or off or bound it, as model cards name them.
_SWITCHES: Final = (
    "enable_thinking",
    "clear_thinking",
    "preserve_thinking",
    "thinking",
    "thinking_budget",
    "reasoning_effort",
)
_THINKING_MARKS: Final = ("<think>", "reasoning_content", "<|channel|>analysis")


def chat_template(keys: ModelKeys) -> ChatTemplate | None:
    """The capabilities of the file's chat template, None when it has none."""
    text = keys.text(_KEY)
    if text is None:
        return None
    words = _variables(text)
    raw = text.encode("utf-8", "replace")
    switches = tuple(name for name in _SWITCHES if name in words)
    return ChatTemplate(
        bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        tools="tools" in words,
        thinking=bool(switches) or any(mark in text for mark in _THINKING_MARKS),
        enable_thinking="enable_thinking" in words,
        clear_thinking="clear_thinking" in words,
        switches=switches,
        variants=tuple(key.removeprefix(f"{_KEY}.") for key in keys.names(f"{_KEY}.")),
    )


def _variables(text: str) -> frozenset[str]:
    """Names used in Jinja tags, not attributes and not quoted words; linear in the length of the text."""
    words: set[str] = set()
    for piece in _TAG.split(text)[1:]:
        code = piece.partition("}")[0]
        words.update(_WORD.findall(code))
    return frozenset(words)

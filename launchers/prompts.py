"""Prompts of a wanted length that no cache has seen: token ids where a server takes them, words elsewhere.

The content does not matter for speed as long as it varies: experts are chosen by it.
"""

from collections.abc import Callable
from typing import Final

# Minimal standard generator (Park and Miller 1988, with the multiplier of 1993): reproducible, not secret.
_MULTIPLIER: Final = 48271
_MODULUS: Final = 2**31 - 1
# Special tokens sit at the end of a vocabulary; the first ids are single bytes.
_LOWEST_ID: Final = 256
_USED_SHARE: Final = 0.9
WORDS: Final = ("river", "seven", "lamp", "above", "stone", "quiet", "north", "paper", "green", "wheel", "early",
                "glass", "table", "cloud", "bread", "winter", "road", "small", "music", "water")  # fmt: skip
_TRIES: Final = 4


def token_ids(n_tokens: int, n_vocab: int, *, seed: int) -> list[int]:
    """`n_tokens` pseudo-random ids of ordinary tokens."""
    lowest = min(_LOWEST_ID, n_vocab // 2)
    span = max(1, int(n_vocab * _USED_SHARE) - lowest)
    return [lowest + number % span for number in _numbers(n_tokens, seed)]


def words(n_tokens: int, count: Callable[[str], int], *, seed: int) -> tuple[str, int]:
    """Text of about `n_tokens` tokens and its exact number by `count`; never longer unless one word is."""
    n_words, text, tokens = max(1, n_tokens // 2), "", 0
    for _ in range(_TRIES):
        text = " ".join(WORDS[number % len(WORDS)] for number in _numbers(n_words, seed))
        tokens = count(text)
        if n_tokens * 0.98 <= tokens <= n_tokens or (tokens > n_tokens and n_words == 1):
            break
        n_words = max(1, int(n_words * n_tokens / tokens))
    return text, tokens


def _numbers(n: int, seed: int) -> list[int]:
    state = seed * 7919 % (_MODULUS - 1) + 1
    numbers: list[int] = []
    for _ in range(n):
        state = state * _MULTIPLIER % _MODULUS
        numbers.append(state >> 3)
    return numbers

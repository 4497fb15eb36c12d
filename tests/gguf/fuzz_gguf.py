"""Hostile GGUF headers by the thousand: seeds that are nearly right, edited with and without knowledge of the format.

As a program: `python fuzz_gguf.py CASES SEED` runs that many cases under a time limit for each and prints one JSON
document with counts, the slowest case and the peak resident memory. A failing case is printed with its seed and hex.
"""

import json
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import build_gguf as b

from glmplan.errors import GgufError, UnsupportedModel
from glmplan.jsonio import dumps
from glmplan.profiles.gguf_bytes import BLOCK_BYTES, BufferSource, ByteSource
from glmplan.profiles.gguf_inspect import inspection_of
from glmplan.profiles.gguf_profile import profile_of
from glmplan.profiles.gguf_shards import read_shards

LIMIT_S = 2.0
LIMIT_RSS_BYTES = 512 * 2**20
# A long walk over a vocabulary costs a third of a second: enough of them, not more.
ONE_IN_BOMB = 2000

EDGES = [0, 1, 2, 7, 31, 32, 63, 64, 255, 2**16 - 1, 2**16, 2**20, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
         2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]  # fmt: skip
TEXTS = [b"", b"a", b"\xff\xfe\xfd", b"\xed\xa0\x80", b"\x00" * 9, b"\x1b]0;title\x07", b"general.alignment",
         b"{%" * 500, b"{{ tools }}{% if enable_thinking %}", "\N{SNOWMAN}".encode() * 40, b"k" * 70_000]  # fmt: skip
SMALL = [b.TensorSpec("token_embd.weight", b.F32, (8, 4)), b.TensorSpec("blk.0.attn_q.weight", b.Q8_0, (32, 2))]

Random = random.Random
Keys = dict[str, b.Typed | b.Array | b.Value]


class PatternSource:
    """A prefix, then a pattern for ever: a file of any length that costs no memory."""

    name = "<pattern>"

    def __init__(self, prefix: bytes, pattern: bytes, size_bytes: int | None) -> None:
        self._prefix, self._pattern = prefix, pattern
        self.size_bytes = size_bytes
        self.bytes_read = 0

    def fetch(self, offset: int, at_least: int) -> bytes:
        """At least `at_least` bytes from `offset`, up to `size_bytes`."""
        want = max(at_least, BLOCK_BYTES)
        if self.size_bytes is not None:
            want = max(min(want, self.size_bytes - offset), 0)
        start = max(offset - len(self._prefix), 0) % len(self._pattern)
        repeated = self._pattern * (want // len(self._pattern) + 2)
        block = (self._prefix[offset:] + repeated[start:])[:want]
        self.bytes_read += len(block)
        return block

    def close(self) -> None:
        """Nothing to close."""


def check(source: ByteSource) -> str:
    """Read a file as `inspect` and a planner do; all but an answer or a `GgufError` with its offset raises."""
    try:
        model = read_shards(source.name, lambda _: source)
        dumps(inspection_of(model, source=source.name, with_tensors=True))
        profile_of(model, file=None)
    except UnsupportedModel:
        return "unsupported"
    except GgufError as error:
        offset = error.facts.get("offset")
        if not isinstance(offset, int) or offset < 0 or not error.hint:
            message = f"no offset in {error.facts} of {error.message}"
            raise AssertionError(message) from error
        return "refused"
    return "accepted"


def case(rng: Random) -> ByteSource:
    """One hostile (or by chance harmless) file."""
    if rng.randrange(ONE_IN_BOMB) == 0:
        return bomb(rng)
    content = structured(rng)
    for _ in range(rng.choice([0, 0, 0, 1, 2, 8])):
        content = rng.choice(BYTE_EDITS)(rng, content)
    source = BufferSource(content)
    source.size_bytes = rng.choice([len(content), None, 2**45, 2**45])
    return source


def bomb(rng: Random) -> ByteSource:
    """Metadata that unpacks to far more than it is: arrays of nothing, of very little, of everything."""
    kind = rng.choice([b.STRING, b.STRING, b.UINT8, b.FLOAT64])
    count = rng.choice([1_999_999, 2_000_001, 2**29, 2**30, 2**63])
    prefix = b.assemble([b.text("tokens") + struct.pack("<IIQ", b.ARRAY, kind, count)], [], n_keys=2)
    pattern = rng.choice([bytes(8), b.text("a"), b.text("a" * 100), b.text("a" * (2**20)), b"\xff"])
    return PatternSource(prefix, pattern, rng.choice([None, 2**40, 2**26]))


def structured(rng: Random) -> bytes:
    """A header built from parts, some of them replaced by what nobody would write."""
    order = rng.choice(["<", "<", "<", ">"])
    keys, tensors = rng.choice(SEEDS)()
    pairs = [b.pair(key, value, order=order) for key, value in keys.items()]
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        edit = rng.choice([_odd_value, _odd_array, _lying_text, _twice, _nested])
        pairs.insert(rng.randrange(len(pairs) + 1), edit(rng, order, keys))
    rows, offset = list[bytes](), 0
    for spec in tensors:
        odd = _odd_tensor(rng, spec) if rng.randrange(12) == 0 else spec
        rows.append(b.tensor_row(odd, offset if odd.offset is None else odd.offset, order=order))
        offset += -(-b.tensor_bytes(odd) // 32) * 32
        offset = min(offset, 2**64 - 1)
    return b.assemble(
        pairs,
        rows,
        order=order,
        version=rng.choice([3, 3, 3, 2, 1, 0, 4, 0x03000000, 2**32 - 1]) if rng.randrange(8) == 0 else 3,
        magic=rng.choice([b"GGUF", b"FUGG", b"<htm", b"GGML"]) if rng.randrange(20) == 0 else b"GGUF",
        n_keys=rng.choice(EDGES) if rng.randrange(10) == 0 else None,
        n_tensors=rng.choice(EDGES) if rng.randrange(10) == 0 else None,
    )


def _glm() -> tuple[Keys, list[b.TensorSpec]]:
    return b.glm_keys() | {"tokenizer.ggml.tokens": b.Array(b.STRING, ("a", "b", "c"))}, b.glm_tensors()[:6]


def _ollama() -> tuple[Keys, list[b.TensorSpec]]:
    return b.glm_keys("glm4moelite", head_count_kv=20), b.glm_tensors(absorbed=False)[3:7]


def _gqa() -> tuple[Keys, list[b.TensorSpec]]:
    keys: Keys = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 64,
        "llama.embedding_length": 64, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": b.Array(b.UINT32, (2, 0)), "general.file_type": 7,
        "tokenizer.chat_template": "{% if tools %}{{ tools }}{% endif %}",
    }  # fmt: skip
    return keys, list(SMALL)


def _nothing() -> tuple[Keys, list[b.TensorSpec]]:
    return {}, []


SEEDS: list[Callable[[], tuple[Keys, list[b.TensorSpec]]]] = [_glm, _ollama, _gqa, _gqa, _nothing]


def _any_key(rng: Random, keys: Keys) -> bytes:
    known = ["general.alignment", "general.file_type", "split.count", "split.no", "tokenizer.chat_template",
             "llama.attention.key_length", "deepseek2.nextn_predict_layers", "x"]  # fmt: skip
    return rng.choice([*known, *keys]).encode() if rng.randrange(6) else rng.choice(TEXTS)


def _odd_value(rng: Random, order: str, keys: Keys) -> bytes:
    kind = rng.choice([*b.CODES, b.STRING])
    if kind == b.STRING:
        body = b.text(rng.choice(TEXTS), order=order)
    else:
        size = struct.calcsize("<" + b.CODES[kind])
        raw = rng.choice([rng.choice(EDGES).to_bytes(8, "little"), b"\xff" * 8, rng.randbytes(8)])
        body = raw[:size]
    return b.text(_any_key(rng, keys), order=order) + struct.pack(order + "I", kind) + body


def _odd_array(rng: Random, order: str, keys: Keys) -> bytes:
    kind, count = rng.choice([*b.CODES, b.STRING, 13, 2**31]), rng.choice([*EDGES, 3, 600])
    head = b.text(_any_key(rng, keys), order=order) + struct.pack(order + "IIQ", b.ARRAY, kind, count)
    if kind == b.STRING:
        return head + b"".join(b.text(rng.choice(TEXTS[:6]), order=order) for _ in range(min(count, 20)))
    return head + rng.randbytes(min(count * struct.calcsize("<" + b.CODES.get(kind, "B")), 5000))


def _lying_text(rng: Random, order: str, keys: Keys) -> bytes:
    lie = b.text(rng.choice(TEXTS), order=order, length=rng.choice(EDGES))
    return b.text(_any_key(rng, keys), order=order) + struct.pack(order + "I", b.STRING) + lie


def _twice(rng: Random, order: str, keys: Keys) -> bytes:
    values: list[b.Value] = [1, 1.5, True, "x"]
    return b.pair(rng.choice(list(keys) or ["a"]), rng.choice(values), order=order)


def _nested(rng: Random, order: str, keys: Keys) -> bytes:
    inner = struct.pack(order + "IQ", b.UINT8, 1) + b"\x01"
    depth = rng.choice([1, 2, 500])
    levels = struct.pack(order + "IQ", b.ARRAY, 1) * depth
    return b.text(_any_key(rng, keys), order=order) + struct.pack(order + "I", b.ARRAY) + levels + inner


def _odd_tensor(rng: Random, spec: b.TensorSpec) -> b.TensorSpec:
    field = rng.randrange(5)
    if field == 0:
        return spec._replace(name=rng.choice(["blk.0.attn_q.weight", "", "n" * 64, "blk.999999999.x", "a\nb"]))
    if field == 1:
        return spec._replace(kind=rng.choice([*range(45), 2**31, 2**32 - 1]))
    if field == 2:
        return spec._replace(shape=tuple(rng.choice(EDGES) for _ in range(rng.randrange(6))))
    if field == 3:
        return spec._replace(offset=rng.choice(EDGES))
    return spec._replace(shape=(*spec.shape, rng.choice([0, 1, 2])))


def _flip(rng: Random, content: bytes) -> bytes:
    if not content:
        return content
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _overwrite(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    number = rng.choice(EDGES)
    raw = number.to_bytes(8, rng.choice(["little", "big"]))[: rng.choice([4, 8])]
    return content[:at] + raw + content[at + len(raw) :]


def _truncate(rng: Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.randrange(1, 64) :]


def _insert(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.randrange(1, 64)) + content[at:]


def _repeat(rng: Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    end = at + rng.randrange(1, 400)
    return content[:end] + content[at:end] + content[end:]


BYTE_EDITS: list[Callable[[Random, bytes], bytes]] = [_flip, _flip, _overwrite, _overwrite, _truncate, _remove, _insert,
                                                      _repeat]  # fmt: skip


@contextmanager
def time_limit(seconds: float) -> Generator[None, None, None]:
    """Raise `TimeoutError` in the block when it takes longer."""

    def stop(*_: object) -> None:
        message = f"more than {seconds} s"
        raise TimeoutError(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(n_cases: int, seed: int) -> dict[str, int | float]:
    """`n_cases` cases from `seed` on; raises at the first that is not answered in time with an answer or an offset."""
    counts: dict[str, int | float] = {"cases": 0, "accepted": 0, "unsupported": 0, "refused": 0}
    slowest_s = 0.0
    for number in range(n_cases):
        source = case(Random(seed * 1_000_003 + number))
        started = time.perf_counter()
        try:
            with time_limit(LIMIT_S):
                counts[check(source)] += 1
        except BaseException:
            content = source.fetch(0, 1)[:4096].hex() if isinstance(source, BufferSource) else "a bomb"
            sys.stderr.write(f"case {number} of seed {seed}: {content}\n")
            raise
        counts["cases"] += 1
        slowest_s = max(slowest_s, time.perf_counter() - started)
    unit = 1 if sys.platform == "darwin" else 1024
    rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return counts | {"slowest_ms": round(slowest_s * 1000, 1), "max_rss_bytes": rss_bytes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))) + "\n")

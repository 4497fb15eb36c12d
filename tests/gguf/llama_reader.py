"""llama.cpp's own header reader over the fuzzer's cases, in a process of its own: it may abort.

`python llama_reader.py LIBGGML_BASE CASES SEED` prints one JSON document: how often both readers agreed, and every
reason for which one refused what the other took.
"""

import ctypes
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import fuzz_gguf

from glmplan.errors import GgufError
from glmplan.profiles.gguf_bytes import BufferSource
from glmplan.profiles.gguf_header import parse_header


class InitParams(ctypes.Structure):
    """`struct gguf_init_params` (ggml/include/gguf.h)."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def load(library: str) -> ctypes.CDLL:
    """The reader's two functions with their types, its log silenced."""
    base = ctypes.CDLL(library)
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    base.gguf_free.argtypes = [ctypes.c_void_p]
    return base


def theirs(base: ctypes.CDLL, path: Path) -> bool:
    """Whether llama.cpp takes the header; it does not look at the length of the data here."""
    found = base.gguf_init_from_file(str(path).encode(), InitParams(True, None))
    if found:
        base.gguf_free(found)
    return bool(found)


def ours(content: bytes) -> str | None:
    """Empty when we take the header, else why not; None when its data would lie beyond the file.

    They do not look at the length of the data here, but may find its offsets impossible first: no disagreement.
    """
    taken = "big-endian" if content[4:6] == b"\0\0" else ""  # they take only this machine's order
    try:
        parse_header(BufferSource(content))
    except GgufError as error:
        return None if "need_bytes" in error.facts else error.message
    return taken


def compare(library: str, n_cases: int, seed: int) -> dict[str, object]:
    """Counts of agreement and the reasons behind every disagreement."""
    base = load(library)
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    base.ggml_log_set(silent, None)
    agreed, only_we_refuse, only_they_refuse = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        for number in range(n_cases):
            rng = random.Random(seed * 1_000_003 + number)
            content = fuzz_gguf.structured(rng)
            for _ in range(rng.choice([0, 0, 0, 1, 2])):
                content = rng.choice(fuzz_gguf.BYTE_EDITS)(rng, content)
            content += bytes(4096)  # so that the start of the data is in the file
            path.write_bytes(content)
            mine, other = ours(content), theirs(base, path)
            if mine is None or other == (not mine):
                agreed["taken" if other else "refused"] += 1
            elif other:
                only_we_refuse[mine] += 1
            else:
                only_they_refuse[content[:64].hex()] += 1
    return {"agreed": agreed, "only_we_refuse": only_we_refuse, "only_they_refuse": only_they_refuse}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))) + "\n")

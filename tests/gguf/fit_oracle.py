"""llama.cpp's own `--fit` on GPUs that are not there: its answers, recorded once, and the program that gives them.

Record again after a change of the engine: `python tests/gguf/fit_oracle.py` (about five minutes, needs the compiled
engine's environment).
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Final

from glmplan.noun import noun

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "tests" / "goldens" / "fit-answers.json"
# What a card of that many GB has: total, and 600 MiB less free.
CARDS: Final = {
    "8 GB": (8,), "12 GB": (12,), "16 GB": (16,), "20 GB": (20,), "24 GB": (24,), "32 GB": (32,), "48 GB": (48,),
    "80 GB": (80,), "2x12 GB": (12, 12), "2x24 GB": (24, 24), "8+16 GB": (8, 16), "24+8 GB": (24, 8),
}  # fmt: skip
QUANTS: Final = ("q4_K_M", "q8_0", "bf16")
SETTINGS: Final = {
    "default": (),
    "-c 32768": ("-c", "32768"),
    "-c 0": ("-c", "0"),
    "q8_0 KV": ("-ctk", "q8_0", "-ctv", "q8_0"),
}
_TOTAL_LESS_MIB: Final = 4
_FREE_LESS_MIB: Final = 604
_ANSWER: Final = re.compile(r'-c (\d+) -ngl (-?\d+)(?: -ts ([\d,]+))?(?: -ot "(.*)")?$', re.MULTILINE)


@noun
class FitAnswer:
    """What `llama-fit-params` prints: context, layers, shares and `(pattern, buffer)` overrides."""

    n_ctx: int
    n_gpu_layers: int
    tensor_split: tuple[float, ...]
    overrides: tuple[tuple[str, str], ...]


def free_mib(cards: str) -> tuple[int, ...]:
    """Free memory of each card in MiB."""
    return tuple(size * 1024 - _FREE_LESS_MIB for size in CARDS[cards])


def fake_gpus(cards: str) -> str:
    """`total:free` MiB of each card, as the fake backend wants it."""
    return ",".join(f"{size * 1024 - _TOTAL_LESS_MIB}:{size * 1024 - _FREE_LESS_MIB}" for size in CARDS[cards])


def parsed(line: str) -> FitAnswer:
    """An answer as values."""
    match = _ANSWER.search(line)
    assert match is not None, line
    shares = tuple(float(share) for share in match[3].split(",")) if match[3] else ()
    pairs = [pair.rsplit("=", 1) for pair in match[4].split(",")] if match[4] else []
    return FitAnswer(
        n_ctx=int(match[1]),
        n_gpu_layers=int(match[2]),
        tensor_split=shares,
        overrides=tuple((pattern, buffer) for pattern, buffer in pairs),
    )


def recorded() -> dict[tuple[str, str, str], FitAnswer]:
    """All recorded answers by cards, quant and setting."""
    rows: dict[str, str] = json.loads(GOLDEN.read_text())["answers"]
    return {key_of(key): parsed(line) for key, line in rows.items()}


def key_of(text: str) -> tuple[str, str, str]:
    """The three parts of a key."""
    cards, quant, setting = text.split(" | ")
    return cards, quant, setting


def cases() -> list[tuple[str, str, str]]:
    """Every card set, quant and setting."""
    return list(product(CARDS, QUANTS, SETTINGS))


def compiled(source: Path, out: Path, headers: Path, library: Path) -> Path:
    """A shared library of tests/oracle for the compiled engine."""
    subprocess.run(
        ["c++", "-O1", "-std=c++17", "-fPIC", "-shared", f"-I{headers}", str(source), f"-L{library}", "-lggml-base",
         "-lggml", "-lggml-cpu", "-o", str(out)],
        check=True, timeout=120,
    )  # fmt: skip
    return out


def ask_fit(programs: Path, backend: Path, preload: Path, model: Path, case: tuple[str, str, str]) -> str:
    """The line `llama-fit-params` prints for a case."""
    cards, _, setting = case
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(programs.parent / "lib"),
        "LD_PRELOAD": str(preload),
        "GGML_BACKEND_PATH": str(backend),
        "GLMPLAN_FAKE_GPU_MIB": fake_gpus(cards),
        "GGML_NO_BACKTRACE": "1",
    }
    done = subprocess.run(
        [str(programs / "llama-fit-params"), "-m", str(model), *SETTINGS[setting]],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found = _ANSWER.search(done.stdout)
    assert found is not None, (case, done.returncode, done.stdout[-500:], done.stderr[-2000:])
    return found[0]


def _record() -> None:
    from engine_fixtures import engine_headers_folder

    from glmplan.profiles.recipes import catalog_profile
    from glmplan.profiles.synthetic import write_synthetic

    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        headers = engine_headers_folder()
        backend = compiled(ROOT / "tests/oracle/fake_gpu.cpp", place / "gpu.so", headers, package / "lib")
        preload = compiled(ROOT / "tests/oracle/preload.cpp", place / "preload.so", headers, package / "lib")
        models = {quant: place / f"{quant}.gguf" for quant in QUANTS}
        for quant, path in models.items():
            write_synthetic(path, catalog_profile(quant), tokenizer=False)

        def one(case: tuple[str, str, str]) -> tuple[str, str]:
            return " | ".join(case), ask_fit(package.parent / "bin", backend, preload, models[case[1]], case)

        with ThreadPoolExecutor(2) as pool:
            answers = dict(pool.map(one, cases()))
    engine = f"llama-fit-params of llama-cpp-python {version('llama-cpp-python')}"
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"engine": engine, "answers": answers}, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _record()

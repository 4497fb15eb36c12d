"""A rehearsal against the full model: `pytest -m bench -s tests/bench/test_rehearse_accuracy.py`.

All 47 layers of q4_K_M, 17 GB in memory as zeros and noise, through the very server that is rehearsed; about 15
minutes on 2 cores, on a machine that does nothing else. GLMPLAN_BENCH_ENGINE names the engine (xllamacpp).
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from console import Console

from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic

pytestmark = pytest.mark.bench
ENGINE = os.environ.get("GLMPLAN_BENCH_ENGINE") or "xllamacpp"
# The least depth a plan is judged at, and room for what is measured after it.
DEPTH, N_CTX = 4096, 5120
PROMPT, OUTPUT = 512, 24
SANITY = 0.25


def document(console: Console, *words: str) -> dict[str, Any]:
    done = console.run(*words, "--json", timeout_s=1800)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def deeper(forecast: dict[int, Any], guess: dict[str, float], depth: int) -> dict[str, float]:
    """`guess` at `depth` where the decode that is measured really is: behind the prompt."""
    none, full = (1000 / forecast[at]["decode_tokens_per_s"]["value"] for at in (0, DEPTH))
    there = none + (full - none) * (depth + PROMPT + OUTPUT / 2) / DEPTH
    slower = (none + (full - none) * depth / DEPTH) / there
    return {name: guess[name] * slower for name in ("value", "low", "high")}


def test_the_full_model_beside_its_rehearsal(tmp_path: Path) -> None:
    model, plan = tmp_path / "full.gguf", str(tmp_path / "plan.json")
    write_synthetic(model, catalog_profile("q4_K_M"), random_weights=True)
    console = Console(tmp_path, model)
    planned = console.run("plan", "--gguf", str(model), "--n-ctx", str(N_CTX), "--engine", ENGINE, "-o", plan)
    assert planned.returncode == 0, planned.stderr
    forecast = {row["depth_tokens"]: row for row in document(console, "rehearse", plan)["speeds"]}
    seen = document(
        console, "bench", plan, "--depth", f"0,{DEPTH}", "--prompt-tokens", str(PROMPT), "--output-tokens", str(OUTPUT),
        "--repetitions", "3", "--max-time", "25m",
    )  # fmt: skip
    print(f"\n{ENGINE}, load {os.getloadavg()[0]:.2f}", end="")
    for row in seen["summary"]:
        told = forecast[row["depth_tokens"]]
        for name in ("decode_tokens_per_s", "prefill_tokens_per_s"):
            guess, truth = told[name], row[name]["value"]
            if name == "decode_tokens_per_s":
                guess = deeper(forecast, guess, row["depth_tokens"])
            inside = "inside" if guess["low"] <= truth <= guess["high"] else "OUTSIDE"
            print(
                f"\n{row['depth_tokens']:6} {name:22} measured {truth:7.2f}  rehearsed {guess['value']:7.2f} "
                f"({guess['low']:.2f} to {guess['high']:.2f}, {inside})  {guess['value'] / truth - 1:+.1%}",
                end="",
            )
            assert abs(guess["value"] / truth - 1) < SANITY

"""scripts/gpu-check without a GPU: every command of a dry run, the cells of a row, and its processor path for real."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from console import Console

pytestmark = pytest.mark.e2e
SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "gpu-check"


def check(console: Console, *words: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], env=console.environment, cwd=console.folder, capture_output=True,
        text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def script() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("gpu_check", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gpu_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_a_dry_run_prints_every_command_and_does_nothing(console: Console) -> None:
    done = check(console, "--dry-run", "--work", "there")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    for words in ("GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=ARCHITECTURE", "llama-cpp-python==0.3.36"):
        assert words in done.stderr
    for what, count in (("write ", 3), ("--ballast FREE-", 18), (" plan --gguf ", 18), (" run ", 18), (" tune ", 18)):
        assert sum(what in line for line in lines) == count, what
    assert not (console.folder / "there").exists()
    assert done.stdout == ""


def test_what_was_asked_for_is_what_is_played(console: Console) -> None:
    done = check(console, "--dry-run", "--cards", "12,48", "--quants", "q8_0", "--server", "/s/llama-server")
    assert done.stderr.count("--ballast FREE-") == 2
    assert "pip" not in done.stderr
    assert check(console, "--cards", "many").returncode != 0


@pytest.mark.parametrize(("off", "verdict"), [(0, "as planned"), (2**20, "as planned"), (64 * 2**20, "**differs**")])
def test_a_row_compares_buffers_with_the_ledger(off: int, verdict: str) -> None:
    part = 100 * 2**20
    plan: dict[str, Any] = {
        "memory": {
            "devices": [
                {"id": name, "weights_bytes": part, "kv_cache_bytes": part, "compute_bytes": part}
                for name in ("gpu0", "host")
            ]
        },
        "placement": {"n_ctx": 16384, "n_cpu_moe": 4, "override_tensor": []},
    }
    buffers = [
        {"device": "CUDA0", "kind": "model", "n_bytes": part + off},
        {"device": "CUDA0", "kind": "kv", "n_bytes": part},
        {"device": "CUDA0", "kind": "compute", "n_bytes": part},
        {"device": "CUDA_Host", "kind": "compute", "n_bytes": part},
        {"device": "CPU_Mapped", "kind": "model", "n_bytes": part},
    ]
    race: dict[str, Any] = {
        "outcome": "kept",
        "against_rivals": [{"name": "--fit on", "prefill_ratio": 1.5, "decode_ratio": 1.25}],
    }
    row = script().row(12, Path("f.gguf"), plan, {"memory": {"buffers": buffers}}, race)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["12 GB", "f", "16,384", "some", "300"]
    assert cells[6:] == [verdict, "kept", "1.50", "1.25", "-", "-"]


def test_the_processor_path_gives_a_row(console: Console) -> None:
    done = check(
        console, "--cpu", "--engine", "xllamacpp", "--layers", "2", "--quants", "q4_K_M", "--n-ctx", "1024", "--depth",
        "32", "--budget", "5s", "--work", "work", "-o", "table.md", timeout_s=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    text = (console.folder / "table.md").read_text()
    assert text == done.stdout
    head, _, row = text.splitlines()
    assert head.count("|") == row.count("|")
    assert "| processor | glm-4.7-flash-q4_K_M-2-layers-noise | 1,024 |" in row
    console.wait_for_no_leftovers(5)

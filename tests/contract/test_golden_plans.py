"""Plans for machines everybody knows, compared with the ones that were reviewed (`tests/goldens/plans/*.json`).

A change that moves a plan's numbers shows here. `GLMPLAN_ACCEPT=1 pytest tests/contract/test_golden_plans.py` rewrites
the files; the diff is what a review looks at. What changes with the clock, the version or the speed model is left out:
speeds have tests of their own.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from glmplan.cli import application
from glmplan.errors import JsonValue
from glmplan.units import MIB

app = application()

TESTS: Final = Path(__file__).parents[1]
GOLDENS: Final = TESTS / "goldens" / "plans"
MACHINES: Final[dict[str, tuple[str, ...]]] = {
    "cpu-32g": ("--on", "cpu:32GiB"),
    **{f"gpu-{size}g": ("--on", f"gpu:{size}GiB", "--ram", "64GiB") for size in (8, 12, 16, 20, 24, 32, 48, 80)},
    "2x-rtx-3090": ("--on", "2x rtx-3090"),
    "gpu-8g-16g": ("--on", "gpu:8GiB,16GiB", "--ram", "64GiB"),
    "apple-m4-max-64g": ("--on", "apple-m4-max:64"),
    "apple-m2-24g": ("--on", "apple-m2:24"),
    **{f"tape-{tape}": ("--on", str(TESTS / "tapes" / tape)) for tape in ("linux-rtx3060-12g", "macos26-m2pro-32g")},
}
PARTS: Final = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes")
HOW_TO_ACCEPT: Final = (
    "if that is meant: GLMPLAN_ACCEPT=1 pytest tests/contract/test_golden_plans.py, and review the diff"
)
_SPEED: Final = "tokens/s"


@pytest.mark.parametrize("name", MACHINES)
def test_the_plan_is_the_reviewed_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["plan", "--json", *MACHINES[name]], standalone_mode=False)
    made = comparable(json.loads(capsys.readouterr().out))
    golden = GOLDENS / f"{name}.json"
    if os.environ.get("GLMPLAN_ACCEPT") == "1":
        golden.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    reviewed = json.loads(golden.read_text(encoding="utf-8"))
    if changes := list(differences(reviewed, made)):
        said = [f"the plan for {name} ({' '.join(MACHINES[name])}) is not the reviewed one:", *changes, HOW_TO_ACCEPT]
        pytest.fail("\n".join(said), pytrace=False)


def test_every_golden_file_has_its_machine() -> None:
    assert {path.stem for path in GOLDENS.glob("*.json")} == set(MACHINES)


def test_golden_files_hold_no_speed_no_time_and_no_version() -> None:
    for path in GOLDENS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert not [word for word in (_SPEED, "created_at", "glmplan_version", "per_s") if word in text], path.name


def test_a_difference_is_told_in_words_and_mebibytes() -> None:
    def plan(quantization: str, n_cpu_moe: int, weights_bytes: int) -> dict[str, Any]:
        row = {"id": "gpu0", **dict.fromkeys(PARTS, 0), "weights_bytes": weights_bytes}
        return {
            "model": {"quantization": quantization},
            "placement": {"n_ctx": 4096, "n_cpu_moe": n_cpu_moe},
            "memory": {"devices": [row]},
        }

    assert list(differences(plan("q8_0", 9, 30 * MIB), plan("Q4_K_M", 0, 17 * MIB + 1))) == [
        "  model.quantization            q8_0 -> Q4_K_M",
        "  placement.n_cpu_moe           9 -> 0",
        "  gpu0 total                    30.000 MiB -> 17.000 MiB (-13,631,487 bytes)",
        "  gpu0 weights_bytes            30.000 MiB -> 17.000 MiB (-13,631,487 bytes)",
    ]
    assert list(differences(plan("q8_0", 9, 1), plan("q8_0", 9, 1))) == []


def comparable(plan: dict[str, Any]) -> dict[str, Any]:
    """The decision and its ledger, without what changes with the clock, the version or the speed model."""
    kept = {name: plan[name] for name in ("schema", "machine", "model", "workload", "placement", "memory")}
    kept["warnings"] = [warning for warning in plan["warnings"] if _SPEED not in warning]
    return kept


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """One line for each value that changed, what people look for first."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for name in dict.fromkeys([*_HEADLINES, *old, *new]):
        if old.get(name) != new.get(name):
            yield f"  {name:29} {_change(name, old.get(name), new.get(name))}"


_HEADLINES: Final = ("model.quantization", "placement.n_ctx", "placement.n_gpu_layers", "placement.n_cpu_moe")


def _leaves(value: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Every value with its path; the ledger's rows go by device, each with its total first."""
    if isinstance(value, dict) and path.startswith("memory.devices["):
        row: dict[str, Any] = value
        yield f"{row['id']} total", sum(row[part] for part in PARTS)
        yield from ((f"{row['id']} {name}", size) for name, size in row.items() if name != "id")
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _change(name: str, before: JsonValue, after: JsonValue) -> str:
    if name.endswith(("_bytes", " total")) and isinstance(before, int) and isinstance(after, int):
        return f"{before / MIB:,.3f} MiB -> {after / MIB:,.3f} MiB ({after - before:+,} bytes)"
    return f"{before} -> {after}"

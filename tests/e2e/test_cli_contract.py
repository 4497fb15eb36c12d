"""What scripts rely on: one JSON document on standard output, its keys, its units, and a help text for each command."""

import inspect
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from console import Console

from glmplan import __version__
from glmplan.cli import application
from glmplan.engine import EngineKind
from glmplan.errors import JsonValue

pytestmark = pytest.mark.e2e
TAPES: Final = Path(__file__).parents[1] / "tapes"
BASES: Final = {"measured", "calibrated", "roofline", "assumed"}
GPU_KEYS: Final = {
    "id", "name", "vendor", "uuid", "memory_total_bytes", "memory_free_bytes", "memory_usable_bytes",
    "bandwidth_bytes_per_s", "compute_capability", "driver", "pcie", "unified", "mig",
}  # fmt: skip
PLAN_KEYS: Final = {
    "schema", "glmplan_version", "created_at", "machine", "model", "workload", "placement", "memory", "speed",
    "reasons", "warnings", "alternatives", "prices", "pins", "quality",
}  # fmt: skip
LEDGER_KEYS: Final = {"id", "usable_bytes", "weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes"}
# What --json prints must answer without asking the network; inspect of an address is asked for.
QUIET: Final = [
    "detect --json", "doctor --json", "devices --json", "status --json", "plan --json", "plan --on rtx-4090 --json",
    "estimate --json", "estimate --on 2x|rtx-3090 --json", "inspect tiny.gguf --json", "--help", "plan --help",
]  # fmt: skip
# An observer inside the interpreter: every address a process asks for ends up in a file.
OBSERVER: Final = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["OBSERVED"], "a") as stream:
            stream.write(f"{event} {arguments[1:] if event == 'socket.connect' else arguments}\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def here(console: Console) -> Console:
    """A console whose folder holds `tiny.gguf` and a plan for it, `plan.json`."""
    (console.folder / "tiny.gguf").symlink_to(console.model)
    Path(console.plan(EngineKind.XLLAMACPP)).rename(console.folder / "plan.json")
    return console


def document(console: Console, *words: str, code: int = 0) -> dict[str, Any]:
    """The one document a command prints; its numbers are checked for their units."""
    done = console.run(*words)
    assert done.returncode == code, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout, parse_constant=_refuse)
    assert list(unit_errors(parsed)) == []
    return parsed


def _refuse(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise AssertionError(message)


def unit_errors(value: JsonValue, path: str = "") -> Iterator[str]:
    """Values that are not what the unit in their name promises: whole bytes, finite numbers, estimates with a range."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unit_errors(item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    if "basis" in value and "low" in value:
        yield from _estimate_errors(value, path)
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if isinstance(item, (dict, list)):
            yield from unit_errors(item, where)
        elif item is not None and not _is_in_unit(name, item):
            yield f"{where} = {item!r}"


def _is_in_unit(name: str, value: JsonValue) -> bool:
    if isinstance(value, bool):
        return not name.endswith(("bytes", "_tokens", "_ms", "_per_s"))
    if name == "bytes" or name.endswith(("_bytes", "_tokens")):
        return isinstance(value, int)
    return not name.endswith(("_ms", "_per_s")) or (isinstance(value, int | float) and math.isfinite(value))


def _estimate_errors(value: dict[str, Any], path: str) -> Iterator[str]:
    if set(value) != {"value", "low", "high", "basis"} or value["basis"] not in BASES:
        yield f"{path}: {value}"
    elif not 0 <= value["low"] <= value["value"] <= value["high"] < math.inf:
        yield f"{path}: not low <= value <= high: {value}"


def test_detect(here: Console) -> None:
    for words in (["detect"], ["detect", "--replay", str(TAPES / "linux-rtx4090-with-engines")]):
        machine = document(here, *words, "--json")
        assert machine["schema"] == "glmplan/machine/1"
        assert {"schema", "os", "cpu", "memory", "gpus", "engines", "models", "notes"} <= set(machine)
        assert {"system", "version", "container"} <= set(machine["os"])
        assert {"name", "physical_cores", "usable_cores", "features"} <= set(machine["cpu"])
        assert {"total_bytes", "limit_bytes", "available_bytes", "bandwidth_bytes_per_s", "unified"} <= set(
            machine["memory"]
        )
        assert all(set(gpu) >= GPU_KEYS and {"generation", "width"} <= set(gpu["pcie"]) for gpu in machine["gpus"])
        assert all({"kind", "path", "version", "build", "backends"} <= set(engine) for engine in machine["engines"])
        assert all({"path", "quantization", "bytes", "store"} <= set(model) for model in machine["models"])
        assert all({"probe", "field", "why", "hint"} <= set(note) for note in machine["notes"])
    assert machine["gpus"][0]["id"] == "gpu0"
    assert machine["models"]


def test_a_machine_that_was_printed_can_be_planned_for(here: Console) -> None:
    tape = str(TAPES / "linux-rtx3060-12g")
    (here.folder / "machine.json").write_text(here.run("detect", "--json", "--replay", tape).stdout)
    from_tape, from_file = (document(here, "plan", "--json", "--on", on) for on in (tape, "machine.json"))
    for plan in (from_tape, from_file):
        plan.pop("created_at")
    assert from_file == from_tape


def test_a_machine_that_was_printed_elsewhere_is_not_taken_for_this_one(here: Console) -> None:
    """Its engine is not asked: this machine has no such GPU."""
    machine = json.loads(here.run("detect", "--json", "--replay", str(TAPES / "linux-rtx3060-12g")).stdout)
    engine = {"kind": "llama-cpp-python", "path": sys.executable, "version": "0.3.36", "build": None}
    machine |= {"source": "observed", "engines": [engine | {"backends": ["cuda", "cpu"]}]}
    (here.folder / "machine.json").write_text(json.dumps(machine))
    plan = document(here, "plan", "--json", "--on", "machine.json")
    assert plan["placement"]["engine"] == "llama-cpp-python"
    assert plan["memory"]["basis"] == "roofline"
    assert [device["id"] for device in plan["memory"]["devices"]] == ["gpu0", "host"]


@pytest.mark.parametrize("on", ["cpu:32GiB", "gpu:24GiB,12GiB", "apple-m4-max:64", "h200"])
def test_estimate(on: str, here: Console) -> None:
    estimate = document(
        here, "estimate", "--json", "--on", on, "--quant", "q8_0", "--n-ctx", "65536", "--cache-type", "q8_0",
        "--flash-attn", "on", "--n-gpu-layers", "all", "--n-cpu-moe", "3", "--n-batch", "1024", "--n-ubatch", "256",
        "--n-parallel", "2", "--outputs", "256", "--depth", "1000",
    )  # fmt: skip
    assert estimate["schema"] == "glmplan/estimate/1"
    assert {"schema", "memory", "speed", "warnings"} <= set(estimate)
    devices = estimate["memory"]["devices"]
    assert [device["id"] for device in devices] == [*[f"gpu{index}" for index in range(len(devices) - 1)], "host"]
    for device in devices:
        assert set(device) == LEDGER_KEYS | {"fits"}
        needed = sum(device[part] for part in LEDGER_KEYS - {"id", "usable_bytes"})
        assert device["fits"] is (needed <= device["usable_bytes"])
    assert estimate["speed"]["depth_tokens"] == 1000
    assert {"value", "low", "high", "basis"} == set(estimate["speed"]["prefill_tokens_per_s"])
    assert {"value", "low", "high", "basis"} == set(estimate["speed"]["decode_tokens_per_s"])


def test_a_split_by_shares_goes_to_the_devices_in_order(here: Console) -> None:
    words = ["estimate", "--json", "--on", "2x rtx-3090", "--n-ctx", "32k", "--tensor-split"]
    by_split = {
        split: [device["weights_bytes"] for device in document(here, *words, split)["memory"]["devices"]]
        for split in ("3,1", "1,3", "1")
    }
    assert by_split["3,1"][0] > 2 * by_split["3,1"][1]
    assert by_split["1,3"][1] > 2 * by_split["1,3"][0]
    assert by_split["1"][1] == 0
    assert len({sum(sizes) for sizes in by_split.values()}) == 1


@pytest.mark.parametrize("words", ["", "--on gpu:16GiB --ram 64GiB --why", "--on gpu:24GiB --objective context"])
def test_plan(words: str, here: Console) -> None:
    plan = document(here, "plan", "--json", "-o", "plan.json", *words.split())
    assert plan == json.loads((here.folder / "plan.json").read_text())
    assert plan["schema"] == "glmplan/plan/1"
    assert set(plan) == PLAN_KEYS
    assert {"placement", "memory", "speed", "why_not"} <= set(plan["alternatives"][0])
    assert all({"step", "effect"} <= set(price) for price in plan["prices"])
    for device in plan["memory"]["devices"]:
        assert set(device) == LEDGER_KEYS | {"margin_bytes"}
        assert device["usable_bytes"] == sum(
            size for name, size in device.items() if name not in {"id", "usable_bytes"}
        )
        assert device["margin_bytes"] >= 0


def test_devices_doctor_inspect(here: Console) -> None:
    listing = document(here, "devices", "--json", "rtx 40")
    assert listing["schema"] == "glmplan/devices/1"
    assert all(device["memory_options_bytes"] and device["sources"] for device in listing["devices"])
    checked = document(here, "doctor", "--json", "--replay", str(TAPES / "linux-rtx4090-with-engines"), code=1)
    assert checked["schema"] == "glmplan/doctor/1"
    assert {"code", "what", "harm", "fix"} <= set(checked["findings"][0])
    header = document(here, "inspect", "--json", "tiny.gguf")
    assert header["schema"] == "glmplan/inspect/1"
    assert header["file_bytes"] == here.model.stat().st_size


ANSWERS: Final = {
    "compare": "--on gpu:12GiB",
    "detect": "",
    "devices": "",
    "doctor": "--replay " + str(TAPES / "linux-amd-7900xtx-vulkan"),
    "estimate": "",
    "export": "script plan.json",
    "inspect": "tiny.gguf",
    "models": "glm-4.7-flash",
    "plan": "--on gpu:12GiB",
    "report": "plan.json -o page.html",
    "status": "",
    "what-if": "--need n_ctx=100k --limit 2",
}
# Need an engine, a download or much time: `run` and `bench` below, the others in tests of their own.
ANSWERED_ELSEWHERE: Final = {"bench", "fetch", "rehearse", "run", "tune"}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_document_carries_the_schema_that_help_names(name: str, here: Console) -> None:
    answer = document(here, name, "--json", *ANSWERS[name].split())
    help_text = " ".join(here.run(name, "--help").stdout.split())
    named = re.search(r"--json .*?\((glmplan/[\w-]+/\d)\)", help_text)
    assert named is not None
    assert named[1] == answer["schema"]


def test_every_command_with_json_is_asked_here() -> None:
    with_json = {
        command.name
        for command in application().registered_commands
        if command.callback is not None and "as_json" in inspect.signature(command.callback).parameters
    }
    assert with_json == set(ANSWERS) | ANSWERED_ELSEWHERE


def test_a_launch_from_start_to_stop(here: Console) -> None:
    plan = here.plan(EngineKind.XLLAMACPP)
    command = document(here, "run", plan, "--dry-run", "--json", "--port", str(here.port))
    configuration = json.loads(Path(command["argv"][-1]).read_text())
    assert str(here.model) in json.dumps(configuration)
    assert document(here, "status", "--json") == {"schema": "glmplan/status/1", "engines": []}
    launch = document(here, "run", plan, "--detach", "--json", "--port", str(here.port))
    assert launch["schema"] == "glmplan/launch/1"
    assert {"url", "engine", "engine_version", "pid", "load_ms", "memory", "answer", "speed", "log", "proof"} <= set(
        launch
    )
    assert launch["synthetic"] is True
    status = document(here, "status", "--json")
    assert [(engine["pid"], engine["port"]) for engine in status["engines"]] == [(launch["pid"], here.port)]
    words = [
        "bench",
        "--json",
        "--prompt-tokens",
        "16",
        "--output-tokens",
        "4",
        "--repetitions",
        "2",
        "--depth",
        "0,64",
    ]
    bench = document(here, *words)
    assert bench["schema"] == "glmplan/bench/1"
    assert [row["depth_tokens"] for row in bench["summary"]] == [0, 64]
    assert all(
        {"prefill_tokens_per_s", "decode_tokens_per_s", "ttft_ms", "tpot_ms"} <= set(row) for row in bench["summary"]
    )
    assert bench["summary"][0]["decode_tokens_per_s"]["basis"] == "measured"
    assert here.run("logs").stdout
    stopped = here.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "")


def test_version(here: Console) -> None:
    assert here.run("--version").stdout == f"glmplan {__version__}\n"


def test_every_command_has_help_on_standard_output(here: Console) -> None:
    names = [str(command.name) for command in application().registered_commands]
    assert names == sorted(names)
    listed = here.run("--help").stdout
    for name in names:
        done = here.run(name, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: glmplan {name} ")
        assert f"\n  {name} " in listed


def test_nothing_asks_the_network_that_was_not_asked_to(here: Console) -> None:
    (here.folder / "sitecustomize.py").write_text(OBSERVER)
    observed = here.folder / "observed"
    path = os.pathsep.join(filter(None, [str(here.folder), os.environ.get("PYTHONPATH")]))
    here.environment |= {"PYTHONPATH": path, "OBSERVED": str(observed)}
    here.run("inspect", "http://127.0.0.1:9/x.gguf", "--json")
    assert "127.0.0.1" in observed.read_text()  # the observer sees
    for words in QUIET:
        done = here.run(*[word.replace("|", " ") for word in words.split(" ")])
        assert done.returncode == 0 or words.startswith("doctor"), done.stderr
    # This machine may be asked, for a port or a running engine; nobody else.
    assert [line for line in observed.read_text().splitlines() if "127.0.0.1" not in line] == []

"""The installed `glmplan detect`, `devices` and `doctor` in a subprocess: what is printed, and the exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(sys.executable).with_name("glmplan")
TAPES = Path(__file__).parents[1] / "tapes"


def glmplan(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *words], env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def document(*words: str, **env: str) -> Any:
    done = glmplan(*words, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_detect_prints_one_document_of_the_contract() -> None:
    machine = document("detect", "--json")
    assert machine["schema"] == "glmplan/machine/1"
    assert {"system", "version", "container"} <= set(machine["os"])
    assert {"name", "physical_cores", "usable_cores", "features"} <= set(machine["cpu"])
    assert {"total_bytes", "limit_bytes", "available_bytes", "bandwidth_bytes_per_s", "unified"} <= set(
        machine["memory"]
    )
    assert isinstance(machine["gpus"], list)
    assert all({"kind", "path", "version", "build", "backends"} <= set(engine) for engine in machine["engines"])
    assert all({"probe", "field", "why", "hint"} <= set(note) for note in machine["notes"])


def test_a_gpu_has_every_field_of_the_contract() -> None:
    machine = document("detect", "--json", "--replay", str(TAPES / "linux-rtx3060-12g"))
    gpu = machine["gpus"][0]
    assert {
        "id", "name", "vendor", "uuid", "memory_total_bytes", "memory_free_bytes", "memory_usable_bytes",
        "bandwidth_bytes_per_s", "compute_capability", "driver", "pcie", "unified", "mig",
    } <= set(gpu)  # fmt: skip
    assert gpu["id"] == "gpu0"
    assert gpu["vendor"] == "nvidia"
    assert gpu["memory_usable_bytes"] == 11806 * 2**20
    assert gpu["pcie"] == {"generation": 4, "width": 16}


def test_people_get_one_screen_with_bars() -> None:
    done = glmplan("detect", "--replay", str(TAPES / "linux-rtx4080super-desktop"))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) < 40
    assert any(line.startswith("gpu0     [##....") for line in lines)
    assert "15.0 GiB usable of 16.0 GiB" in done.stdout
    assert "kwin_wayland" in done.stdout


def test_strict_fails_where_something_is_not_known() -> None:
    done = glmplan("detect", "--strict", "--replay", str(TAPES / "linux-nvml-timeout"))
    assert done.returncode == 1
    assert "notes with --strict" in done.stderr


def test_record_then_replay_gives_the_expected_machine(tmp_path: Path) -> None:
    folder = tmp_path / "tape"
    recorded = glmplan("detect", "--json", "--record", str(folder))
    assert recorded.returncode == 0
    json.loads(recorded.stdout)
    assert "before you share it" in recorded.stderr
    replayed = document("detect", "--json", "--replay", str(folder))
    assert replayed == json.loads((folder / "expected.json").read_text("utf-8"))
    again = glmplan("detect", "--record", str(folder))
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("detect", "--replay", "/no/such/tape"),
        ("detect", "--record", "a", "--replay", "b"),
        ("detect", "--nonsense"),
        ("devices", "voodoo"),
        ("doctor", "/no/such/plan.json"),
    ],
)
def test_mistakes_exit_2_with_a_document_and_no_traceback(words: tuple[str, ...]) -> None:
    done = glmplan(*words, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["message"]
    assert error["hint"]
    assert "Traceback" not in done.stderr


def test_full_asks_py_cpuinfo_too() -> None:
    plain, full = document("detect", "--json"), document("detect", "--json", "--full")
    assert set(plain["cpu"]["features"]) <= set(full["cpu"]["features"])


def test_devices_lists_the_catalog() -> None:
    listing = document("devices", "--json")
    assert listing["schema"] == "glmplan/devices/1"
    assert len(listing["devices"]) + len(listing["host_platforms"]) == 149
    assert all(device["sources"] for device in listing["devices"])
    done = glmplan("devices", "3090")
    assert done.returncode == 0
    assert "rtx-3090-ti" in done.stdout


def test_doctor_exits_0_when_clean_and_1_with_findings() -> None:
    dirty = glmplan("doctor", "--json", "--replay", str(TAPES / "linux-rtx4090-with-engines"))
    assert dirty.returncode == 1
    diagnosis = json.loads(dirty.stdout)
    assert diagnosis["schema"] == "glmplan/doctor/1"
    assert [finding["code"] for finding in diagnosis["findings"]] == ["ollama-too-old"]
    assert diagnosis["findings"][0]["fix"]
    clean = glmplan("doctor", "--json", "--replay", str(TAPES / "linux-amd-7900xtx-vulkan"))
    assert json.loads(clean.stdout)["findings"] == []
    assert clean.returncode == 0


def test_doctor_reads_system_wide_settings_and_names_a_taken_port(tmp_path: Path) -> None:
    import socket

    folder = tmp_path / "config" / "llama.cpp"
    folder.mkdir(parents=True)
    (folder / "config.ini").write_text("[*]\nflash-attn = off\ncache-type-k = q8_0\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = glmplan("doctor", "--json", "--port", str(port), XDG_CONFIG_HOME=str(tmp_path / "config"))
    codes = [finding["code"] for finding in json.loads(done.stdout)["findings"]]
    assert done.returncode == 1
    assert {"port-taken", "mixed-kv-types", "llama-cpp-settings", "flash-attention-off"} <= set(codes)
    text = glmplan("doctor", "--port", str(port), XDG_CONFIG_HOME=str(tmp_path / "config")).stdout
    assert "fix: remove flash-attn from" in text


def test_doctor_opens_the_model_files_here(tmp_path: Path, tiny_gguf: Path) -> None:
    folder = tmp_path / "hub" / "models--x--GLM-4.7-Flash-GGUF" / "snapshots" / "main"
    folder.mkdir(parents=True)
    (folder / "GLM-4.7-Flash-Q4_K_M.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    done = glmplan("doctor", "--json", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert "unreadable-file" in [finding["code"] for finding in json.loads(done.stdout)["findings"]]
    found = document("detect", "--json", HF_HUB_CACHE=str(tmp_path / "hub"))["models"]
    assert [(model["quantization"], model["bytes"], model["store"]) for model in found] == [
        ("Q4_K_M", 5000, "huggingface")
    ]

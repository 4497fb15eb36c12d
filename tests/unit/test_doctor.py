"""The doctor: every known problem is found on a machine that has it, in order of harm, with its fix."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glmplan.diagnosis import Checkup, Configuration, Diagnosis, Harm, PortHolder, Setting, SuspectFile
from glmplan.machine import (
    Disk,
    EngineFound,
    GpuProcess,
    Machine,
    ModelFile,
    ProbeNote,
)
from glmplan.planner.diagnosis import diagnose
from glmplan.planner.diagnosis_engines import version_of
from glmplan.profiles.catalog import resolve_machine
from glmplan.profiles.detect import detect
from glmplan.profiles.probes.configuration import read_configuration
from glmplan.profiles.tape import TapeHost
from glmplan.units import GIB, MIB

TAPES = Path(__file__).parents[1] / "tapes"
SERVER = EngineFound(
    kind="llama-server", path="/usr/bin/llama-server", version="0.5.0-dev", build="1", backends=("cpu", "cuda")
)
CLEAN = replace(resolve_machine("rtx-4090", "64GiB"), engines=(SERVER,))


def codes(machine: Machine, **other: Any) -> list[str]:
    return [finding.code for finding in examined(machine, **other).findings]


def examined(machine: Machine, **other: Any) -> Diagnosis:
    return diagnose(replace(Checkup(machine=machine), **other))


def engine(kind: str, version: str | None, build: str | None = None, *backends: str) -> EngineFound:
    return EngineFound(kind=kind, path=f"/usr/bin/{kind}", version=version, build=build, backends=backends)


def with_engines(*engines: EngineFound) -> Machine:
    return replace(CLEAN, engines=(SERVER, *engines))


def llama_cpp(**settings: str) -> Configuration:
    return Configuration(
        llama_cpp=tuple(
            Setting(name=name, value=value, origin="/etc/llama.cpp/config.ini") for name, value in settings.items()
        )
    )


def test_a_clean_machine_has_no_findings() -> None:
    assert codes(CLEAN) == []


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.14.2", ["ollama-too-old"]),
        ("0.9.0", ["ollama-too-old"]),
        ("0.14.3", ["ollama-full-kv"]),
        ("0.14.3-rc2", ["ollama-full-kv"]),
        ("0.15.0", ["ollama-keeps-v"]),
        ("0.29.9", ["ollama-keeps-v"]),
        ("0.30.0", []),
        ("0.34.4", []),
        (None, []),
    ],
)
def test_ollama_by_version(version: str | None, expected: list[str]) -> None:
    assert codes(with_engines(engine("ollama", version))) == expected


def test_the_withdrawn_library_file() -> None:
    model = ModelFile(path="/o/sha256-ff14144f31df", quantization="Q4_K_M", bytes=18_754_370_628, store="ollama")
    machine = replace(with_engines(engine("ollama", "0.34.4")), models=(model,))
    assert codes(machine) == ["ollama-withdrawn-file"]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        ("7751", ["llama-cpp-before-v-less", "llama-cpp-before-fa-kernels"]),
        ("7865", ["llama-cpp-before-fa-kernels"]),
        ("7917", []),
        ("10488", []),
        ("1", []),  # a shallow clone counts from 1
        (None, []),
    ],
)
def test_llama_cpp_by_build(build: str | None, expected: list[str]) -> None:
    machine = replace(CLEAN, engines=(engine("llama-server", "b", build, "cpu", "cuda"),))
    assert codes(machine) == expected


def test_engines_that_are_missing_too_old_or_blind() -> None:
    only_ollama = replace(CLEAN, engines=(engine("ollama", "0.34.4"),))
    assert codes(only_ollama) == ["no-engine"]
    assert examined(only_ollama).findings[0].fix.endswith("; or glmplan run --engine ollama")
    assert codes(replace(CLEAN, engines=())) == ["no-engine"]
    old = engine("llama-cpp-python", "0.3.16", None, "cpu", "cuda")
    assert codes(replace(CLEAN, engines=(old,))) == ["llama-cpp-python-too-old"]
    assert codes(with_engines(engine("vllm", "0.14.1"))) == ["vllm-before-mla"]
    assert codes(with_engines(engine("vllm", "0.33.0"))) == []
    cpu_only = replace(CLEAN, engines=(engine("llama-server", "0.5.0", "1", "cpu", "rpc"),))
    assert codes(cpu_only) == ["gpu-not-used"]


@pytest.mark.parametrize("value", ["off", "0", "false", "OFF"])
def test_flash_attention_off(value: str) -> None:
    found = codes(CLEAN, configuration=llama_cpp(**{"flash-attn": value}))
    assert found == ["llama-cpp-settings", "flash-attention-off"]
    ollama = Configuration(ollama=(Setting(name="OLLAMA_FLASH_ATTENTION", value=value, origin="environment"),))
    assert codes(CLEAN, configuration=ollama) == ["flash-attention-off"]


@pytest.mark.parametrize(
    "settings",
    [{"cache-type-k": "q8_0"}, {"ctv": "q8_0"}, {"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "LLAMA_ARG_CACHE_TYPE_V": "q4_0"}],
)
def test_mixed_kv_types(settings: dict[str, str]) -> None:
    assert codes(CLEAN, configuration=llama_cpp(**settings))[0] == "mixed-kv-types"


def test_equal_kv_types_are_only_a_setting() -> None:
    found = codes(CLEAN, configuration=llama_cpp(ctk="q8_0", ctv="q8_0"))
    assert found == ["llama-cpp-settings"]


def test_settings_that_change_nothing_are_not_reported() -> None:
    assert codes(CLEAN, configuration=llama_cpp(**{"api-prefix": "/x", "log-colors": "on"})) == []


def test_parallel_slots_of_ollama_multiply_the_context() -> None:
    several = Configuration(ollama=(Setting(name="OLLAMA_NUM_PARALLEL", value="4", origin="unit"),))
    one = Configuration(ollama=(Setting(name="OLLAMA_NUM_PARALLEL", value="1", origin="unit"),))
    assert codes(CLEAN, configuration=several) == ["ollama-parallel"]
    assert codes(CLEAN, configuration=one) == []


def test_gpu_memory_held_by_others_names_the_holder() -> None:
    holders = (
        GpuProcess(pid=7, name="Xorg", memory_bytes=MIB),
        GpuProcess(pid=42, name="blender", memory_bytes=5 * GIB),
    )
    gpu = replace(CLEAN.gpus[0], memory_used_bytes=6 * GIB, processes=holders)
    finding = examined(replace(CLEAN, gpus=(gpu,))).findings[0]
    assert finding.code == "gpu-memory-held"
    assert "blender (42) 5.0 GiB" in finding.what
    assert finding.fix == "stop blender (process 42)"
    desktop = replace(gpu, memory_used_bytes=600 * MIB, processes=())
    assert codes(replace(CLEAN, gpus=(desktop,))) == []
    unknown = replace(gpu, processes=())  # inside a container the holders are not listed
    assert "does not name" in examined(replace(CLEAN, gpus=(unknown,))).findings[0].what


def test_metals_limit_is_raised_by_a_line_that_is_printed_with_its_price() -> None:
    mac = replace(resolve_machine("apple-m4-pro-20c:24", None), engines=(engine("llama-server", "0.5", "1", "metal"),))
    model = ModelFile(
        path="/m/GLM-4.7-Flash-Q4_K_M.gguf", quantization="Q4_K_M", bytes=18_312_339_776, store="huggingface"
    )
    finding = examined(replace(mac, models=(model,))).findings[0]
    assert finding.code == "metal-limit"
    assert finding.fix.startswith("sudo sysctl iogpu.wired_limit_mb=19513 buys 1.3 GiB")
    assert "lost at restart" in finding.fix
    small = replace(resolve_machine("apple-m4-10c:16", None), engines=mac.engines, models=(model,))
    assert "plan less" in examined(small).findings[0].fix
    large = replace(resolve_machine("apple-m4-max:64", None), engines=mac.engines, models=(model,))
    assert codes(large) == []


def test_swap_prompt_cache_and_disk() -> None:
    memory = replace(CLEAN.memory, swap_used_bytes=2 * GIB)
    assert codes(replace(CLEAN, memory=memory)) == ["swap-in-use"]
    limited = replace(CLEAN.memory, limit_bytes=6 * GIB)
    assert codes(replace(CLEAN, memory=limited)) == ["prompt-cache-exceeds-limit"]
    assert codes(replace(CLEAN, memory=replace(limited, limit_bytes=64 * GIB))) == []
    full = replace(CLEAN, disk=Disk(path="/home", free_bytes=3 * GIB, total_bytes=100 * GIB))
    assert codes(full, needed_bytes=18 * GIB) == ["disk-too-full"]
    assert codes(full, needed_bytes=0) == []


def test_drivers_that_do_not_answer() -> None:
    note = ProbeNote(probe="nvidia", field="gpus.driver", why="versions differ", hint="reboot")
    finding = examined(replace(CLEAN, notes=(note,))).findings[0]
    assert (finding.code, finding.what, finding.fix) == ("nvidia-driver", "versions differ", "reboot")


def test_files_and_ports() -> None:
    file = SuspectFile(path="/m/x.gguf", code="softmax-gating", message="gating is softmax", hint="download again")
    holder = PortHolder(port=8080, pid=12, name="nginx")
    found = examined(CLEAN, files=(file,), port_holders=(holder,)).findings
    assert [finding.code for finding in found] == ["port-taken", "softmax-gating"]
    assert found[0].fix.startswith("glmplan run --port 8081")


def test_findings_come_in_order_of_harm_with_a_fix_each() -> None:
    machine = replace(
        with_engines(engine("ollama", "0.14.2"), engine("vllm", "0.10.0")),
        memory=replace(CLEAN.memory, swap_used_bytes=GIB, limit_bytes=6 * GIB),
    )
    found = examined(machine, configuration=llama_cpp(**{"flash-attn": "off", "ctk": "q8_0"})).findings
    order = list(Harm)
    assert [order.index(finding.harm) for finding in found] == sorted(order.index(finding.harm) for finding in found)
    assert len(found) == 7
    assert all(finding.fix and finding.what for finding in found)


@pytest.mark.parametrize(
    ("tape", "expected"),
    [
        ("linux-nvidia-version-mismatch", "nvidia-driver"),
        ("linux-nvidia-no-permission", "nvidia-driver"),
        ("linux-nvml-timeout", "nvidia-driver"),
        ("linux-nvidia-without-driver", "nvidia-driver"),
        ("linux-rtx5090-busy", "gpu-memory-held"),
        ("wsl2-rtx4070tisuper", "wsl-memory-limit"),
        ("macos26-m1-16g-rosetta", "rosetta"),
        ("macos15-m4pro-32g-loaded", "swap-in-use"),
        ("linux-rtx4090-with-engines", "ollama-too-old"),
        ("linux-hybrid-intel", "swap-in-use"),
    ],
)
def test_recorded_machines_show_their_problem(tape: str, expected: str) -> None:
    machine = detect(TapeHost(TAPES / tape))
    assert expected in codes(machine, model_bytes=18_312_339_776)


def test_configuration_files_and_environment(tmp_path: Path) -> None:
    ini = (
        "ctx-size = 4096 ; why\n[*]\nflash-attn = off\napi-key = sk-secret\n"
        "[my-model]\nn-gpu-layers = 3\n[default]\ntemp=1\n"
    )
    unit = (
        '[Service]\nEnvironment="OLLAMA_FLASH_ATTENTION=0"\n'
        'Environment=OLLAMA_NUM_PARALLEL=2\nEnvironment="PATH=/bin"\n'
    )
    for path, text in {
        "meta.yaml": "source: typed\n",
        "env.json": '{"HOME": "/home/user", "LLAMA_ARG_CTX_SIZE": "8192", "LLAMA_ARG_API_KEY": "sk-1"}',
        "folders.json": '{"/etc/systemd/system/ollama.service.d": ["override.conf"]}',
        "read/etc/llama.cpp/config.ini": ini,
        "read/home/user/.config/llama.cpp/config.ini": "flash-attn = on\n",
        "read/etc/systemd/system/ollama.service.d/override.conf": unit,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    found = read_configuration(TapeHost(tmp_path))
    assert {(setting.name, setting.value) for setting in found.llama_cpp} == {
        ("ctx-size", "4096"), ("flash-attn", "on"), ("temp", "1"), ("LLAMA_ARG_CTX_SIZE", "8192"),
    }  # fmt: skip
    assert {(setting.name, setting.value) for setting in found.ollama} == {
        ("OLLAMA_FLASH_ATTENTION", "0"), ("OLLAMA_NUM_PARALLEL", "2"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.14.3-rc2", (0, 14, 3)),
        ("v1.2", (1, 2)),
        ("2026.10.11549", (2026, 10, 11549)),
        ("", ()),
        (None, ()),
        ("main", ()),
    ],
)
def test_versions(text: str | None, expected: tuple[int, ...]) -> None:
    assert version_of(text) == expected

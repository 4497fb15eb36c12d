"""Which NVIDIA devices CUDA shows, what NVML's child answers, and what becomes of odd answers."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.profiles.probes.notes import Notes
from glmplan.profiles.probes.nvidia_visible import visible_units

PLAIN = [
    {"name": "RTX 3090", "uuid": "GPU-aaaa1111-0000"},
    {"name": "RTX 4080", "uuid": "GPU-aaaa2222-0000"},
    {"name": "RTX 3090", "uuid": "GPU-bbbb3333-0000"},
]
SLICED = [
    {
        "name": "H100",
        "uuid": "GPU-cccc",
        "mig_devices": [{"name": "3g.40gb", "uuid": "MIG-1111"}, {"name": "1g.10gb", "uuid": "MIG-2222"}],
    }
]


def seen(devices: list[dict[str, Any]], written: str | None) -> list[str | None]:
    env = {} if written is None else {"CUDA_VISIBLE_DEVICES": written}
    return [unit.uuid for unit in visible_units(devices, env, Notes("nvidia"))]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("0,2,-1,1", [0, 2]),
        ("2,0", [2, 0]),
        (" 1 , 0 ", [1, 0]),
        ("1,1,0", [1]),
        ("7", []),
        ("NoDevFiles", []),
        ("GPU-aaaa2222", [1]),
        ("GPU-bbbb", [2]),
        ("GPU-aaaa", []),  # not unique
        ("GPU-aaaa2222,0", [1, 0]),
        ("GPU-nope,0", []),
    ],
)
def test_cuda_visible_devices_follows_cudas_rules(written: str | None, expected: list[int]) -> None:
    assert seen(PLAIN, written) == [PLAIN[index]["uuid"] for index in expected]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (None, ["MIG-1111"]),
        ("MIG-2222", ["MIG-2222"]),
        ("0", ["MIG-1111"]),
        ("MIG-2222,MIG-1111", ["MIG-2222"]),
        ("MIG-9", []),
    ],
)
def test_a_process_sees_one_mig_slice(written: str | None, expected: list[str]) -> None:
    assert seen(SLICED, written) == expected


@given(st.text(alphabet="0123456789,-GPUMIGabc ", max_size=30))
def test_no_value_shows_more_than_there_is_or_one_device_twice(written: str) -> None:
    found = seen(PLAIN, written)
    assert len(found) == len(set(found)) <= 3


def test_numbers_on_an_uneven_machine_are_warned_of() -> None:
    notes = Notes("nvidia")
    visible_units(PLAIN, {"CUDA_VISIBLE_DEVICES": "1"}, notes)
    assert any("fastest first" in note.why for note in notes.taken)
    assert any("hides 2 of 3" in note.why for note in notes.taken)


FAKE_NVML = dedent(
    """
    class NVMLError(Exception):
        pass
    class NVMLError_NotSupported(NVMLError):
        pass
    class NVMLError_LibRmVersionMismatch(NVMLError):
        pass
    nvmlMemory_v2, NVML_CLOCK_MEM, NVML_NVLINK_MAX_LINKS = 0x02000028, 2, 4
    class _Of:
        def __init__(self, **fields):
            self.__dict__.update(fields)
    def _no(*_):
        raise NVMLError_NotSupported
    def nvmlInit():
        pass
    def nvmlDeviceGetCount():
        return 2
    def nvmlDeviceGetHandleByIndex(index):
        return index
    def nvmlSystemGetDriverVersion():
        return b"470.82.01"
    def nvmlSystemGetCudaDriverVersion_v2():
        return 11040
    def nvmlDeviceGetName(handle):
        return b"NVIDIA GeForce RTX 3060" if handle == 0 else "NVIDIA GB10"
    def nvmlDeviceGetUUID(handle):
        return f"GPU-{handle}"
    def nvmlDeviceGetPciInfo(handle):
        return _Of(busId=b"00000000:2D:00.0")
    def nvmlDeviceGetMemoryInfo(handle, version=None):
        if handle == 1 or version:
            raise NVMLError_NotSupported
        return _Of(total=12 * 2**30, used=2**30, free=11 * 2**30)
    def nvmlDeviceGetCudaComputeCapability(handle):
        return (8, 6)
    def nvmlDeviceGetMemoryBusWidth(handle):
        return 192
    def nvmlDeviceGetMaxClockInfo(handle, kind):
        return 7501
    def nvmlDeviceGetMaxPcieLinkGeneration(handle):
        return 4
    def nvmlDeviceGetGpuMaxPcieLinkGeneration(handle):
        return 3
    def nvmlDeviceGetMaxPcieLinkWidth(handle):
        return 16
    def nvmlDeviceGetNvLinkState(handle, link):
        return 1 if link < 2 else 0
    nvmlDeviceGetMigMode = nvmlDeviceGetEccMode = nvmlDeviceGetVirtualizationMode = _no
    nvmlDeviceGetPowerManagementLimit = nvmlDeviceGetAddressingMode = nvmlDeviceGetDisplayActive = _no
    def nvmlDeviceGetComputeRunningProcesses(handle):
        return [_Of(pid=7, usedGpuMemory=2**64 - 1), _Of(pid=8, usedGpuMemory=2**28)]
    def nvmlDeviceGetGraphicsRunningProcesses(handle):
        return [_Of(pid=9, usedGpuMemory=None)]
    def nvmlSystemGetProcessName(pid):
        return "python3" if pid == 8 else _no()
    """
)


def asked(folder: Path, fake: str) -> dict[str, Any]:
    (folder / "pynvml.py").write_text(fake, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "glmplan.profiles.probes.nvml_child"],
        env={"PYTHONPATH": str(folder), "PATH": ""}, capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_every_optional_question_may_fail(tmp_path: Path) -> None:
    answer = asked(tmp_path, FAKE_NVML)
    first, second = answer["devices"]
    assert answer["status"] == "ok"
    assert answer["driver"] == "470.82.01"
    assert first["name"] == "NVIDIA GeForce RTX 3060"
    assert first["memory_source"] == "nvml_v1"
    assert first["free"] == 11 * 2**30
    assert first["pcie_generation"] == 3
    assert first["nvlink_links"] == 2
    assert first["ecc"] is None
    assert first["mig_devices"] == []
    assert [(entry["pid"], entry["name"], entry["bytes"]) for entry in first["processes"]] == [
        (7, None, None),
        (8, "python3", 2**28),
        (9, None, None),
    ]
    assert second["total"] is None
    assert second["memory_source"] is None


def test_a_failing_start_is_named(tmp_path: Path) -> None:
    mismatch = FAKE_NVML.replace(
        "def nvmlInit():\n    pass", "def nvmlInit():\n    raise NVMLError_LibRmVersionMismatch('x')"
    )
    assert asked(tmp_path, mismatch)["status"] == "LibRmVersionMismatch"

"""Whether there is anything of NVIDIA's here, and NVML's answers through a child process."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glmplan.errors import JsonValue
from glmplan.profiles.host import run_child

NVML_TIMEOUT_S: Final = 2.5
_MARKS: Final = (
    "/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0", "/etc/nv_tegra_release",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1", "/usr/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1", "/run/opengl-driver/lib/libnvidia-ml.so.1",
)  # fmt: skip


def collect(env: Mapping[str, str]) -> JsonValue:
    """NVML's answers as `glmplan.profiles.probes.nvml_child` prints them, or the reason there are none.

    `status` is `absent` (no trace of a driver: no child is started), `ok`, `TimedOut`, `Crashed`, or the name of
    NVML's error such as `LibraryNotFound`, `DriverNotLoaded`, `LibRmVersionMismatch`, `NoPermission`.
    """
    if not _any_trace(env):
        return {"status": "absent", "devices": []}
    done = run_child([sys.executable, "-m", "glmplan.profiles.probes.nvml_child"], timeout_s=NVML_TIMEOUT_S)
    if done.returncode is None:
        return {"status": "TimedOut", "message": done.why, "devices": []}
    try:
        answer: JsonValue = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or [f"the child ended with {done.returncode}"]
        return {"status": "Crashed", "message": last[0], "devices": []}
    return answer


def _any_trace(env: Mapping[str, str]) -> bool:
    if any(os.path.exists(mark) for mark in _MARKS):  # noqa: PTH110 - a dozen stats, no objects
        return True
    folders = [folder for folder in env.get("LD_LIBRARY_PATH", "").split(":") if folder]
    return any(Path(folder, "libnvidia-ml.so.1").exists() for folder in folders) or bool(shutil.which("nvidia-smi"))

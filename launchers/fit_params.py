"""The other way to a dry run: llama.cpp's own `llama-fit-params -fitp on`, where only the programs are installed.

It prints MiB per device and reserves logits for the whole batch, so its compute column is larger than what
llama-server will take; the host row lacks CPU_REPACK (common/fit.cpp:78-97). Kept for machines without the library.
"""

import os
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final

from glmplan.breakdown import SIZED_UNPACKED, Breakdown, BufferType
from glmplan.engine import Engine, engine_environment
from glmplan.placement import Placement
from glmplan.units import MIB

_TIMEOUT_S: Final = 30.0
_ABORTED: Final = "llama-fit-params: aborted while sizing this configuration"
_ROW: Final = re.compile(r"^(?P<name>\S+)\s+(?P<model>\d+)\s+(?P<context>\d+)\s+(?P<compute>\d+)\s*$", re.MULTILINE)


def program_beside(engine: Engine) -> Path | None:
    """`llama-fit-params` in the folder of a llama-server."""
    found = Path(engine.path).with_name("llama-fit-params")
    return found if found.is_file() else None


def ask(program: Path, engine: Engine, placement: Placement, model: str) -> Breakdown:
    """The program's table for `placement`, in bytes of whole MiB; its complaint as `refusal`."""
    answer = _ask(program, engine, placement, model)
    if answer.refusal == _ABORTED and placement.repack:
        again = _ask(program, engine, replace(placement, repack=False), model)
        return replace(again, note=SIZED_UNPACKED) if again.refusal is None else answer
    return answer


def _ask(program: Path, engine: Engine, placement: Placement, model: str) -> Breakdown:
    argv = [str(program), "-m", model, "-fitp", "on", "--fit", "off", "-c", str(placement.n_ctx)]
    argv += ["-b", str(placement.n_batch), "-ub", str(placement.n_ubatch), "-np", str(placement.n_parallel)]
    argv += ["-ngl", str(placement.n_gpu_layers), "-fa", placement.flash_attn.value]
    argv += ["-ctk", placement.cache_type_k, "-ctv", placement.cache_type_v]
    argv += ["-ncmoe", str(placement.n_cpu_moe)] if placement.n_cpu_moe else []
    argv += ["--no-repack"] if not placement.repack else []
    argv += ["-ts", ",".join(f"{share:g}" for share in placement.tensor_split)] if placement.tensor_split else []
    for override in placement.override_tensor:
        argv += ["-ot", f"{override.pattern}={override.buffer}"]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    environment.update(engine_environment(engine, os.environ))
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Breakdown(refusal=f"llama-fit-params: {error}")
    if done.returncode == -signal.SIGABRT:
        return Breakdown(refusal=_ABORTED)
    rows = [match.groupdict() for match in _ROW.finditer(done.stdout)]
    if done.returncode or not rows:
        lines = [line for line in done.stderr.splitlines() if " E " in line or "error" in line.lower()]
        return Breakdown(refusal=f"llama-fit-params: {lines[-1].strip() if lines else f'exit {done.returncode}'}")
    return Breakdown(buffers=_buffers(rows))


def _buffers(rows: list[dict[str, str]]) -> tuple[BufferType, ...]:
    found: list[BufferType] = []
    for row in rows:
        device = None if row["name"] == "Host" else len([buffer for buffer in found if buffer.device is not None])
        found.append(
            BufferType(
                name=row["name"],
                device=device,
                model_bytes=int(row["model"]) * MIB,
                context_bytes=int(row["context"]) * MIB,
                compute_bytes=int(row["compute"]) * MIB,
            )
        )
    return tuple(found)

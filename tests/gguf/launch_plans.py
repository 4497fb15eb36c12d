"""Plans made by hand, for tests of launching: tests of planning make theirs with the planner."""

import dataclasses
from pathlib import Path
from typing import Any

from glmplan.engine import EngineKind
from glmplan.estimate import Basis, Estimate, SpeedEstimate
from glmplan.placement import FlashAttention, Placement
from glmplan.plan import Plan, PlannedDevice, PlannedMachine, PlannedMemory, PlannedModel, PlannedWorkload
from glmplan.workload import Objective


def placement_of(kind: EngineKind, **knobs: Any) -> Placement:
    """A small CPU placement, with some knobs turned."""
    base = Placement(
        engine=kind,
        n_ctx=2048,
        n_gpu_layers=0,
        n_cpu_moe=0,
        n_batch=512,
        n_ubatch=128,
        cache_type_k="f16",
        cache_type_v="f16",
        flash_attn=FlashAttention.ON,
        n_threads=2,
        n_threads_batch=2,
        use_mmap=True,
        use_mlock=False,
    )
    return dataclasses.replace(base, **knobs)


def plan_of(model: Path, kind: EngineKind, *, file_bytes: int | None = None, **knobs: Any) -> Plan:
    """A plan for the file `model`; `file_bytes` when it is not to be asked for its size."""

    def assumed(value: float) -> Estimate:
        return Estimate(value=value, low=value / 2, high=value * 2, basis=Basis.ASSUMED)

    host = PlannedDevice(
        id="host",
        usable_bytes=2**30,
        weights_bytes=1_300_224,
        kv_cache_bytes=1_179_648,
        compute_bytes=1_700_000,
        overhead_bytes=0,
        margin_bytes=2**30 - 4_179_872,
    )
    return Plan(
        glmplan_version="0.1.0",
        created_at="2026-01-01T00:00:00Z",
        machine=PlannedMachine(
            fingerprint="0123456789abcdef", os="Linux", cpu="test", host_memory_bytes=2**33, gpus=()
        ),
        model=PlannedModel(
            name="tiny",
            architecture="deepseek2",
            file=str(model),
            file_bytes=model.stat().st_size if file_bytes is None else file_bytes,
            quantization="F32",
            n_layer=3,
            n_ctx_train=8192,
            synthetic=True,
        ),
        workload=PlannedWorkload(prompt_tokens=128, output_tokens=32, n_parallel=1, objective=Objective.BALANCED),
        placement=placement_of(kind, **knobs),
        memory=PlannedMemory(devices=(host,), basis="roofline"),
        speed=SpeedEstimate(
            depth_tokens=0,
            prefill_tokens_per_s=assumed(1000.0),
            decode_tokens_per_s=assumed(100.0),
            ttft_ms=assumed(128.0),
            tpot_ms=assumed(10.0),
        ),
        reasons=(),
        warnings=(),
    )

"""Plans for tests of exporting: all on a GPU, experts in main memory by layer and by tensor, and a CPU alone."""

import dataclasses
from pathlib import Path
from typing import Any, TypeGuard

from launch_plans import plan_of

from glmplan.engine import EngineKind
from glmplan.launchers.export.exported import ExportRequest
from glmplan.launchers.launch import Endpoint
from glmplan.placement import TensorOverride
from glmplan.plan import Plan, PlannedGpu, PlannedMachine
from glmplan.units import GIB, MIB

MODEL = Path("/models/GLM-4.7-Flash-Q4_K_M.gguf")
MODEL_BYTES = 18_312_339_776


def _plan(gpus: dict[str, int], system: str, **knobs: Any) -> Plan:
    """A plan of the real model on a machine with these GPUs, by name and GiB."""
    base = plan_of(MODEL, EngineKind.LLAMA_SERVER, file_bytes=MODEL_BYTES, **knobs)
    planned = tuple(
        PlannedGpu(id=f"gpu{index}", name=name, memory_total_bytes=size * GIB)
        for index, (name, size) in enumerate(gpus.items())
    )
    machine = PlannedMachine(
        fingerprint="0123456789abcdef", os=system, cpu="AMD EPYC", host_memory_bytes=64 * GIB, gpus=planned
    )
    model = dataclasses.replace(
        base.model, name="glm-4.7-flash", quantization="q4_K_M", n_layer=47, n_ctx_train=202752, synthetic=False
    )
    host = dataclasses.replace(base.memory.devices[0], usable_bytes=60 * GIB, margin_bytes=40 * GIB)
    memory = dataclasses.replace(base.memory, devices=(host,))
    return dataclasses.replace(base, machine=machine, model=model, memory=memory)


def full_gpu(**knobs: Any) -> Plan:
    """All 48 layers on one GPU."""
    base: dict[str, Any] = {
        "n_ctx": 65536, "n_gpu_layers": 48, "n_batch": 2048, "n_ubatch": 512, "n_threads": 8, "n_threads_batch": 8,
        "cache_ram_bytes": 2048 * MIB,
    }  # fmt: skip
    return _plan({"NVIDIA GeForce RTX 5090": 32}, "Linux", **{**base, **knobs})


def hybrid(**knobs: Any) -> Plan:
    """All layers on the GPU, the experts of 12 in main memory, a quantised KV cache."""
    base: dict[str, Any] = {
        "n_ctx": 131072, "n_gpu_layers": 48, "n_cpu_moe": 12, "cache_type_k": "q8_0", "cache_type_v": "q8_0",
        "n_batch": 2048, "n_ubatch": 512, "n_threads": 8, "n_threads_batch": 8,
    }  # fmt: skip
    return _plan({"NVIDIA GeForce RTX 4060 Ti": 16}, "Linux", **{**base, **knobs})


def cpu_only(**knobs: Any) -> Plan:
    """Everything in main memory."""
    base: dict[str, Any] = {
        "n_ctx": 32768, "n_batch": 2048, "n_ubatch": 512, "repack": False, "n_threads": 2, "n_threads_batch": 2,
    }  # fmt: skip
    return _plan({}, "Linux Debian GNU/Linux 12 (bookworm)", **{**base, **knobs})


def by_tensor(**knobs: Any) -> Plan:
    """All layers on the GPU, experts in main memory by tensor, as the planner writes it: 21 layers, one in part."""
    layers = "1|2|3|4|7|10|13|16|19|22|25|28|31|34|37|40|41|42|43|45"
    overrides = (
        TensorOverride(pattern=rf"blk\.({layers})\.ffn_(gate|up|down)_exps"),
        TensorOverride(pattern=r"blk\.(44)\.ffn_(down)_exps"),
    )
    base: dict[str, Any] = {
        "n_ctx": 98304, "n_gpu_layers": 48, "override_tensor": overrides, "n_batch": 2048, "n_ubatch": 544,
        "n_threads": 8, "n_threads_batch": 8, "use_mmap": False,
    }  # fmt: skip
    return _plan({"NVIDIA GeForce RTX 4060 Ti": 16}, "Linux", **{**base, **knobs})


PLANS = {"full-gpu": full_gpu, "hybrid-experts": hybrid, "cpu-only": cpu_only, "experts-by-tensor": by_tensor}


def request_of(plan: Plan, *, port: int = 8080, api_key_file: str | None = None, **wanted: Any) -> ExportRequest:
    """A request for `plan` on the loopback address."""
    return ExportRequest(plan=plan, endpoint=Endpoint(port=port, api_key_file=api_key_file), **wanted)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[Any]]:
    """Whether a JSON value is an array."""
    return isinstance(value, list)


def with_file(plan: Plan, file: str, file_bytes: int | None = None) -> Plan:
    """`plan` for another model file."""
    size = plan.model.file_bytes if file_bytes is None else file_bytes
    return dataclasses.replace(plan, model=dataclasses.replace(plan.model, file=file, file_bytes=size))

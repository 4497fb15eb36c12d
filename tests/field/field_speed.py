"""Published speeds of the model, each with the configuration it stands for and the terms our model has for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from glmplan.engine import EngineKind
from glmplan.estimate import Estimate
from glmplan.machine import Gpu
from glmplan.model import ModelProfile
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import GpuKind, GpuSpace, HostSpace, Spaces
from glmplan.planner.speed import SpeedModel, Term
from glmplan.profiles.device_rows import Device, all_devices
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.speed_classes import SpeedClasses, gpu_class, usable_flops_per_s
from glmplan.profiles.store import parse_yaml, shipped
from glmplan.speed_class import DeviceSpeed, MachineSpeed
from glmplan.units import GIB

FIELD: Final = Path(__file__).parent
_ROOM: Final = 1 << 50
_PCIE_ASSUMED_GB_S: Final = 25.0
_N_CTX: Final = 202_752


@dataclass(frozen=True, slots=True)
class Observation:
    """One published number: `kind` is decode or prefill; `mean_depth` the context its tokens saw on average."""

    kind: str
    run: Mapping[str, Any]
    depth: int
    mean_depth: float
    prompt_tokens: int
    tokens_per_s: float

    @property
    def source(self) -> str:
        """The author; runs of one author are left out together."""
        return str(self.run["source"])

    def counts(self, what: str) -> bool:
        """Whether it is `judged` or used to `fit`."""
        own = self.run.get(self.kind, {})
        return bool(self.run.get(what, True) and own.get(what, True))

    @property
    def why_not(self) -> str:
        """Why it does not count."""
        return str(self.run.get(self.kind, {}).get("why") or self.run.get("why", ""))


@cache
def read(name: str) -> Any:
    """A YAML document of this folder."""
    return parse_yaml((FIELD / name).read_text("utf-8"), origin=name)


def observations() -> list[Observation]:
    """Every published number whose hardware is named."""
    found: list[Observation] = []
    for run in read("speed.yaml")["runs"]:
        if not run["devices"] and "host" not in run:
            continue
        for point in run["points"]:
            depth = int(point["depth"])
            if "tg" in point:
                found.append(Observation("decode", run, depth, depth, 0, float(point["tg"])))
            if "pp" in point:
                prompt = int(point["prompt"])
                found.append(Observation("prefill", run, depth, depth + prompt / 2, prompt, float(point["pp"])))
    return found


def unnamed_runs() -> list[Mapping[str, Any]]:
    """Runs whose hardware is not named."""
    return [run for run in read("speed.yaml")["runs"] if not run["devices"] and "host" not in run]


@cache
def catalog_gpu(device_id: str) -> Gpu:
    """The catalog row as a GPU."""
    row: Device = {device.id: device for device in all_devices()}[device_id]
    return Gpu(
        id="gpu0",
        name=row.name,
        vendor=row.vendor,
        uuid=None,
        memory_total_bytes=None,
        memory_free_bytes=None,
        memory_usable_bytes=None,
        bandwidth_bytes_per_s=row.bandwidth_bytes_per_s,
        compute_capability=row.compute_capability,
        catalog_id=row.id,
        peak_flops_per_s=row.peak_flops_per_s,
    )


def device_speed(classes: SpeedClasses, index: int, device: str | Mapping[str, Any], runtime: str) -> DeviceSpeed:
    """A device of a run: a catalog id, or its peaks and class."""
    if not isinstance(device, str):
        peaks = (float(device["bandwidth_gb_s"]) * 1e9, float(device["fp16_tflops"]) * 1e12)
        return classes.device(f"gpu{index}", str(device["class"]), bandwidth=peaks[0], flops=peaks[1])
    gpu = catalog_gpu(device)
    flops = usable_flops_per_s(gpu)
    assert gpu.bandwidth_bytes_per_s is not None, device
    assert flops is not None, device
    name = gpu_class(gpu, runtime=runtime)
    return classes.device(f"gpu{index}", name, bandwidth=float(gpu.bandwidth_bytes_per_s), flops=flops)


def machine_of(run: Mapping[str, Any], classes: SpeedClasses) -> MachineSpeed:
    """Speeds of the run's machine; a host nobody described does not matter to it."""
    host = run.get("host", {"bandwidth_gb_s": 50.0, "isa": "avx2", "cores": 8})
    per_core = shipped("speeds", "hardware.yaml")["cpu"]["flops_per_core"]
    return classes.machine(
        tuple(device_speed(classes, i, device, str(run["engine"])) for i, device in enumerate(run["devices"])),
        classes.host(float(host["bandwidth_gb_s"]) * 1e9, float(per_core[host["isa"]]), int(host["cores"])),
        pcie_bytes_per_s=float(run.get("pcie_gb_s", _PCIE_ASSUMED_GB_S)) * 1e9,
    )


@cache
def profile(recipe: str, n_layers: int | None) -> ModelProfile:
    """The recipe's profile, cut after `n_layers` layers."""
    whole = catalog_profile(recipe)
    if n_layers is None:
        return whole
    kept = [t for t in whole.tensors if not t.name.startswith("blk.") or int(t.name.split(".")[1]) < n_layers]
    return replace(whole, n_layer=n_layers, tensors=tuple(kept))


@cache
def _memory(recipe: str, n_layers: int | None, n_gpus: int) -> MemoryModel:
    room = tuple(GpuSpace(id=f"gpu{i}", kind=GpuKind.CUDA, usable_bytes=_ROOM, free_bytes=_ROOM) for i in range(n_gpus))
    return MemoryModel(profile(recipe, n_layers), Spaces(gpus=room, host=HostSpace(usable_bytes=_ROOM)))


def speed_model(run: Mapping[str, Any], classes: SpeedClasses) -> SpeedModel:
    """The product's model of a run's machine and file."""
    file = run["file"]
    memory = _memory(str(file["recipe"]), run.get("layers"), len(run["devices"]))
    scale = float(file["gib"]) * GIB / memory.model.tensor_bytes if "gib" in file else 1.0
    return SpeedModel(memory, machine_of(run, classes), file_scale=scale)


def placement_of(run: Mapping[str, Any], n_layers: int) -> Placement:
    """The run's settings; what a source leaves out is llama.cpp's default."""
    cache_type = str(run.get("cache", "f16"))
    n_gpus, ubatch = len(run["devices"]), int(run.get("ubatch", 512))
    split = run.get("split") or [(n_layers + 1 + i) // n_gpus for i in reversed(range(n_gpus))]
    assert not n_gpus or sum(split) == n_layers + 1, run["source"]
    return Placement(
        engine=EngineKind.LLAMA_SERVER,
        n_ctx=_N_CTX,
        n_gpu_layers=n_layers + 1 if n_gpus else 0,
        n_cpu_moe=int(run.get("n_cpu_moe", 0)),
        n_batch=max(2048, ubatch),
        n_ubatch=ubatch,
        cache_type_k=cache_type,
        cache_type_v=cache_type,
        flash_attn=FlashAttention.ON if fused(run) else FlashAttention.OFF,
        n_threads=8,
        n_threads_batch=8,
        use_mmap=True,
        use_mlock=False,
        tensor_split=tuple(float(share) for share in split),
        repack=bool(run.get("repack", True)),
    )


def fused(run: Mapping[str, Any]) -> bool:
    """Whether flash attention ran; llama.cpp's `auto` finds none for this model on Vulkan and ROCm."""
    if run["flash_attn"] != "unknown":
        return bool(run["flash_attn"] == "on")
    return not any(isinstance(device, Mapping) for device in run["devices"])


def _asked(seen: Observation, classes: SpeedClasses) -> tuple[SpeedModel, Placement]:
    n_layers = profile(str(seen.run["file"]["recipe"]), seen.run.get("layers")).n_layer
    return speed_model(seen.run, classes), placement_of(seen.run, n_layers)


def terms_of(seen: Observation, classes: SpeedClasses) -> list[Term]:
    """Terms of the time of one token."""
    model, placement = _asked(seen, classes)
    if seen.kind == "decode":
        return model.decode_terms(placement, seen.depth)
    return model.prefill_terms(placement, seen.mean_depth, min(placement.n_ubatch, seen.prompt_tokens))


def predicted(seen: Observation, classes: SpeedClasses) -> Estimate:
    """What the product says, in tokens per second."""
    model, placement = _asked(seen, classes)
    if seen.kind == "decode":
        return model.decode(placement, depth_tokens=seen.depth)
    return model.prefill(placement, mean_depth_tokens=seen.mean_depth, prompt_tokens=seen.prompt_tokens)

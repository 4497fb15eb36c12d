"""The speed factors of a machine: peaks as observed, factors by class of device.

`classes.yaml` is fitted to published figures (scripts/accuracy.py), `hardware.yaml` says which class a device is of.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from glmplan.estimate import Basis
from glmplan.machine import Gpu, HostMemory, Machine, Vendor
from glmplan.profiles.store import shipped
from glmplan.speed_class import DeviceSpeed, Factor, HybridSpeed, MachineSpeed, SpeedFactors

_APPLE_CHIP: Final = re.compile(r"\bm(\d+)\b", re.IGNORECASE)
_MLX: Final = "mlx-lm"


def machine_speed(machine: Machine, gpus: tuple[Gpu, ...], *, runtime: str = "llama.cpp") -> MachineSpeed:
    """Factors for the planned `gpus` and the host of `machine` under one runtime."""
    fitted, rules = SpeedClasses(shipped("speeds", "classes.yaml")), _rules()
    host = fitted.host(*_host_peaks(machine, rules))
    devices = tuple(_gpu(fitted, index, gpu, rules, runtime) for index, gpu in enumerate(gpus))
    return fitted.machine(devices, host, pcie_bytes_per_s=_pcie_bytes_per_s(gpus, rules))


class SpeedClasses:
    """A document of fitted factors (`profiles/speeds/classes.yaml`), asked by class."""

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        """Take a parsed document."""
        self._fitted = fitted

    def device(
        self, device_id: str, name: str, *, bandwidth: float, flops: float, cores: int = 0, widened: float = 1.0
    ) -> DeviceSpeed:
        """A device of the class `name`.

        Args:
            device_id: `gpu0`, ..., or `host`.
            name: a class of the document.
            bandwidth: peak bytes per second.
            flops: peak dense FLOP/s as llama.cpp's kernels accumulate.
            cores: of a CPU, the threads that compute; 0 for a GPU.
            widened: how much wider a range gets because a peak is assumed; the basis then is `assumed`.
        """
        facts = self._fitted["classes"][name]
        bases = [Basis(facts[kind]["basis"]) if widened == 1.0 else Basis.ASSUMED for kind in ("decode", "prefill")]
        return DeviceSpeed(
            id=device_id,
            speed_class=name,
            bandwidth_bytes_per_s=bandwidth,
            flops_per_s=flops,
            factors=SpeedFactors(**{key: _factor(pair) for key, pair in facts["factors"].items()}),
            basis_decode=bases[0],
            basis_prefill=bases[1],
            launches=float(min(cores, _rules()["cpu"]["most_waiting_threads"])) if cores else 1.0,
            context_by_math=cores > 0,
            machine_deviation_decode=float(facts["decode"]["machine_deviation"]),
            machine_deviation_prefill=float(facts["prefill"]["machine_deviation"]),
            least_spread_decode=float(facts["decode"]["least_spread"]) * widened,
            least_spread_prefill=float(facts["prefill"]["least_spread"]) * widened,
        )

    def host(self, bandwidth: float, flops_per_core: float, cores: int, widened: float = 1.0) -> DeviceSpeed:
        """The CPU with `cores` threads."""
        flops = flops_per_core * cores
        return self.device("host", "cpu", bandwidth=bandwidth, flops=flops, cores=cores, widened=widened)

    def machine(self, gpus: tuple[DeviceSpeed, ...], host: DeviceSpeed, *, pcie_bytes_per_s: float) -> MachineSpeed:
        """Devices together, with the ways between them."""
        ways, run, pcie = self._fitted["hybrid"], self._fitted["run_deviation"], _rules()["pcie"]

        def rate(kind: str) -> float:
            of_host = float(pcie[kind]["of_host"]) * host.bandwidth_bytes_per_s
            return min(float(pcie[kind]["of_pcie"]) * pcie_bytes_per_s, of_host)

        return MachineSpeed(
            gpus=gpus,
            host=host,
            hybrid=HybridSpeed(
                sync_ms=_factor(ways["sync_ms"]),
                staged_mapped=_factor(ways["staged_mapped"]),
                staged_pinned=_factor(ways["staged_pinned"]),
                mapped_bytes_per_s=rate("mapped"),
                pinned_bytes_per_s=rate("pinned"),
            ),
            run_deviation_decode=float(run["decode"]),
            run_deviation_prefill=float(run["prefill"]),
            context_deviation=float(run["context"]),
        )


def _factor(pair: tuple[float, float]) -> Factor:
    return Factor(value=float(pair[0]), deviation=float(pair[1]))


def _rules() -> Mapping[str, Any]:
    return shipped("speeds", "hardware.yaml")


def gpu_class(gpu: Gpu, *, runtime: str = "llama.cpp") -> str:
    """The class of speed factors a GPU belongs to."""
    rules = _rules()
    if gpu.vendor is Vendor.NVIDIA:
        classes: Mapping[str, str] = rules["nvidia"]["classes"]
        return classes.get(gpu.compute_capability or "", str(rules["nvidia"]["unknown"]))
    if gpu.vendor is Vendor.APPLE:
        found = _APPLE_CHIP.search((gpu.catalog_id or gpu.name).replace("-", " "))
        chips: Mapping[str, str] = rules["apple"]["classes"]
        chip = chips.get(found[1], str(rules["apple"]["unknown"])) if found else rules["apple"]["unknown"]
        return f"{'mlx' if runtime == _MLX else 'metal'}-{chip}"
    return str(rules["other"])


def usable_flops_per_s(gpu: Gpu) -> float | None:
    """Peak FLOP/s with fp32 accumulation, as llama.cpp's kernels run; None where the peak is not known."""
    if gpu.peak_flops_per_s is None:
        return None
    rules = _rules()["nvidia"]
    name = f"{gpu.catalog_id or ''} {gpu.name}".lower()
    full = gpu.vendor is Vendor.NVIDIA and gpu.compute_capability in rules["full_rate_capabilities"]
    halved = full and not any(word in name for word in rules["half_rate_names"])
    return gpu.peak_flops_per_s * (0.5 if halved else 1.0)


def _gpu(fitted: SpeedClasses, index: int, gpu: Gpu, rules: Mapping[str, Any], runtime: str) -> DeviceSpeed:
    assumed = rules["assumed"]
    bandwidth = float(gpu.bandwidth_bytes_per_s or assumed["gpu_bandwidth_bytes_per_s"])
    flops = usable_flops_per_s(gpu) or bandwidth * float(assumed["flops_per_bandwidth_byte"][gpu.vendor.value])
    known = gpu.bandwidth_bytes_per_s is not None and gpu.peak_flops_per_s is not None
    return fitted.device(
        f"gpu{index}",
        gpu_class(gpu, runtime=runtime),
        bandwidth=bandwidth,
        flops=flops,
        widened=1.0 if known else float(assumed["spread"]),
    )


def _host_peaks(machine: Machine, rules: Mapping[str, Any]) -> tuple[float, float, int, float]:
    """Peak bandwidth, FLOP/s per core, cores, and how much wider a range gets for what is assumed of them."""
    cores = max(1, min(machine.cpu.usable_cores, machine.cpu.physical_cores or machine.cpu.usable_cores))
    features = {feature.lower() for feature in machine.cpu.features}
    known: Mapping[str, str] = rules["cpu"]["features"]
    isa = next((name for flag, name in known.items() if flag in features), "other")
    bandwidth = _peak_bandwidth(machine.memory, float(rules["cpu"]["copy_share_of_peak"]))
    assumed = bandwidth is None or (machine.memory.bandwidth_source or "").startswith("assumed")
    widened = float(rules["assumed"]["spread"]) if assumed else 1.0
    per_core = float(rules["cpu"]["flops_per_core"][isa])
    return bandwidth or float(rules["assumed"]["host_bandwidth_bytes_per_s"]), per_core, cores, widened


def _peak_bandwidth(memory: HostMemory, copy_share: float) -> float | None:
    if memory.bandwidth_bytes_per_s is None:
        return None
    copied = (memory.bandwidth_source or "").startswith("measured")
    return memory.bandwidth_bytes_per_s / (copy_share if copied else 1.0)


def _pcie_bytes_per_s(gpus: tuple[Gpu, ...], rules: Mapping[str, Any]) -> float:
    """Rate of the first GPU's link, which stages experts."""
    link = gpus[0].pcie if gpus else None
    if link is None or link.generation is None or link.width is None:
        return float(rules["pcie"]["assumed_bytes_per_s"])
    lanes: Mapping[int, float] = rules["pcie"]["lane_bytes_per_s"]
    return float(lanes.get(link.generation, lanes[max(lanes)])) * link.width

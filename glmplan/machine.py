"""What a computer is, as far as a plan depends on it.

`None` always means "not known"; a `ProbeNote` then says why. Bytes are integers, rates are per second.
The JSON of `Machine` is the contract's `glmplan/machine/1`.
"""

from enum import StrEnum
from typing import Final, Literal

from glmplan.noun import noun

MACHINE_SCHEMA: Final = "glmplan/machine/1"


class Vendor(StrEnum):
    """Who made a GPU."""

    NVIDIA = "nvidia"
    APPLE = "apple"
    AMD = "amd"
    INTEL = "intel"


@noun
class OperatingSystem:
    """The system glmplan runs on; `container` when a container or cgroup namespace was seen.

    `runs_under` is `wsl2`, `rosetta` or `virtual-mac` where the machine is not what it seems.
    """

    system: str
    version: str | None
    container: bool
    runs_under: str | None = None
    machine_model: str | None = None


@noun
class CoreKind:
    """Cores of one kind under the system's own name for it: Super, Performance, Efficiency."""

    name: str
    physical_cores: int


@noun
class Cpu:
    """The processor; `usable_cores` honours affinity and cgroup quotas, `features` are ISA flags."""

    name: str | None
    physical_cores: int | None
    usable_cores: int
    features: tuple[str, ...] = ()
    logical_cores: int | None = None
    performance_cores: int | None = None
    architecture: str | None = None
    core_kinds: tuple[CoreKind, ...] = ()


@noun
class HostMemory:
    """Main memory; `limit_bytes` is the tightest cgroup limit, `available_bytes` what can be used now.

    `available_optimistic_bytes` is a second, generous reading of the same moment where the system has two.
    """

    total_bytes: int | None
    limit_bytes: int | None
    available_bytes: int | None
    bandwidth_bytes_per_s: int | None
    unified: bool = False
    bandwidth_source: str | None = None
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    numa_nodes: int | None = None
    available_optimistic_bytes: int | None = None
    huge_pages_bytes: int | None = None


@noun
class PcieLink:
    """The widest link the card and the slot agree on (not the idle state)."""

    generation: int | None
    width: int | None


@noun
class GpuProcess:
    """A process that holds memory of a GPU; `memory_bytes` is unknown under Windows drivers."""

    pid: int
    name: str | None
    memory_bytes: int | None


@noun
class Gpu:
    """One device an engine can place tensors on.

    `memory_usable_bytes` is what a new process may take: free memory, or Metal's working-set limit.
    `memory_limit_bytes` is that working-set limit itself; `peak_flops_per_s` the dense fp16/bf16 matrix rate.
    """

    id: str
    name: str
    vendor: Vendor
    uuid: str | None
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    memory_usable_bytes: int | None
    bandwidth_bytes_per_s: int | None
    compute_capability: str | None = None
    driver: str | None = None
    pcie: PcieLink | None = None
    unified: bool = False
    mig: bool = False
    cores: int | None = None
    catalog_id: str | None = None
    memory_limit_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_source: str | None = None
    bandwidth_source: str | None = None
    peak_flops_per_s: int | None = None
    bus_id: str | None = None
    cuda_version: str | None = None
    nvlink_links: int | None = None
    ecc: bool | None = None
    power_limit_watts: float | None = None
    display_active: bool | None = None
    processes: tuple[GpuProcess, ...] = ()


@noun
class Disk:
    """The file system models live on; `kind` is nvme, ssd, hdd, network or virtual."""

    path: str
    free_bytes: int | None
    total_bytes: int | None
    rotational: bool | None = None
    kind: str | None = None


@noun
class EngineFound:
    """An inference engine present on the machine."""

    kind: str
    path: str
    version: str | None
    build: str | None
    backends: tuple[str, ...] = ()


@noun
class ModelFile:
    """A model file already on this machine, in some tool's store."""

    path: str
    quantization: str | None
    bytes: int
    store: str


@noun
class ProbeNote:
    """Why a field is not known, or what to beware of, and what would change it."""

    probe: str
    field: str
    why: str
    hint: str = ""


@noun
class Machine:
    """Everything observed about one computer."""

    schema: Literal["glmplan/machine/1"] = MACHINE_SCHEMA
    os: OperatingSystem
    cpu: Cpu
    memory: HostMemory
    gpus: tuple[Gpu, ...] = ()
    disk: Disk | None = None
    engines: tuple[EngineFound, ...] = ()
    models: tuple[ModelFile, ...] = ()
    notes: tuple[ProbeNote, ...] = ()
    source: str = "observed"

"""The ledger beside the engine's log, line by line: what is equal, what is a bound, and what only one side has."""

import dataclasses
from pathlib import Path

import pytest
from launch_plans import plan_of

from glmplan.engine import EngineKind
from glmplan.estimate import Basis
from glmplan.launchers.load_log import parse
from glmplan.measurement import ROUNDING_BYTES, BufferSize, MemoryReport
from glmplan.plan import Plan, PlannedDevice, PlannedMemory
from glmplan.planner.ledger_lines import device_of, ledger_lines
from glmplan.proof import LedgerLine, LedgerPart, RoundTrip
from glmplan.render.proof import warnings_of
from glmplan.units import GIB, MIB

UNTRIED = (RoundTrip(passed=None, why="-"),) * 2
# What llama-server prints for a split over two cards with everything offloaded, mapped: the shape of published logs
# (tests/unit/test_launch_load_log.py), the sizes those of the ledger below.
TWO_CARDS = """\
load_tensors: offloaded 48/48 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   170.16 MiB
load_tensors:        CUDA0 model buffer size = 10000.50 MiB
load_tensors:        CUDA1 model buffer size =  7113.18 MiB
llama_context: constructing llama_context
llama_context:  CUDA_Host  output buffer size =     0.59 MiB
llama_kv_cache:      CUDA0 KV buffer size =   108.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   103.50 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
sched_reserve:      CUDA1 compute buffer size =   310.25 MiB
sched_reserve:  CUDA_Host compute buffer size =    20.01 MiB
"""


def device(name: str, weights: float, kv: float, compute: float, overhead: float) -> PlannedDevice:
    """A row of the ledger in MiB, 1 GiB free beside it."""
    parts = [round(part * MIB) for part in (weights, kv, compute, overhead)]
    return PlannedDevice(
        id=name,
        usable_bytes=sum(parts) + GIB,
        weights_bytes=parts[0],
        kv_cache_bytes=parts[1],
        compute_bytes=parts[2],
        overhead_bytes=parts[3],
        margin_bytes=GIB,
    )


def plan_with(*devices: PlannedDevice, basis: str = "roofline", **knobs: object) -> Plan:
    plan = plan_of(Path("/models/one.gguf"), EngineKind.LLAMA_SERVER, file_bytes=18 * GIB, **knobs)
    model = dataclasses.replace(plan.model, n_layer=47)
    return dataclasses.replace(plan, model=model, memory=PlannedMemory(devices=devices, basis=basis))


CARDS = (
    device("gpu0", 10000.5, 108, 298, 614),
    device("gpu1", 7113.18, 103.5, 310.25, 614),
    device("host", 170.16, 0, 20.01, 256),
)
OFFLOADED = plan_with(*CARDS, n_gpu_layers=48)


def found(lines: tuple[LedgerLine, ...], name: str, part: LedgerPart) -> LedgerLine:
    return next(line for line in lines if (line.device, line.part) == (name, part))


def two_cards(*, without: str = "", instead: str = "") -> MemoryReport:
    """The log with one of its lines taken out, or another in its place."""
    kept = [line for line in TWO_CARDS.splitlines() if not without or without not in line]
    return parse([*kept, instead])


@pytest.mark.parametrize(
    ("buffer", "device_id"),
    [
        ("CUDA0", "gpu0"), ("CUDA1", "gpu1"), ("CUDA_Host", "host"), ("CPU", "host"), ("CPU_Mapped", "host"),
        ("CPU_REPACK", "host"), ("AMX", "host"), ("MTL0", "gpu0"), ("MTL0_Mapped", "gpu0"), ("Metal", "gpu0"),
        ("Metal_Mapped", "gpu0"), ("Vulkan1", "gpu1"), ("Vulkan_Host", "host"), ("ROCm0", "gpu0"),
        ("ROCm_Host", "host"), ("SYCL0", "gpu0"), ("BLAS", "host"),
    ],
)  # fmt: skip
def test_buffers_belong_to_the_ledgers_devices(buffer: str, device_id: str) -> None:
    assert device_of(buffer) == device_id


def test_every_line_of_every_device_has_both_sides_or_says_why_not() -> None:
    lines = ledger_lines(OFFLOADED, two_cards(), 700 * MIB)
    shown = [(line.device, line.part.value) for line in lines]
    assert shown == [
        ("gpu0", "weights"), ("gpu0", "kv_cache"), ("gpu0", "compute"), ("gpu0", "overhead"),
        ("gpu1", "weights"), ("gpu1", "kv_cache"), ("gpu1", "compute"), ("gpu1", "overhead"),
        ("host", "weights"), ("host", "kv_cache"), ("host", "compute"), ("host", "logits"), ("host", "overhead"),
        ("host", "resident_set"),
    ]  # fmt: skip
    for line in lines:
        assert (line.difference_bytes is None) == (line.forecast_bytes is None or line.measured_bytes is None)
        assert line.why or line.within_range is not None, line
        assert (line.basis is None) == (line.forecast_bytes is None)
    compute = found(lines, "gpu0", LedgerPart.COMPUTE)
    assert (compute.difference_bytes, compute.within_range) == (2 * MIB, True)
    assert compute.difference_ratio == pytest.approx(2 / 298)
    assert found(lines, "host", LedgerPart.KV_CACHE).why == "no KV cache buffer on host, as planned"
    assert found(lines, "host", LedgerPart.KV_CACHE).measured_bytes is None
    assert found(lines, "gpu0", LedgerPart.OVERHEAD).measured_bytes is None
    resident = found(lines, "host", LedgerPart.RESIDENT_SET)
    assert (resident.measured_bytes, resident.within_range) == (700 * MIB, None)
    assert "driver" in (resident.why or "")
    assert warnings_of(lines, OFFLOADED, UNTRIED) == ()


def test_beyond_the_range_is_said_with_what_was_left() -> None:
    more = two_cards(without="CUDA1 compute", instead="sched_reserve: CUDA1 compute buffer size =   330.25 MiB")
    lines = ledger_lines(OFFLOADED, more, None)
    line = found(lines, "gpu1", LedgerPart.COMPUTE)
    assert (line.within_range, line.difference_bytes) == (False, 20 * MIB)
    assert warnings_of(lines, OFFLOADED, UNTRIED) == (
        (
            "gpu1 compute: 330.2 MiB measured, 310.2 MiB forecast (+20.0 MiB, +6.4 %); the ledger states at most "
            "320.3 MiB; the plan had left 1.0 GiB free there"
        ),
    )
    assert found(lines, "host", LedgerPart.RESIDENT_SET).measured_bytes is None


def test_weights_and_caches_are_exact_but_for_the_rounding_of_the_log() -> None:
    for wrong, part in (("model", LedgerPart.WEIGHTS), ("KV", LedgerPart.KV_CACHE)):
        row = next(line for line in TWO_CARDS.splitlines() if f"CUDA1 {wrong} " in line)
        size = float(row.split()[-2])
        for off_mib, inside in ((0.0, True), (-0.1, False), (0.1, False)):
            changed = row.replace(f"{size:.2f}", f"{size + off_mib:.2f}")
            lines = ledger_lines(OFFLOADED, two_cards(without=f"CUDA1 {wrong} ", instead=changed), None)
            assert found(lines, "gpu1", part).within_range is inside
    edges = found(ledger_lines(OFFLOADED, two_cards(), None), "gpu0", LedgerPart.KV_CACHE)
    assert (edges.low_bytes, edges.high_bytes) == (108 * MIB - ROUNDING_BYTES, 108 * MIB + ROUNDING_BYTES)


def test_compute_is_an_upper_bound_of_a_stated_sharpness() -> None:
    line = found(ledger_lines(OFFLOADED, two_cards(), None), "gpu0", LedgerPart.COMPUTE)
    assert (line.low_bytes, line.high_bytes) == (None, 308 * MIB + ROUNDING_BYTES)
    partial = plan_with(*CARDS, n_gpu_layers=30)
    line = found(ledger_lines(partial, two_cards(), None), "gpu0", LedgerPart.COMPUTE)
    assert line.high_bytes == 298 * MIB + round(0.03 * 298 * MIB) + ROUNDING_BYTES
    asked = plan_with(*CARDS, n_gpu_layers=48, basis="measured")
    line = found(ledger_lines(asked, two_cards(), None), "gpu0", LedgerPart.COMPUTE)
    assert (line.high_bytes, line.within_range) == (298 * MIB + ROUNDING_BYTES, False)


def test_a_device_that_only_one_side_knows_is_a_warning() -> None:
    alone = plan_with(CARDS[0], CARDS[2], n_gpu_layers=48)
    lines = ledger_lines(alone, two_cards(), None)
    weights = found(lines, "gpu1", LedgerPart.WEIGHTS)
    assert (weights.forecast_bytes, weights.basis, weights.within_range) == (None, None, False)
    assert "gpu1 weights: 6.9 GiB measured, but the plan puts no weights on gpu1" in warnings_of(lines, alone, UNTRIED)
    idle = two_cards(without="CUDA1")
    lines = ledger_lines(OFFLOADED, idle, None)
    weights = found(lines, "gpu1", LedgerPart.WEIGHTS)
    assert (weights.measured_bytes, weights.within_range) == (None, False)
    wanted = "gpu1 weights: 6.9 GiB planned, but the engine's log names no weights buffer on gpu1"
    assert wanted in warnings_of(lines, OFFLOADED, UNTRIED)


def test_a_log_without_sizes_compares_nothing_and_warns_of_nothing() -> None:
    lines = ledger_lines(OFFLOADED, parse(["starting"]), 700 * MIB)
    parts = [line for line in lines if line.part in {LedgerPart.WEIGHTS, LedgerPart.KV_CACHE, LedgerPart.COMPUTE}]
    assert {(line.measured_bytes, line.within_range) for line in parts} == {(None, None)}
    assert {line.why for line in parts} == {"the engine's log names no buffer sizes"}
    assert warnings_of(lines, OFFLOADED, UNTRIED) == ()


def test_a_mapped_file_beside_a_gpu_is_a_span_that_holds_others_tensors_too() -> None:
    span = two_cards(without="CPU_Mapped", instead="load_tensors: CPU_Mapped model buffer size = 16000.00 MiB")
    line = found(ledger_lines(OFFLOADED, span, None), "host", LedgerPart.WEIGHTS)
    assert (line.within_range, line.high_bytes) == (True, 18 * GIB)
    read = two_cards(without="CPU_Mapped", instead="load_tensors: CPU model buffer size = 16000.00 MiB")
    assert found(ledger_lines(OFFLOADED, read, None), "host", LedgerPart.WEIGHTS).within_range is False


def host_log(*rows: tuple[str, str, float]) -> MemoryReport:
    return MemoryReport(
        buffers=tuple(BufferSize(device=name, kind=kind, n_bytes=round(mib * MIB)) for name, kind, mib in rows)
    )


ON_CPU = plan_with(device("host", 1000, 36, 90, 256))
BESIDE = (("CPU", "kv", 36.0), ("CPU", "compute", 88.0), ("CPU", "output", 0.59))


def test_repacked_copies_count_once_when_the_file_is_mapped_and_as_weights_when_it_is_not() -> None:
    mapped = ledger_lines(ON_CPU, host_log(("CPU_Mapped", "model", 1000), ("CPU_REPACK", "model", 700), *BESIDE), None)
    assert found(mapped, "host", LedgerPart.WEIGHTS).difference_bytes == 0
    copies = found(mapped, "host", LedgerPart.REPACKED)
    assert (copies.forecast_bytes, copies.measured_bytes) == (None, 700 * MIB)
    assert copies.why
    read = ledger_lines(ON_CPU, host_log(("CPU", "model", 300), ("CPU_REPACK", "model", 700), *BESIDE), None)
    assert found(read, "host", LedgerPart.WEIGHTS).difference_bytes == 0
    assert LedgerPart.REPACKED not in {line.part for line in read}
    # Repacked tensors at the ends of the file shorten the span that stays mapped.
    ends = ledger_lines(ON_CPU, host_log(("CPU_Mapped", "model", 600), ("CPU_REPACK", "model", 700), *BESIDE), None)
    assert found(ends, "host", LedgerPart.WEIGHTS).within_range is True


@pytest.mark.parametrize(
    ("use_mmap", "resident_mib", "inside"),
    [
        (True, 1300, True), (True, 100, True), (True, 30, False), (True, 2082, True), (True, 2083, False),
        (False, 1300, True), (False, 1000, False), (False, 1382, True), (False, 1383, False),
    ],
)  # fmt: skip
def test_the_resident_set_lies_between_what_must_be_there_and_what_may(
    use_mmap: bool, resident_mib: int, inside: bool
) -> None:
    plan = plan_with(device("host", 1000, 36, 90, 256), use_mmap=use_mmap)
    name = "CPU_Mapped" if use_mmap else "CPU"
    log = host_log((name, "model", 1000 if use_mmap else 300), ("CPU_REPACK", "model", 700), *BESIDE)
    line = found(ledger_lines(plan, log, resident_mib * MIB), "host", LedgerPart.RESIDENT_SET)
    assert (line.within_range, line.basis) == (inside, Basis.ASSUMED)
    assert line.forecast_bytes == 1382 * MIB


def test_tensors_that_were_assumed_are_compared_and_not_judged() -> None:
    plan = plan_with(*CARDS, n_gpu_layers=48, basis="assumed")
    lines = ledger_lines(plan, two_cards(without="CUDA1 model", instead="CUDA1 model buffer size = 7300.00 MiB"), None)
    weights = found(lines, "gpu1", LedgerPart.WEIGHTS)
    assert (weights.within_range, weights.difference_bytes) == (None, round(7300 * MIB) - round(7113.18 * MIB))
    assert weights.why
    assert found(lines, "gpu1", LedgerPart.KV_CACHE).within_range is True


def test_failed_conversations_are_among_the_warnings() -> None:
    failed = RoundTrip(passed=False, why="no tool call came back")
    passed = RoundTrip(passed=True)
    assert warnings_of((), OFFLOADED, (failed, passed)) == ("tool call: no tool call came back",)

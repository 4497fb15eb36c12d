"""The speed model: prefill and decode as sums of terms, each an amount of work times a calibrated factor.

decode:  t = bytes / BW x read + launches x launch_ms + FLOPs / peak x math + what the context costs, per device;
         experts in main memory are read there, and each such layer adds a way there and back.
prefill: t = weights / BW x stream + u x FLOPs / peak x batch_math + u x context, per batch of u tokens; experts in
         main memory are copied to the GPU once per batch.
The range is what the factors' uncertainties, weighted with their terms, and the spread between runs add up to.
docs/speed-model.md tells the terms, docs/accuracy.md how far they are from published figures.
"""

import math
from typing import Final

from glmplan.calibration import Calibration, SpeedRecord
from glmplan.estimate import Basis, Estimate, SpeedEstimate
from glmplan.ggml_types import GgmlType, cache_type
from glmplan.placement import FlashAttention, Placement
from glmplan.planner import speed_reads as work_of
from glmplan.planner.calibration import Calibrator, calibration_of
from glmplan.planner.memory import MemoryModel
from glmplan.planner.speed_reads import Reads
from glmplan.rehearsal import Phase
from glmplan.speed_class import DeviceSpeed, Factor, MachineSpeed

# A device (None: the host's ways, not a device), the name of a factor, and milliseconds it multiplies.
Term = tuple[DeviceSpeed | None, str, float]

_ORDER: Final = (Basis.MEASURED, Basis.CALIBRATED, Basis.ROOFLINE, Basis.ASSUMED)
# 80 % of a normal distribution lie within this many deviations.
_DEVIATIONS: Final = 1.2816
# Context after which attention's start-up costs are paid, tokens.
_START_TOKENS: Final = 2000.0
# Benchmarks and rehearsals time prompts of this length unless told otherwise.
_SEEN_PROMPT_TOKENS: Final = 512
# Factors on what the context costs.
CONTEXT_FACTORS: Final = frozenset(
    {"context_start_ms", "context_math", "converted", "unfused", "batch_context", "batch_unfused", "batch_converted"}
)
_NARROW: Final = frozenset({GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q5_0, GgmlType.Q5_1, GgmlType.IQ4_NL})


class SpeedModel:
    """One model file on one machine; cheap to ask many times."""

    def __init__(self, memory: MemoryModel, speed: MachineSpeed, *, file_scale: float = 1.0) -> None:
        """Prepare the work of every layer; `file_scale` as in `speed_reads.layer_work`."""
        model = memory.model
        self._memory = memory
        self._speed = speed
        self._n_main = memory.layers.n_main
        self._n_all = memory.layers.n_all
        self._work = work_of.layer_work(model, file_scale)
        self._reads: dict[tuple[object, ...], Reads] = {}
        self._context_flops = work_of.context_flops(model)
        self._context_f16 = work_of.context_bytes(model, GgmlType.F16)
        self._graph = work_of.graph_size(model)
        self._factors = {device.id: _table(device) for device in (*speed.gpus, speed.host)}
        self._calibrator = Calibrator(model, speed.calibrations)
        hybrid = speed.hybrid
        self._ways = {
            "sync_ms": hybrid.sync_ms,
            "staged_mapped": hybrid.staged_mapped,
            "staged_pinned": hybrid.staged_pinned,
        }

    def estimate(self, placement: Placement, *, depth_tokens: int, prompt_tokens: int) -> SpeedEstimate:
        """Speeds of one request with `depth_tokens` already in the context.

        Args:
            placement: the configuration.
            depth_tokens: tokens in the context; decode and prefill are judged there.
            prompt_tokens: length of the prompt TTFT is for; prefill is the rate of its batches.
        """
        decode_ms, basis, spread = self._decode_time(placement, depth_tokens)
        decode = _ranged(1000.0 / decode_ms, spread, basis)
        tpot = _ranged(decode_ms, spread, basis)
        batch = _batch_tokens(placement, prompt_tokens)
        # Over a prompt the mean depth is half its length.
        prompt = self.prefill(placement, mean_depth_tokens=prompt_tokens / 2, prompt_tokens=prompt_tokens)
        return SpeedEstimate(
            depth_tokens=depth_tokens,
            prefill_tokens_per_s=self.prefill(
                placement, mean_depth_tokens=depth_tokens + batch / 2, prompt_tokens=prompt_tokens
            ),
            decode_tokens_per_s=decode,
            ttft_ms=Estimate(
                value=1000.0 * prompt_tokens / prompt.value,
                low=1000.0 * prompt_tokens / prompt.high,
                high=1000.0 * prompt_tokens / prompt.low,
                basis=prompt.basis,
            ),
            tpot_ms=tpot,
        )

    def decode(self, placement: Placement, *, depth_tokens: float, n_busy: int = 1) -> Estimate:
        """Tokens per second of `n_busy` slots together, each with `depth_tokens` of context."""
        step_ms, basis, spread = self._decode_time(placement, depth_tokens, n_busy)
        return _ranged(1000.0 * n_busy / step_ms, spread, basis)

    def prefill(self, placement: Placement, *, mean_depth_tokens: float, prompt_tokens: int) -> Estimate:
        """Tokens per second of a prompt whose tokens see `mean_depth_tokens` before them on average."""
        batch = _batch_tokens(placement, prompt_tokens)
        token_ms, basis, spread = self._sum(self.prefill_terms(placement, mean_depth_tokens, batch), prefill=True)
        if self._calibrator:
            bare_ms = self._sum(self.prefill_terms(placement, 0.0, batch), prefill=True)[0]
            token_ms, basis, spread = self._calibrator.corrected(
                Phase.PREFILL,
                placement,
                (bare_ms, token_ms - bare_ms),
                depth_tokens=mean_depth_tokens,
                host_share=self._host_share(placement),
            )
        return _ranged(1000.0 / token_ms, spread, basis)

    def calibration(self, record: SpeedRecord) -> Calibration | None:
        """What a record of this model says of the figures here; None where it says nothing."""
        placement = record.placement
        batch = _batch_tokens(placement, _SEEN_PROMPT_TOKENS)

        def parts(phase: Phase, depth: float) -> tuple[float, float]:
            prefill = phase is Phase.PREFILL
            times = [
                self._sum(
                    self.prefill_terms(placement, at, batch) if prefill else self.decode_terms(placement, at),
                    prefill=prefill,
                )[0]
                for at in (0.0, depth)
            ]
            return times[0], times[1] - times[0]

        return calibration_of(record, parts, self._host_share(placement))

    def rests_on(self, placement: Placement, depth_tokens: float) -> str | None:
        """What was seen on this machine that a decode speed rests on, in words; None where nothing was."""
        if not self._calibrator:
            return None
        found = self._calibrator.nearest(placement, depth_tokens, self._host_share(placement))
        unlike = list(self._calibrator.differences(found, placement, depth_tokens))
        beside = f" ({', '.join(unlike)})" if unlike else ""
        return f"the {found.record.source} of {found.record.taken_at[:10]}{beside}"

    def _decode_time(self, placement: Placement, depth_tokens: float, n_busy: int = 1) -> tuple[float, Basis, float]:
        """Milliseconds of a step, basis, and the factor that spans the range."""
        step_ms, basis, spread = self._sum(self.decode_terms(placement, depth_tokens, n_busy), prefill=False)
        if not self._calibrator:
            return step_ms, basis, spread
        bare_ms = self._sum(self.decode_terms(placement, 0.0, n_busy), prefill=False)[0]
        return self._calibrator.corrected(
            Phase.DECODE,
            placement,
            (bare_ms, step_ms - bare_ms),
            depth_tokens=depth_tokens,
            host_share=self._host_share(placement),
            n_busy=n_busy,
        )

    def _host_share(self, placement: Placement) -> float:
        """Part of a token's computed time without context that is spent in main memory beside GPUs."""
        if not self._speed.gpus:
            return 0.0
        times = [(term[0], self._time_of(term)) for term in self.decode_terms(placement, 0.0)]
        here = sum(ms for device, ms in times if device is None or device is self._speed.host)
        return here / sum(ms for _, ms in times)

    def _time_of(self, term: Term) -> float:
        device, name, amount = term
        return amount * (self._ways[name] if device is None else self._factors[device.id][name]).value

    def decode_terms(self, placement: Placement, depth_tokens: float, n_busy: int = 1) -> list[Term]:
        """Terms of the time of one token (of each of `n_busy` slots)."""
        reads = self._reads_of(placement)
        model, host = self._memory.model, self._speed.host
        share = work_of.distinct_share(model, n_busy)
        terms: list[Term] = []
        for device, start, end in self._parts(placement):
            is_host = device is host
            moved = 0.0 if is_host else reads.on_host[end] - reads.on_host[start]
            here = reads.resident[end] - reads.resident[start]
            here += share * (reads.experts[end] - reads.experts[start] - moved)
            part = (end - start) / (self._n_all + 1)
            flops = 2.0 * n_busy * (reads.parameters[end] - reads.parameters[start])
            terms.append((device, "read", 1000.0 * here / device.bandwidth_bytes_per_s))
            terms.append((device, "launch_ms", self._graph * part * device.launches))
            terms.append((device, "math", 1000.0 * flops / device.flops_per_s))
            layers = min(end, self._n_main) - start
            if layers > 0 and depth_tokens > 0:
                terms += self._context_terms(placement, device, layers, depth_tokens * n_busy)
            if moved:
                terms.append((host, "read", 1000.0 * share * moved / host.bandwidth_bytes_per_s))
                terms.append((None, "sync_ms", reads.hybrid[end] - reads.hybrid[start]))
        return terms

    def _context_terms(self, placement: Placement, device: DeviceSpeed, layers: int, depth: float) -> list[Term]:
        """What `depth` tokens of context cost a decoded token on one device."""
        per_byte = 1000.0 * layers * depth / device.bandwidth_bytes_per_s
        flops_ms = 1000.0 * self._context_flops * layers * depth / device.flops_per_s
        if placement.flash_attn is FlashAttention.OFF:
            return [(device, "unfused", flops_ms if device.context_by_math else per_byte * self._context_f16)]
        kv_type = cache_type(placement.cache_type_k)
        kv_bytes = work_of.context_bytes(self._memory.model, kv_type)
        start = layers / self._n_main * (1.0 - math.exp(-depth / _START_TOKENS))
        terms: list[Term] = [
            (device, "read", per_byte * kv_bytes),
            (device, "context_math", flops_ms),
            (device, "context_start_ms", start),
        ]
        if kv_type is not GgmlType.F16:
            passes = 2.0 * (2.0 if kv_type in _NARROW else 1.0)
            converted = flops_ms if device.context_by_math else per_byte * self._context_f16 * passes
            terms.append((device, "converted", converted))
        return terms

    def prefill_terms(self, placement: Placement, mean_depth_tokens: float, batch_tokens: int) -> list[Term]:
        """Terms of the time of one prompt token, processed with `batch_tokens` - 1 others at a mean depth."""
        reads = self._reads_of(placement)
        share = work_of.distinct_share(self._memory.model, batch_tokens)
        parts = self._parts(placement)
        gpus = [part for part in parts if part[0] is not self._speed.host]
        staging = bool(self._speed.gpus) and placement.op_offload
        staged = 0.0
        terms: list[Term] = []
        for owner, start, end in parts:
            device = owner
            weights = reads.resident[end] - reads.resident[start]
            weights += share * (reads.experts[end] - reads.experts[start])
            if owner is self._speed.host and staging:
                # Prompt batches of layers in main memory are computed on the first GPU.
                device = gpus[0][0] if gpus else self._speed.gpus[0]
                staged += weights
            else:
                staged += share * (reads.on_host[end] - reads.on_host[start])
            flops = 2.0 * (reads.parameters[min(end, self._n_all)] - reads.parameters[start])
            terms.append((device, "stream", 1000.0 * weights / device.bandwidth_bytes_per_s / batch_tokens))
            name = "batch_math_repacked" if device is self._speed.host and placement.repack else "batch_math"
            terms.append((device, name, 1000.0 * flops / device.flops_per_s))
            layers = max(0, min(end, self._n_main) - start)
            context_ms = 1000.0 * self._context_flops * layers * mean_depth_tokens / device.flops_per_s
            fused = placement.flash_attn is not FlashAttention.OFF
            terms.append((device, "batch_context" if fused else "batch_unfused", context_ms))
            if placement.cache_type_k != "f16":
                terms.append((device, "batch_converted", context_ms))
        if staging and staged:
            hybrid = self._speed.hybrid
            rate = hybrid.mapped_bytes_per_s if placement.use_mmap else hybrid.pinned_bytes_per_s
            name = "staged_mapped" if placement.use_mmap else "staged_pinned"
            terms.append((None, name, 1000.0 * staged / rate / batch_tokens))
        return terms

    def _reads_of(self, placement: Placement) -> Reads:
        key = (placement.n_cpu_moe, placement.override_tensor)
        reads = self._reads.get(key)
        if reads is None:
            table = self._memory.layers.offload(placement.n_cpu_moe, placement.override_tensor, load_mtp=False)
            reads = self._reads[key] = work_of.reads_of(self._work, table)
        return reads

    def _parts(self, placement: Placement) -> list[tuple[DeviceSpeed, int, int]]:
        """(device, first layer, end): the host first, then the GPUs in order; the output layer counts."""
        if not self._speed.gpus:
            return [(self._speed.host, 0, self._n_all + 1)]
        ranges = self._memory.ranges(placement)
        parts = [(gpu, start, end) for gpu, (start, end) in zip(self._speed.gpus, ranges, strict=True) if end > start]
        first = ranges[0][0]
        return [(self._speed.host, 0, first), *parts] if first else parts

    def _sum(self, terms: list[Term], *, prefill: bool) -> tuple[float, Basis, float]:
        """Milliseconds, the weakest basis, and the factor that spans the range."""
        shares: dict[tuple[str, str], float] = {}
        deviations: dict[tuple[str, str], float] = {}
        classes: dict[str, DeviceSpeed | None] = {}
        for device, name, amount in terms:
            owner = "" if device is None else device.speed_class
            factor = self._ways[name] if device is None else self._factors[device.id][name]
            # Devices of one class share its factors, and with them its errors.
            key = (owner, name)
            shares[key] = shares.get(key, 0.0) + amount * factor.value
            deviations[key] = factor.deviation
            classes[owner] = device
        total = sum(shares.values())
        run = self._speed.run_deviation_prefill if prefill else self._speed.run_deviation_decode
        of_context = sum(value for (_, name), value in shares.items() if name in CONTEXT_FACTORS) / total
        variance = run * run + (of_context * self._speed.context_deviation) ** 2
        variance += sum((shares[key] / total * deviations[key]) ** 2 for key in shares)
        least, basis = 1.0, Basis.MEASURED
        for owner, device in classes.items():
            if device is None:
                continue
            deviation, spread, where = _trust(device, prefill=prefill)
            if deviation:
                part = sum(value for key, value in shares.items() if key[0] == owner) / total
                variance += (part * deviation) ** 2
            least = max(least, spread)
            basis = max(basis, where, key=_ORDER.index)
        return total, basis, max(least, math.exp(_DEVIATIONS * math.sqrt(variance)))


def _trust(device: DeviceSpeed, *, prefill: bool) -> tuple[float, float, Basis]:
    if prefill:
        return device.machine_deviation_prefill, device.least_spread_prefill, device.basis_prefill
    return device.machine_deviation_decode, device.least_spread_decode, device.basis_decode


def _batch_tokens(placement: Placement, prompt_tokens: int) -> int:
    return max(1, min(placement.n_ubatch, placement.n_batch, prompt_tokens))


def _table(device: DeviceSpeed) -> dict[str, Factor]:
    factors = device.factors
    return {name: getattr(factors, name) for name in factors.__dataclass_fields__}


def _ranged(value: float, spread: float, basis: Basis) -> Estimate:
    return Estimate(value=value, low=value / spread, high=value * spread, basis=basis)

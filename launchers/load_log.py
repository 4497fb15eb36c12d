"""llama.cpp's load log to a `MemoryReport`: the buffers it really allocated.

Sources: src/llama-model.cpp `load_tensors`, src/llama-kv-cache.cpp, src/llama-context.cpp (`output buffer size`,
`sched_reserve`), and their older spellings (`llm_load_tensors: ... buffer size`, `llama_new_context_with_model`).
"""

import re
from collections.abc import Iterable
from typing import Final

from glmplan.launchers.logs import STARTED
from glmplan.measurement import BufferSize, MemoryReport
from glmplan.units import MIB

_BUFFER: Final = re.compile(
    r"(?P<device>[\w:.\-]+)\s+(?P<kind>model|KV|RS|compute|output) buffer size\s*=\s*(?P<mib>[\d.]+) MiB"
    r"|llm_load_tensors:\s+(?P<old_device>[\w:.\-]+) buffer size\s*=\s*(?P<old_mib>[\d.]+) MiB"
)
_OFFLOADED: Final = re.compile(r"offloaded (\d+)/(\d+) layers")
_NEW_CONTEXT: Final = re.compile(r"constructing llama_context|llama_new_context_with_model: n_ctx\b")
_KINDS: Final = {"model": "model", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}


def parse(lines: Iterable[str]) -> MemoryReport:
    """The buffers of the last start in a log, in log order; each is off by up to `glmplan.measurement.ROUNDING_BYTES`.

    A context that sizes its compute buffers again replaces its own earlier figures; a further context (for
    drafting) adds to them. Buffers of a device printed several times under another kind add up: one per cache,
    one per shard of a split file.
    """
    buffers: list[BufferSize] = []
    offloaded: tuple[int, int] | None = None
    context_start = 0
    for line in lines:
        if line.startswith(STARTED):
            buffers, offloaded, context_start = [], None, 0
        elif _NEW_CONTEXT.search(line):
            context_start = len(buffers)
        elif match := _BUFFER.search(line):
            found = _buffer(match)
            if found.kind == "compute":
                _drop_same(buffers, context_start, found)
            buffers.append(found)
        elif match := _OFFLOADED.search(line):
            offloaded = (int(match[1]), int(match[2]))
    return MemoryReport(
        buffers=tuple(buffers),
        offloaded_layers=offloaded[0] if offloaded else None,
        total_layers=offloaded[1] if offloaded else None,
    )


def _buffer(match: re.Match[str]) -> BufferSize:
    if match["old_device"]:
        return BufferSize(device=match["old_device"], kind="model", n_bytes=_bytes(match["old_mib"]))
    return BufferSize(device=match["device"], kind=_KINDS[match["kind"]], n_bytes=_bytes(match["mib"]))


def _bytes(mib: str) -> int:
    return round(float(mib) * MIB)


def _drop_same(buffers: list[BufferSize], start: int, found: BufferSize) -> None:
    """Remove the earlier compute buffer of the same device in this context."""
    buffers[start:] = [
        buffer for buffer in buffers[start:] if (buffer.device, buffer.kind) != (found.device, found.kind)
    ]

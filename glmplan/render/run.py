"""Launches and running engines for a person: where they are, what they took, why they were started again."""

from collections.abc import Sequence

from glmplan.estimate import Basis
from glmplan.running import EngineStatus, LaunchReport
from glmplan.step_down import Change, Knob, StepDown
from glmplan.units import format_bytes

BASIS_WORDS = {
    Basis.MEASURED: "measured",
    Basis.CALIBRATED: "computed, calibrated",
    Basis.ROOFLINE: "computed",
    Basis.ASSUMED: "assumed",
}
SYNTHETIC = "The weights are synthetic: the text is noise, its memory and speed are those of a real file of this shape."


def printable(text: str) -> str:
    """`text` without control characters: noise must not steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def where_lines(report: LaunchReport) -> list[str]:
    """The endpoint and how to leave."""
    version = f" {report.engine_version}" if report.engine_version else ""
    lines = [
        f"endpoint   {report.url}/v1   (model name: {report.model})",
        f"engine     {report.engine}{version}, process {report.pid}",
        f"ready      after {report.load_ms / 1000:.1f} s (measured)",
        f"log        {report.log}",
    ]
    if report.api_key_file:
        lines.append(f"API key    in {report.api_key_file}")
    if report.detached:
        lines.append("leave      it runs in the background: glmplan status, glmplan logs -f, glmplan stop")
    else:
        lines.append("leave      Ctrl-C stops it")
    return lines


_KNOB_WORDS = {
    Knob.PROMPT_CACHE: "prompt cache",
    Knob.EXPERTS: "experts in main memory",
    Knob.GPU_LAYERS: "layers on the GPU",
    Knob.UBATCH: "prompt batch",
    Knob.FLASH_ATTENTION: "flash attention",
    Knob.CACHE_TYPE: "KV cache",
    Knob.CONTEXT: "context",
}
_IN_BYTES = frozenset({Knob.PROMPT_CACHE, Knob.EXPERTS})


def step_down_text(step: StepDown, *, most: int) -> str:
    """One smaller plan as it is announced: where memory ran out, what is given up, what that costs."""
    changes = ", ".join(
        f"{_KNOB_WORDS[change.knob]} {_amount(change, change.after)} instead of {_amount(change, change.before)}"
        for change in step.changes
    )
    room = f"{format_bytes(step.needed_bytes_after)} instead of {format_bytes(step.needed_bytes_before)}"
    speed = f"{step.decode_tokens_per_s_after:.1f} instead of {step.decode_tokens_per_s_before:.1f} tokens/s (computed)"
    return (
        f"out of memory on {step.device} ({printable(step.because)})\n"
        f"step-down {step.number} of at most {most}: {changes}; {step.device} is to take {room}, decode {speed}"
    )


def _amount(change: Change, value: int | str) -> str:
    if isinstance(value, int) and change.knob in _IN_BYTES:
        return format_bytes(value) if value else "none"
    return f"{value} tokens" if change.knob is Knob.CONTEXT else str(value)


def status_lines(engines: Sequence[EngineStatus]) -> list[str]:
    """Running engines as a table."""
    if not engines:
        return ["no engine started by glmplan runs"]
    rows = [("ENDPOINT", "STATE", "MODEL", "CONTEXT", "ENGINE", "PROCESS", "RESIDENT", "SINCE", "RESTARTS")]
    rows += [
        (
            f"{engine.url}/v1",
            engine.state,
            f"{engine.model} {engine.quantization}{' (synthetic)' if engine.synthetic else ''}",
            str(engine.n_ctx),
            f"{engine.engine} {engine.engine_version or ''}".strip(),
            "-" if engine.pid is None else str(engine.pid),
            "-" if engine.resident_bytes is None else format_bytes(engine.resident_bytes),
            engine.started_at,
            str(engine.restarts),
        )
        for engine in engines
    ]
    reasons = [f"{engine.url}: {engine.last_reason}" for engine in engines if engine.last_reason]
    return [*table(rows), *reasons]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""What a person reads of a proof: every line with its basis, nothing made up where a number is missing."""

import dataclasses

from glmplan.estimate import Basis, Estimate, SpeedEstimate
from glmplan.measurement import MemoryReport, SpeedSample
from glmplan.proof import LedgerLine, LedgerPart, Proof, ProofDepth, RoundTrip, SpeedLine
from glmplan.proof_settings import ProofKind
from glmplan.render.proof import report_lines
from glmplan.running import LaunchReport
from glmplan.units import MIB

LINE = LedgerLine(
    device="host",
    part=LedgerPart.COMPUTE,
    forecast_bytes=100 * MIB,
    low_bytes=None,
    high_bytes=101 * MIB,
    basis=Basis.ROOFLINE,
    measured_bytes=90 * MIB,
    difference_bytes=-10 * MIB,
    difference_ratio=-0.1,
    within_range=True,
    why=None,
)
SAMPLE = SpeedSample(
    prompt_tokens=128,
    output_tokens=24,
    ttft_ms=1234.4,
    prefill_tokens_per_s=103.7,
    decode_tokens_per_s=11.2,
    tpot_ms=89.0,
    depth_tokens=6016,
    server_timed=True,
)
RATE = Estimate(value=12.0, low=9.0, high=15.0, basis=Basis.CALIBRATED)
FORECAST = SpeedEstimate(
    depth_tokens=6016, prefill_tokens_per_s=RATE, decode_tokens_per_s=RATE, ttft_ms=RATE, tpot_ms=RATE
)
DEPTH = ProofDepth(
    filled_tokens=6144,
    full_tokens=32744,
    context_tokens=32768,
    expected_s=55.0,
    full_expected_s=540.0,
    limit_s=60.0,
    basis=Basis.CALIBRATED,
    why="filling 6,144 of 32,768 tokens: about 55 s",
)
PROOF = Proof(
    asked=ProofKind.AUTO,
    depth=DEPTH,
    speeds=(SpeedLine(measured=SAMPLE, forecast=FORECAST),),
    ledger=(LINE,),
    tool_call=RoundTrip(passed=True, steps=("called read_gauge", "answered 4817")),
    thinking=RoundTrip(passed=False, why="with thinking off, the answer is not 42"),
    warnings=("thinking on and off: with thinking off, the answer is not 42",),
)


def text_of(proof: Proof) -> list[str]:
    """The part of a report that the proof fills."""
    report = LaunchReport(
        url="http://127.0.0.1:8080",
        model="glm-4.7-flash",
        api_key_file=None,
        engine="llama-server",
        engine_version=None,
        pid=1,
        detached=False,
        synthetic=False,
        log="/log",
        load_ms=1.0,
        memory=MemoryReport(buffers=()),
        resident_bytes=None,
        answer=None,
        speed=None,
        n_ctx=32768,
        proof=proof,
    )
    lines = report_lines(report)
    return [" ".join(line.split()) for line in lines[lines.index("") + 1 :]]


def ledger_text(line: LedgerLine) -> str:
    """The one row of a ledger with one line."""
    rows = text_of(dataclasses.replace(PROOF, ledger=(line,)))
    return rows[1]


def test_everything_is_said_once_and_warnings_come_last() -> None:
    assert text_of(PROOF) == [
        "memory forecast measured difference",
        "host compute 100.0 MiB (computed) 90.0 MiB -10.0 MiB, -10.0 %",
        "",
        "proof filling 6,144 of 32,768 tokens: about 55 s",
        "speed at 6,016 tokens forecast measured",
        "prefill 12.0 tokens/s, 9.0 to 15.0 (computed, calibrated) 103.7 tokens/s",
        "decode 12.0 tokens/s, 9.0 to 15.0 (computed, calibrated) 11.2 tokens/s",
        "first token - 1234 ms after 128 tokens of prompt",
        "tool call works: called read_gauge; answered 4817",
        "thinking FAILED: with thinking off, the answer is not 42",
        "WARNING: thinking on and off: with thinking off, the answer is not 42",
    ]


def test_what_one_side_lacks_is_a_dash_and_a_reason() -> None:
    unknown = dataclasses.replace(
        LINE, measured_bytes=None, difference_bytes=None, difference_ratio=None, within_range=None, why="not in the log"
    )
    assert ledger_text(unknown) == "host compute 100.0 MiB (computed) - not in the log"
    unplanned = dataclasses.replace(
        LINE, forecast_bytes=None, basis=None, difference_bytes=None, difference_ratio=None, why="in the overhead"
    )
    assert ledger_text(unplanned) == "host compute - 90.0 MiB in the overhead"
    neither = dataclasses.replace(unknown, forecast_bytes=0, within_range=True)
    assert ledger_text(neither) == ""
    outside = dataclasses.replace(LINE, within_range=False)
    assert ledger_text(outside).endswith("-10.0 MiB, -10.0 %; outside the stated range")
    equal = dataclasses.replace(LINE, difference_bytes=-300, difference_ratio=-0.000003)
    assert ledger_text(equal).endswith("90.0 MiB +0.0 MiB, +0.0 %")


def test_a_depth_without_a_forecast_says_why() -> None:
    line = SpeedLine(measured=SAMPLE, forecast=None, why="the plan forecasts another depth")
    rows = text_of(dataclasses.replace(PROOF, speeds=(line, line)))
    assert "prefill - 103.7 tokens/s" in rows
    assert rows.count("no forecast there: the plan forecasts another depth") == 1
    nothing = text_of(dataclasses.replace(PROOF, speeds=(), depth=None, warnings=()))
    assert [row.split()[0] for row in nothing[3:]] == ["tool", "thinking"]

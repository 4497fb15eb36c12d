"""Fit the speed factors and write what is predicted beside what others published.

    python scripts/accuracy.py            # writes profiles/speeds/classes.yaml and docs/accuracy.md
    python scripts/accuracy.py --print    # shows the page

Data: tests/field/*.yaml. tests/contract/test_accuracy.py fails when either file is not current.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "field"))

import field_memory as memory  # noqa: E402 - tests/field is not a package
import field_speed  # noqa: E402
import speed_fit as speeds  # noqa: E402

from glmplan.units import MIB  # noqa: E402

PAGE: Final = ROOT / "docs" / "accuracy.md"
CLASSES: Final = ROOT / "profiles" / "speeds" / "classes.yaml"
CLASSES_HEAD: Final = """\
# Written by scripts/accuracy.py: factors of the speed model by class of devices, [value, deviation of its logarithm].
# docs/speed-model.md tells the terms they multiply, docs/accuracy.md the published figures they were fitted to.
source: >-
  tests/field/speed.yaml (published runs of GLM-4.7-Flash, each with its public source), speed_other_models.yaml and
  speed_priors.yaml; {n_decode} decode and {n_prefill} prefill figures of {n_authors} authors count for the bars
"""
HEAD: Final = """\
# Accuracy

Written by `python scripts/accuracy.py` from the figures in `tests/field/memory.yaml` and `tests/field/speed.yaml`, which other
people published; `tests/contract/test_accuracy.py` computes them again in every run and holds the bars. Against llama.cpp's own
allocator the memory model is compared on random configurations; what that gave is in [memory-model.md](memory-model.md).
"""
MEMORY_NOT_MODELLED: Final = """\
### What is not modelled

- A desktop, a browser and other programs on a card: the machine's free memory is read instead.
- Files whose tensors differ from the recipe: weights above are scaled to the published size of the very file (of the pruned
  model in q4_K_M no size is published; the recipe's is taken). For your own file `--gguf FILE` reads its header.
- How large a CUDA context is on a given card: 614 MiB are kept for it, for libraries and the pool. Seen: about 180 MiB on an RTX
  3060 (28 multiprocessors), 270 on a P100 (56), 465 on an RTX 4090 (128), so totals come out high by 150 to 440 MiB; one
  published configuration of a 16 GB card fails although it should fit by 150 MiB, so the reserve stays.
- Compute buffers of engines of their own (Ollama before 0.30, mlx-lm, vLLM): llama.cpp's stand in for them.
- Builds of llama.cpp before June 2026 differ in masks, logits and converted caches. `--runtime-version` takes a build or a month;
  where several cards copy their inputs, the stage with the logits was seen at 327 and at 347 MiB, and the middle is taken.
- AMD and Intel GPUs: no memory model, so none of their published totals is here.
"""
SPEED_HEAD: Final = """\
Every figure is predicted with factors fitted without any figure of its author (leave one source out). Tokens per second, one
request at a time. Bars for decode: median error at most 20 %, at least 75 % of the figures inside the range. The terms are told
in [speed-model.md](speed-model.md).
"""
CPU: Final = """\
## Measured here: a CPU with two cores

llama-bench on two Zen 4 cores with AVX-512, the first 16 of 47 layers of a synthetic q4_K_M, quiet machine, tokens/s:

| setting | prefill at 0 | decode at 0 | prefill at 4,096 | decode at 4,096 |
|---|---:|---:|---:|---:|
| repacked weights, no flash attention | 73.0 | 28.3 | | |
| repacked weights, flash attention | 72.2 | 28.8 | | |
| repacked weights, flash attention, q8_0 cache | 52.4 | 27.4 | | |
| no repacking, no flash attention | 119.3 | 26.4 | 40.6 | 7.5 |
| no repacking, flash attention | | | 25.4 | 10.6 |
| no repacking, flash attention, q8_0 cache | | | 9.4 | 7.3 |

Repacking costs 39 % of prefill, doubles the resident set while loading, and gains 7 % of decode. A q8_0 cache makes prefill at
depth 2.7 to 4.3 times slower and decode 1.4 times. Flash attention makes decode at depth 1.4 times faster and prefill 1.6 times
slower. That is why plans for a CPU leave repacking off, keep flash attention on, and take a quantised cache only when memory
leaves nothing else. The whole model (repacked, no flash attention, depth 0): prefill 26.7, decode 11.7.
"""
TUNED_HEAD: Final = """\
## Measured here: tuned plans against the engine's own choices

{head}. Tokens per second; the ratios are paired, round by round ([tune.md](tune.md) tells how).
"""
TUNED_END: Final = """\
By llama.cpp alone no configuration won both speeds at no cost here. Flash attention decides: without it prompts are computed about 1.4
times as fast and answers three quarters as fast, and `tune` takes that only where `--may-cost` allows it. Asked for decode it took
`--fit on`'s own configuration, said so, and pinned it. Huge pages may pay for what going without flash attention costs; whether they do
depends on the machine's hour, as it shares its memory with others: where the engine's defaults decoded 16 tokens/s they were worth a
quarter of both speeds, at 20 a tenth, at 23 nothing. A plan put together by hand had 1.3 times the prefill at the same decode once, and
hours later, the machine fast, 1.14 to 1.18 times at 0.98 to 0.99 (bf16 cache, 512 tokens after 1,536). Two races then without
ik_llama.cpp kept their plans: 1.07 to 1.14 times the prefill at 0.92 to 0.97 of the decode. Prompt batches of 64 to 512 tokens, one
thread, weights in memory of their own, f32 caches, llama.cpp compiled with clang or without OpenMP were slower or within the noise.

ik_llama.cpp wins both: about twice the prefill of llama-server's own choices and 1.3 times the decode. With huge pages on top its decode
was 1.5 to 1.6 times theirs at a twentieth less prefill; the goal was prefill. Four layers are not forty-seven, the output layer is four
tenths of their decode; with 16, by each engine's own benchmark, it had 74.0 and 15.8 after 2,048 tokens (repacked, once) where
llama.cpp's defaults had 35.1 and 36.0 of prefill, 10.4 and 10.6 of decode.
"""
REHEARSED: Final = """\
## Measured here: a rehearsal against the full model

tests/bench/test_rehearse_accuracy.py on the machine above, prebuilt xllamacpp, all 47 layers of q4_K_M (17 GB, noise and zeros), two
repetitions of 512 tokens of prompt and 24 of answer, 2026-11-30; the rehearsal took 70 s and cuts of one to five layers. Tokens per second:

| | measured | rehearsed | off by |
|---|---:|---:|---:|
| prefill after 0 | 17.3, 18.0 | 17.0 (15.7 to 18.3) | -4 % |
| prefill after 4,096 | 6.27, 6.29 | 6.96 (5.75 to 8.41) | +11 % |
| decode after 524 | 1.95, 2.36 | 2.53 (2.28 to 2.83) | +18 % |
| decode after 4,620 | 1.45, 1.45 | 1.36 (1.11 to 1.66) | -7 % |

Three of four are inside their range. The first answer of the full model was 17 % slower than the second; their mean is 6 % below the range.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; columns after the first are right-aligned where their head ends with `>`."""
    names = [name.rstrip(">") for name in head]
    marks = ["---:" if name.endswith(">") else "---" for name in head]
    lines = [f"| {' | '.join(names)} |", f"|{'|'.join(marks)}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def percent(value: float) -> str:
    """With its sign."""
    return f"{100 * value:+.1f} %"


def _devices(record: Mapping[str, Any]) -> str:
    names = [device if isinstance(device, str) else str(device["name"]) for device in record["devices"]]
    counted = Counter(name.removeprefix("nvidia-geforce-").removeprefix("nvidia-") for name in names)
    return " + ".join(f"{count} x {name}" if count > 1 else name for name, count in counted.items()) or "CPU"


def _file(record: Mapping[str, Any]) -> str:
    file = record["file"]
    return str(file["recipe"]) + (f", {file['n_expert']} experts" if "n_expert" in file else "")


def _memory_rows(compared: Iterable[memory.Comparison]) -> list[list[object]]:
    return [
        [
            each.record["source"],
            _devices(each.record),
            _file(each.record),
            f"{each.record['n_ctx']:,} {each.record['cache']}",
            f"{each.device} {each.what.replace('_', ' ')}" if each.what != "used" else each.device,
            f"{each.published_mib:,.0f}",
            f"{each.predicted_mib:,.0f}",
            percent(each.error),
        ]
        for each in compared
    ]


def _worst(compared: Sequence[memory.Comparison]) -> str:
    errors = [abs(each.error) for each in compared]
    return f"{len(errors)} figures, median error {100 * speeds.median(errors):.1f} %, worst {100 * max(errors):.1f} %"


def memory_part() -> str:
    """Published memory beside predicted."""
    compared = memory.comparisons()
    by_kind = {
        kind: [each for each in compared if each.record["kind"] == kind and each.is_judged]
        for kind in ("breakdown", "total", "cache")
    }
    rest = [each for each in compared if not each.is_judged]
    head = ("source", "devices", "file", "context", "part", "published MiB>", "predicted MiB>", "error>")
    caches = [
        [
            each.record["source"],
            f"{each.record['runtime']} {each.record.get('version', '')}".strip(),
            f"{each.record['n_ctx']:,} {each.record['cache']}",
            f"{each.published_mib:,.1f}",
            f"{each.predicted_mib:,.1f}",
        ]
        for each in by_kind["cache"]
    ]
    boundary = field_speed.read("memory.yaml")["boundaries"][0]
    needed = {
        n: memory.ledger(boundary, n_cpu_moe=n)[0].needed_bytes / MIB for n in (boundary["fails"], boundary["works"])
    }
    beyond = max(abs(each.off_mib) for each in by_kind["breakdown"] if abs(each.error) > memory.COMPONENT_SHARE)
    stops = (
        f"{boundary['source']}: {boundary['note']}. Predicted: {needed[boundary['fails']]:,.0f} MiB with "
        f"{boundary['fails']} layers, {needed[boundary['works']]:,.0f} with {boundary['works']}, of about "
        f"{boundary['free_mib']:,} free.\n"
    )
    return "\n".join(
        (
            "## Memory\n",
            "### Components as the engine printed them\n",
            f"Bar: within 2 % or 16 MiB. {_worst(by_kind['breakdown'])}: beyond 2 % at most {beyond:.1f} MiB off.\n",
            table(head, _memory_rows(by_kind["breakdown"])),
            "### Totals of a device (nvidia-smi)\n",
            f"Bar: within 4 %. {_worst(by_kind['total'])}.\n",
            table(head, _memory_rows(by_kind["total"])),
            "### Caches, by runtime and version\n",
            "Bar: as precise as the figure was printed.\n",
            table(("source", "runtime", "context", "published MiB>", "predicted MiB>"), caches),
            "### Where a configuration stops fitting\n",
            stops,
            "### Not counted\n",
            table((*head[:-1], "error>", "why"), _with_reasons(rest)),
            MEMORY_NOT_MODELLED,
        )
    )


def _with_reasons(compared: Sequence[memory.Comparison]) -> list[list[object]]:
    rows = _memory_rows(compared)
    return [[*row, each.record["why"]] for row, each in zip(rows, compared, strict=True)]


def _setting(check: speeds.Check) -> str:
    run = check.seen.run
    parts = [_file(run), str(run.get("cache", ""))]
    parts += [f"{run['n_cpu_moe']} layers of experts in main memory" if run.get("n_cpu_moe") else ""]
    parts += ["" if field_speed.fused(run) else "no flash attention"]
    return ", ".join(part for part in parts if part)


def _speed_rows(checks: Iterable[speeds.Check]) -> list[list[object]]:
    return [
        [
            each.seen.source,
            f"{_devices(each.seen.run)} ({each.seen.run['engine']})",
            _setting(each),
            f"{each.seen.depth:,}",
            f"{each.seen.tokens_per_s:,.1f}",
            f"{each.said.value:,.1f}",
            f"{each.said.low:,.1f} to {each.said.high:,.1f}" + ("" if each.inside else " **outside**"),
            percent(each.error),
        ]
        for each in checks
    ]


def _summary(checks: Sequence[speeds.Check]) -> list[object]:
    inside = sum(check.inside for check in checks)
    return [
        len(checks),
        len({check.seen.source for check in checks}),
        f"{100 * speeds.median([abs(check.error) for check in checks]):.1f} %",
        f"{100 * inside / len(checks):.0f} %",
    ]


def _family(check: speeds.Check) -> str:
    names = {speeds.family_of(name) for name in speeds.classes_of(check.seen.run)}
    host = " with experts in main memory" if check.seen.run.get("n_cpu_moe") else ""
    return " + ".join(sorted(names)) + host


def speed_part() -> str:
    """Published speeds beside those predicted without their author."""
    head = ("source", "devices", "setting", "depth>", "published>", "predicted>", "80 % range", "error>")
    parts = [
        "## Speed\n",
        SPEED_HEAD,
    ]
    rows: list[list[object]] = []
    for kind in ("decode", "prefill"):
        judged = speeds.judged(kind)
        rows.append([f"**{kind}, all**", *_summary(judged)])
        families = dict.fromkeys(sorted(_family(check) for check in judged))
        rows += [[f"{kind}, {name}", *_summary([c for c in judged if _family(c) == name])] for name in families]
    parts.append(table(("figures", "count>", "authors>", "median error>", "inside the range>"), rows))
    for kind in ("decode", "prefill"):
        parts += [f"### Published {kind} beside predicted\n", table(head, _speed_rows(speeds.judged(kind)))]
    rest = [check for check in speeds.checks() if not check.seen.counts("judged")]
    reasons = [[*row, check.seen.why_not] for row, check in zip(_speed_rows(rest), rest, strict=True)]
    parts += [
        "### Not counted\n",
        "Figures that say little about a current engine, or whose setting is not known.\n",
        table((*head, "why"), reasons),
        "Nor can these be compared, because their hardware is not named: "
        + "; ".join(f"{run['source']}" for run in field_speed.unnamed_runs())
        + ".\n",
    ]
    return "\n".join(parts)


def tuned_part() -> str:
    """Tuned plans beside the engine's own choices, measured here."""
    told = field_speed.read("tuned.yaml")
    head = f"{told['machine']}; {told['engine']}; {told['model']}; {told['date']}"
    parts = [TUNED_HEAD.format(head=head)]
    for run in told["runs"]:
        noise = " and ".join(f"{percent(value).lstrip('+')} in {name}" for name, value in run["noise"].items())
        parts.append(
            f"`{run['command']}`, {run['prompt_tokens']} tokens of prompt after {run['depth_tokens']:,}, "
            f"{run['rounds']} rounds; noise {noise}; shipped: {run['shipped']}.\n"
        )
        rows = [[arm["name"], _measured(arm["prefill"]), _measured(arm["decode"])] for arm in run["arms"]]
        parts.append(table(("configuration", "prefill>", "decode>"), rows))
        against = [[row["rival"], f"{row['prefill']:.2f}", f"{row['decode']:.2f}"] for row in run["against"]]
        parts.append(table(("what was shipped against", "prefill, times>", "decode, times>"), against))
    return "\n".join((*parts, TUNED_END))


def _measured(speed: Sequence[float]) -> str:
    value, low, high = speed
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def page() -> str:
    """The whole page."""
    return "\n".join((HEAD, memory_part(), speed_part(), CPU, tuned_part(), REHEARSED))


def classes_text() -> str:
    """The fitted factors as YAML."""
    import yaml

    judged = {kind: speeds.judged(kind) for kind in ("decode", "prefill")}
    authors = {check.seen.source for checks in judged.values() for check in checks}
    head = CLASSES_HEAD.format(n_decode=len(judged["decode"]), n_prefill=len(judged["prefill"]), n_authors=len(authors))
    return head + yaml.safe_dump(speeds.document(), sort_keys=False, default_flow_style=None, width=120)


def main() -> None:
    """Write both files, or show the page."""
    if "--print" in sys.argv[1:]:
        print(page())
        return
    CLASSES.write_text(classes_text(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    for kind in ("decode", "prefill"):
        count, authors, error, inside = _summary(speeds.judged(kind))
        print(f"{kind}: {count} figures of {authors} authors, median error {error}, {inside} inside the range")


if __name__ == "__main__":
    main()

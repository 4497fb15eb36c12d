"""The text of a report: the choice at a glance, figures with what they say, tables, and where each number is from."""

from glmplan.estimate import Estimate
from glmplan.render.report_html import Html, element, joined
from glmplan.render.report_tables import (
    command_section,
    ledger_section,
    machine_section,
    sources_section,
    why_section,
)
from glmplan.render.report_words import BASIS_WORDS, basis_word, count, rate, spread
from glmplan.report import Report
from glmplan.units import format_bytes


def title_of(report: Report) -> str:
    """The document's title."""
    plan = report.plan
    return f"{plan.model.name} {plan.model.quantization} on {_devices(report)}"


def _devices(report: Report) -> str:
    machine = report.plan.machine
    names = [gpu.name for gpu in machine.gpus]
    if not names:
        cpu = machine.cpu if machine.cpu != "unknown" else "a CPU"
        return f"{cpu} with {format_bytes(machine.host_memory_bytes)}"
    counted = dict.fromkeys(names)
    return ", ".join(name if names.count(name) == 1 else f"{names.count(name)} x {name}" for name in counted)


def body(report: Report, figures: set[str]) -> Html:
    """Everything between the body tags but the scripts."""
    return joined(
        _head(report),
        element(
            "main",
            _glance(report),
            _warnings(report),
            _reasons(report),
            *_figures(report, figures),
            command_section(report),
            ledger_section(report),
            why_section(report),
            machine_section(report),
            sources_section(report),
        ),
        _foot(report),
    )


def _head(report: Report) -> Html:
    plan = report.plan
    placement = plan.placement
    build = f" {placement.engine_build}" if placement.engine_build else ""
    under = (
        f"{count(placement.n_ctx)} tokens of context, KV cache {placement.cache_type_k}, "
        f"planned for {placement.engine}{build}, objective {plan.workload.objective}"
    )
    return element(
        "header",
        element("p", "glmplan report", class_="kicker"),
        element("h1", f"{plan.model.name} ", element("span", plan.model.quantization, class_="quant")),
        element("p", f"on {_devices(report)}", class_="where"),
        element("p", under, class_="under"),
    )


def _glance(report: Report) -> Html:
    """The five numbers people ask for first, each with its basis."""
    plan = report.plan
    speed, placement = plan.speed, plan.placement
    tightest = min(plan.memory.devices, key=lambda device: device.margin_bytes)
    memory = basis_word(plan.memory.basis)
    at = f"at {count(speed.depth_tokens)} tokens of depth"
    tiles = (
        ("Context", count(placement.n_ctx), "tokens", _shared(placement.n_parallel)),
        ("Decode", rate(speed.decode_tokens_per_s.value), "tokens/s", f"{spread(speed.decode_tokens_per_s)} {at}"),
        ("Prefill", rate(speed.prefill_tokens_per_s.value), "tokens/s", f"{spread(speed.prefill_tokens_per_s)} {at}"),
        ("First token", *_ttft(speed.ttft_ms, plan.workload.prompt_tokens)),
        ("Left free", *format_bytes(tightest.margin_bytes).split(" "), f"{tightest.id}, the tightest; {memory}"),
    )
    return element("section", *(_tile(*tile) for tile in tiles), class_="glance", aria_label="At a glance")


def _tile(name: str, value: str, unit: str, beneath: str) -> Html:
    return element(
        "div",
        element("h2", name),
        element("p", element("b", value), " ", element("span", unit), class_="value"),
        element("p", beneath, class_="beneath"),
        class_="tile",
    )


def _shared(n_parallel: int) -> str:
    return "for one request at a time" if n_parallel == 1 else f"shared by {n_parallel} requests at once"


def _ttft(estimate: Estimate, prompt_tokens: int) -> tuple[str, str, str]:
    """Value, unit, and its range in that unit."""
    unit, scale = ("s", 1000.0) if estimate.value >= 1000 else ("ms", 1.0)
    value, low, high = (rate(number / scale) for number in (estimate.value, estimate.low, estimate.high))
    return value, unit, f"{low} to {high}, {BASIS_WORDS[estimate.basis]}, after {count(prompt_tokens)} tokens of prompt"


def _warnings(report: Report) -> Html:
    lines = (*report.plan.warnings, *report.notes)
    if not lines:
        return joined()
    listed = element("ul", *(element("li", line) for line in lines))
    return element("section", element("h2", "Mind"), listed, class_="warnings")


def _reasons(report: Report) -> Html:
    if not report.plan.reasons:
        return joined()
    return element(
        "section",
        element("h2", "Why this plan"),
        element("ul", *(element("li", reason) for reason in report.plan.reasons)),
        class_="reasons",
    )


def _figures(report: Report, drawn: set[str]) -> list[Html]:
    found = [_figure("memory", "Memory by device", _memory_words(report), drawn)]
    found.append(_figure("context", "Context against memory", _context_words(report), drawn))
    found.append(
        element(
            "div",
            _figure("decode", "Decode speed by depth", _speed_words(report), drawn),
            _figure("prefill", "Prefill speed by depth", _speed_words(report), drawn),
            class_="pair",
        )
    )
    found.append(_figure("front", "Context against decode speed", _front_words(report), drawn))
    return found


def _figure(key: str, name: str, words: str, drawn: set[str]) -> Html:
    plot = element("div", id=f"plot-{key}", class_="plot", role="img", aria_label=name) if key in drawn else joined()
    return element("figure", element("h2", name), plot, element("figcaption", words), class_=f"figure {key}")


def _memory_words(report: Report) -> str:
    plan = report.plan
    names = "; ".join(f"{gpu.id} is {gpu.name}" for gpu in plan.machine.gpus)
    source = {
        "roofline": "Computed from the file's tensors and the engine's rules",
        "measured": "Measured: the engine's own dry run of this configuration",
    }.get(plan.memory.basis, plan.memory.basis)
    return f"{source}; overhead is assumed. The mark is what may be used.{f' {names}.' if names else ''}"


def _not_drawn(report: Report, part: str) -> str:
    missing = report.why_missing(part)
    if missing is None:
        return ""
    hint = f" {missing.hint}." if missing.hint else ""
    return f"Not drawn: {missing.why}.{hint}"


def _context_words(report: Report) -> str:
    if report.room is None:
        return _not_drawn(report, "context and depth")
    fits = ", ".join(
        f"{curve.cache_type} {count(curve.largest_n_ctx)}" if curve.largest_n_ctx else f"{curve.cache_type} none"
        for curve in report.room.curves
    )
    return (
        f"The plan's placement, with every other knob as it is: {report.room.device} fills up first. "
        f"Longest context that fits everywhere, in tokens, by KV cache: {fits}. Computed."
    )


def _speed_words(report: Report) -> str:
    measured = report.why_missing("measured points")
    dots = f"Dots: {len(report.measured)} samples measured here" if measured is None else f"No dots: {measured.why}"
    hint = f"; {measured.hint}" if measured is not None and measured.hint else ""
    if not report.depths:
        star = "The star is the plan's own number with its range."
        return f"{_not_drawn(report, 'context and depth')} {star} {dots}{hint}."
    hollow = " Hollow: synthetic weights of the same shape." if any(p.synthetic for p in report.measured) else ""
    bases = dict.fromkeys(BASIS_WORDS[point.decode_tokens_per_s.basis] for point in report.depths)
    return f"Line: forecast ({', '.join(bases)}); band: meant to hold 80 % of outcomes. {dots}{hint}.{hollow}"


def _front_words(report: Report) -> str:
    if report.front is None:
        return _not_drawn(report, "front")
    beaten = len(report.front.considered) - len(report.front.points)
    return (
        f"Nothing that fits has more of both than the {len(report.front.points)} configurations on the line; "
        f"{beaten} others were considered. Decode is judged with a quarter of each context filled. The plan need not "
        "lie on the line: the quality of the file counts too."
    )


def _foot(report: Report) -> Html:
    plan = report.plan
    return element(
        "footer",
        f"Plan of {plan.created_at} by glmplan {plan.glmplan_version}; page written {report.written_at}. "
        "The page is complete in itself: it loads nothing and sends nothing.",
    )

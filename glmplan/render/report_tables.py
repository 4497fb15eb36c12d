"""The tables of a report: the ledger, the command, runners-up and prices, the machine, and the sources of numbers."""

from glmplan.estimate import Basis
from glmplan.plan import Alternative, Plan
from glmplan.quality import Divergence
from glmplan.render.report_html import Html, element, joined, table
from glmplan.render.report_words import BASIS_WORDS, basis_word, count, rate, spread
from glmplan.report import Report
from glmplan.units import format_bytes


def ledger_section(report: Report) -> Html:
    """Parts by device, in GiB and to the byte, with the basis of each row."""
    memory = report.plan.memory
    computed = basis_word(memory.basis)
    parts = (
        ("weights", [device.weights_bytes for device in memory.devices], computed),
        ("KV cache", [device.kv_cache_bytes for device in memory.devices], computed),
        ("compute buffers", [device.compute_bytes for device in memory.devices], computed),
        ("overhead", [device.overhead_bytes for device in memory.devices], BASIS_WORDS[Basis.ASSUMED]),
    )
    rows: list[tuple[Html | str, ...]] = [(name, *map(_size, sizes), basis) for name, sizes, basis in parts]
    rows += [
        ("needed", *(_size(device.needed_bytes) for device in memory.devices), "their sum"),
        ("usable", *(_size(device.usable_bytes) for device in memory.devices), _usable_source(report)),
        ("left free", *(_size(device.margin_bytes) for device in memory.devices), "usable less needed"),
    ]
    head = ("", *(device.id for device in memory.devices), "basis")
    return element("section", element("h2", "Ledger"), table(head, rows, class_="ledger"))


def _usable_source(report: Report) -> str:
    return "observed when planned" if report.plan.machine.cpu != "unknown" else "assumed from its size"


def _size(n_bytes: int) -> Html:
    return joined(format_bytes(n_bytes), element("small", f"{count(n_bytes)} B"))


def command_section(report: Report) -> Html:
    """The exact command, and configuration files it reads."""
    command = report.command
    if command is None:
        missing = report.why_missing("command")
        why = "" if missing is None else f"{missing.why}. {missing.hint}"
        return element("section", element("h2", "Command"), element("p", f"None: {why}"), class_="command")
    files = [
        element("details", element("summary", path), element("pre", element("code", text), tabindex="0"))
        for path, text in command.files
    ]
    return element(
        "section",
        element("h2", "Command"),
        element("pre", element("code", command.text), tabindex="0"),
        *files,
        element("p", f"{command.how[:1].upper()}{command.how[1:]}.", class_="note"),
        class_="command",
    )


def why_section(report: Report) -> Html:
    """Runners-up with why each lost, and what one more step of anything costs or buys."""
    plan = report.plan
    parts: list[Html] = []
    if plan.alternatives:
        head = ("file", "context", "KV", "on host", "decode, tokens/s", "why not")
        rows = [_runner_up(row) for row in plan.alternatives]
        parts.append(joined(element("h2", "Runners-up"), table(head, rows, class_="runners")))
    if plan.prices:
        steps: list[tuple[Html | str, ...]] = [(price.step, price.effect) for price in plan.prices]
        parts.append(joined(element("h2", "One step more"), table(("step", "what it costs or buys"), steps)))
    return joined(*(element("section", part, class_="why") for part in parts))


def _runner_up(row: Alternative) -> tuple[Html | str, ...]:
    on_host = next((device.weights_bytes for device in row.memory.devices if device.id == "host"), 0)
    decode = row.speed.decode_tokens_per_s
    return (
        row.quantization,
        count(row.placement.n_ctx),
        row.placement.cache_type_k,
        format_bytes(on_host),
        joined(rate(decode.value), element("small", spread(decode))),
        row.why_not,
    )


def machine_section(report: Report) -> Html:
    """The machine, the engine, the file and the workload, as the plan names them."""
    plan = report.plan
    rows = [
        *_machine_rows(plan),
        ("known", report.machine_source),
        ("engine", f"{plan.placement.engine} {plan.placement.engine_build or '(any build)'}"),
        ("model file", f"{plan.model.file}, {format_bytes(plan.model.file_bytes)}, {plan.model.n_layer} layers"),
        ("sha256", plan.model.sha256 or "not known"),
        *_quality_rows(plan),
        ("workload", _workload(plan)),
        ("fingerprint", plan.machine.fingerprint),
    ]
    listed = [joined(element("dt", name), element("dd", value)) for name, value in rows]
    return element("section", element("h2", "Machine, engine, file"), element("dl", *listed))


def _quality_rows(plan: Plan) -> list[tuple[str, str]]:
    """What file and cache lose in answers, where the plan says."""
    if plan.quality is None:
        return []
    return [
        ("KL divergence, file", _lost(plan.quality.file)),
        ("KL divergence, cache", _lost(plan.quality.cache)),
    ]


def _lost(found: Divergence) -> str:
    if found.estimate is None:
        return f"not known: {found.rests_on}"
    value = found.estimate
    spelled = f"{value.value:.2g} nats per token ({value.low:.2g} to {value.high:.2g}, {BASIS_WORDS[value.basis]})"
    return f"{spelled}: {found.rests_on}"


def _workload(plan: Plan) -> str:
    asked = plan.workload
    tokens = f"{count(asked.prompt_tokens)} tokens of prompt, {count(asked.output_tokens)} of answer"
    return f"{tokens}, {asked.n_parallel} at once, objective {asked.objective}"


def _machine_rows(plan: Plan) -> list[tuple[str, str]]:
    machine = plan.machine
    rows = [("system", machine.os or "not known"), ("processor", machine.cpu)]
    rows += [
        (gpu.id, f"{gpu.name}, {format_bytes(gpu.memory_total_bytes)}{f', driver {gpu.driver}' if gpu.driver else ''}")
        for gpu in machine.gpus
    ]
    return [*rows, ("main memory", format_bytes(machine.host_memory_bytes))]


def sources_section(report: Report) -> Html:
    """What the words beside the numbers mean."""
    rows: list[tuple[Html | str, ...]] = [
        ("measured", "by the engine's own count, or by a clock while it ran on this machine"),
        ("calibrated", "computed with factors fitted to published runs on devices of this class"),
        ("computed (roofline)", "from the file's tensors, the engine's rules, and the device's bandwidth and FLOPs"),
        ("assumed", "an engineering margin, or a device of which no run of this model is known: a wide range"),
        ("range", "from low to high: meant to hold 80 % of outcomes"),
    ]
    rows += [
        (f"not shown: {missing.part}", f"{missing.why}{f'; {missing.hint}' if missing.hint else ''}")
        for missing in report.missing
    ]
    return element("section", element("h2", "Where the numbers come from"), table(("word", "meaning"), rows))

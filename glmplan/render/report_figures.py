"""The figures of a report, as plotly draws them: plain JSON of traces and layout, in the colours of a light screen.

`narrow` holds what a phone's width needs otherwise. tests/unit/test_report.py has plotly itself check every property.
"""

from typing import Final

from glmplan.comparison import FrontPoint
from glmplan.errors import JsonValue
from glmplan.estimate import Estimate
from glmplan.noun import noun
from glmplan.plan import Plan, PlannedDevice
from glmplan.render.report_palette import light
from glmplan.report import ContextCurve, ContextRoom, DepthPoint, Front, MeasuredPoint, Report
from glmplan.units import GIB, KIB, format_bytes, three_digits

JsonObject = dict[str, JsonValue]
_PARTS: Final = (("weights", "weights"), ("KV cache", "kv-cache"), ("compute", "compute"), ("overhead", "overhead"))
_SERIES: Final = ("weights", "kv-cache", "compute", "overhead")
_DASHES: Final = ("solid", "dash", "dot", "dashdot")
_SYMBOLS: Final = ("circle", "square", "triangle-up", "diamond")
_ROW_HEIGHT: Final = 78
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


@noun
class Figure:
    """One figure: `key` names it on the page, `narrow` changes its layout on a phone."""

    key: str
    traces: tuple[JsonObject, ...]
    layout: JsonObject
    narrow: JsonObject


def figures_of(report: Report) -> tuple[Figure, ...]:
    """Every figure that can be drawn, in the page's order."""
    plan = report.plan
    found = [memory_figure(plan.memory.devices)]
    if report.room is not None:
        found.append(context_figure(report.room, plan))
    found.append(speed_figure("decode", report))
    found.append(speed_figure("prefill", report))
    if report.front is not None:
        found.append(front_figure(report.front, plan))
    return tuple(found)


def _layout(x: JsonObject, y: JsonObject, **more: JsonValue) -> JsonObject:
    """What all figures share: no frame, thin lines, the legend above, hover beside the pointer."""
    axis: JsonObject = {
        "gridcolor": light("line"), "linecolor": light("line"), "zeroline": False, "automargin": True,
        "tickfont": {"color": light("soft"), "size": 12}, "tickformat": ",", "fixedrange": True,
    }  # fmt: skip
    base: JsonObject = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": light("ink")},
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "xanchor": "left",
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "hoverlabel": {"bgcolor": light("sheet"), "bordercolor": light("line"), "font": {"color": light("ink")}},
        "dragmode": False,
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
    }
    return {**base, **more}


def _titled(text: str, **more: JsonValue) -> JsonObject:
    return {"title": {"text": text, "standoff": 10, "font": {"size": 12, "color": light("soft")}}, **more}


def _plain(text: str) -> str:
    """`text` as plotly shows it letter by letter: neither its markup nor a template's placeholder."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def _token_axis(n_most: int, text: str) -> JsonObject:
    """Tokens at multiples of 1,024, as contexts are named."""
    step = next((size for size in (1, 2, 4, 8, 16, 32) if n_most / (size * KIB) <= 7), 64) * KIB
    marks = list(range(0, n_most + 1, step))
    ticks: list[JsonValue] = [*marks]
    names: list[JsonValue] = ["0" if mark == 0 else f"{mark // KIB}k" for mark in marks]
    return _titled(text, tickvals=ticks, ticktext=names, range=[0, n_most * 1.04])


def _gib(n_bytes: int) -> float:
    return round(n_bytes / GIB, 4)


def memory_figure(devices: tuple[PlannedDevice, ...]) -> Figure:
    """Stacked bars by device, with what may be used as a mark."""
    names: list[JsonValue] = [_plain(device.id) for device in devices]
    sizes = [
        (device.weights_bytes, device.kv_cache_bytes, device.compute_bytes, device.overhead_bytes) for device in devices
    ]
    traces: list[JsonObject] = []
    for index, (label, role) in enumerate(_PARTS):
        texts: list[JsonValue] = [format_bytes(row[index]) for row in sizes]
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": label, "y": names, "x": [_gib(row[index]) for row in sizes],
                "text": texts, "textposition": "inside", "insidetextanchor": "middle", "textangle": 0,
                "hovertemplate": f"%{{y}}: {label} %{{text}}<extra></extra>", "width": 0.5, "constraintext": "inside",
                "marker": {"color": light(role), "line": {"width": 1, "color": light("sheet")}},
                "insidetextfont": {"color": light("on-kv-cache" if role == "kv-cache" else "on-part")},
            }
        )  # fmt: skip
    limits: list[JsonValue] = [_gib(device.usable_bytes) for device in devices]
    traces.append(
        {
            "type": "scatter", "mode": "markers", "name": "usable", "y": names, "x": limits,
            "text": [format_bytes(device.usable_bytes) for device in devices],
            "hovertemplate": "%{y}: %{text} may be used<extra></extra>",
            "marker": {"symbol": "line-ns-open", "size": 28, "color": light("limit"), "line": {"width": 3}},
        }
    )  # fmt: skip
    largest = max([_gib(device.usable_bytes) for device in devices] + [_gib(device.needed_bytes) for device in devices])
    layout = _layout(
        _titled("GiB", range=[0, largest * 1.03]),
        {"autorange": "reversed", "showgrid": False, "tickfont": {"color": light("ink"), "size": 14}},
        barmode="stack",
        annotations=[_total(device) for device in devices],
        uniformtext={"mode": "hide", "minsize": 10},
    )
    height = _ROW_HEIGHT * len(devices)
    layout["height"] = height + 90
    return Figure(key="memory", traces=tuple(traces), layout=layout, narrow={"height": height + 140})


def _total(device: PlannedDevice) -> JsonObject:
    """What a device needs of what it has, above its bar."""
    needed, usable = format_bytes(device.needed_bytes), format_bytes(device.usable_bytes)
    return {
        "x": 0, "y": _plain(device.id), "yshift": 29, "xanchor": "left", "showarrow": False,
        "text": f"{needed} of {usable} usable", "font": {"size": 12, "color": light("soft")},
    }  # fmt: skip


def context_figure(room: ContextRoom, plan: Plan) -> Figure:
    """Memory of one device by context, a line for each KV cache type, and the limit."""
    traces = [_context_trace(curve, index, plan) for index, curve in enumerate(room.curves)]
    placed = next((device for device in plan.memory.devices if device.id == room.device), None)
    if placed is not None:
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "this plan",
                "x": [plan.placement.n_ctx], "y": [_gib(placed.needed_bytes)],
                "marker": {"symbol": "star", "size": 15, "color": light("ink")},
                "hovertemplate": "this plan: %{x:,} tokens, %{y:.1f} GiB<extra></extra>",
            }
        )  # fmt: skip
    sizes = [_gib(point.needed_bytes) for curve in room.curves for point in curve.points]
    limit = _gib(room.usable_bytes)
    low, high = min([*sizes, limit]), max([*sizes, limit])
    space = max(high - low, 0.5) * 0.12
    top = high + space
    n_most = max(point.n_ctx for curve in room.curves for point in curve.points)
    over: JsonObject = {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": limit, "y1": top,
        "fillcolor": light("too-much"), "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    line: JsonObject = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": limit, "y1": limit,
        "line": {"color": light("limit"), "width": 2},
    }  # fmt: skip
    words: JsonObject = {
        "xref": "paper", "x": 0.01, "y": limit, "yanchor": "bottom", "xanchor": "left", "showarrow": False,
        "text": f"{_plain(room.device)}: {format_bytes(room.usable_bytes)} usable", "font": {"color": light("limit")},
    }  # fmt: skip
    layout = _layout(
        _token_axis(n_most, "tokens of context"),
        _titled(f"GiB on {_plain(room.device)}", range=[max(0.0, low - space), top]),
        shapes=[over, line],
        annotations=[words],
    )
    return Figure(key="context", traces=tuple(traces), layout=layout, narrow={})


def _context_trace(curve: ContextCurve, index: int, plan: Plan) -> JsonObject:
    chosen = curve.cache_type == plan.placement.cache_type_k
    return {
        "type": "scatter", "mode": "lines", "name": f"KV cache {_plain(curve.cache_type)}",
        "x": [point.n_ctx for point in curve.points], "y": [_gib(point.needed_bytes) for point in curve.points],
        "line": {
            "color": light(_SERIES[index % len(_SERIES)]),
            "dash": _DASHES[index % len(_DASHES)],
            "width": 3 if chosen else 2,
        },
        "hovertemplate": f"{_plain(curve.cache_type)}: %{{x:,}} tokens take %{{y:.2f}} GiB<extra></extra>",
    }  # fmt: skip


def speed_figure(kind: str, report: Report) -> Figure:
    """Decode or prefill speed by depth: the forecast and its range, the plan's own number, what was measured."""
    plan = report.plan
    planned = plan.speed.decode_tokens_per_s if kind == "decode" else plan.speed.prefill_tokens_per_s
    traces = _forecast(kind, report.depths)
    traces.append(
        {
            "type": "scatter", "mode": "markers", "name": "this plan",
            "x": [plan.speed.depth_tokens], "y": [_round(planned.value)],
            "error_y": {
                "type": "data", "symmetric": False, "array": [_round(planned.high - planned.value)],
                "arrayminus": [_round(planned.value - planned.low)], "color": light("soft"), "thickness": 1.5,
            },
            "marker": {"symbol": "star", "size": 15, "color": light("ink")},
            "hovertemplate": f"this plan: %{{y:.4~g}} tokens/s at %{{x:,}} ({planned.basis})<extra></extra>",
        }
    )  # fmt: skip
    traces += _measured(kind, report.measured)
    n_most = max([plan.placement.n_ctx, *(point.depth_tokens for point in report.measured)])
    layout = _layout(
        _token_axis(n_most, "tokens already in the context"), _titled("tokens per second", rangemode="tozero")
    )
    return Figure(key=kind, traces=tuple(traces), layout=layout, narrow={})


def _forecast(kind: str, depths: tuple[DepthPoint, ...]) -> list[JsonObject]:
    if not depths:
        return []
    found = [_of(kind, point) for point in depths]
    x: list[JsonValue] = [point.depth_tokens for point in depths]
    low: list[JsonValue] = [_round(value.low) for value in found]
    high: list[JsonValue] = [_round(value.high) for value in found]
    line: list[JsonValue] = [_round(value.value) for value in found]
    ranges: list[JsonValue] = [[value.low, value.high] for value in found]
    return [
        {
            "type": "scatter", "mode": "lines", "name": "80 % range", "x": [*x, *reversed(x)],
            "y": [*high, *reversed(low)], "fill": "toself", "fillcolor": light("band"), "line": {"width": 0},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "lines", "name": "forecast", "x": x, "y": line, "customdata": ranges,
            "line": {"color": light("weights"), "width": 3},
            "hovertemplate": "forecast: %{y:.4~g} tokens/s at %{x:,}, "
            "%{customdata[0]:.3~g} to %{customdata[1]:.3~g}<extra></extra>",
        },
    ]  # fmt: skip


def _of(kind: str, point: DepthPoint) -> Estimate:
    return point.decode_tokens_per_s if kind == "decode" else point.prefill_tokens_per_s


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def _measured(kind: str, points: tuple[MeasuredPoint, ...]) -> list[JsonObject]:
    """Dots; hollow where the weights were synthetic."""
    traces: list[JsonObject] = []
    for synthetic in (False, True):
        chosen = [point for point in points if point.synthetic is synthetic]
        if not chosen:
            continue
        speeds = [point.decode_tokens_per_s if kind == "decode" else point.prefill_tokens_per_s for point in chosen]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": "synthetic" if synthetic else "measured",
                "x": [point.depth_tokens for point in chosen], "y": [_round(speed) for speed in speeds],
                "text": [_plain(f"{point.engine}, {point.measured_at}") for point in chosen],
                "marker": {
                    "symbol": "circle-open" if synthetic else "circle", "size": 9, "color": light("measured"),
                    "line": {"width": 2, "color": light("measured")},
                },
                "hovertemplate": "measured: %{y:.4~g} tokens/s at %{x:,}<br>%{text}<extra></extra>",
            }
        )  # fmt: skip
    return traces


def front_figure(front: Front, plan: Plan) -> Figure:
    """Context against decode speed: all that fits, the front that nothing beats, and this plan."""
    traces: list[JsonObject] = [
        {
            "type": "scatter", "mode": "lines", "name": "front",
            "x": [point.n_ctx for point in front.points], "y": [_round(_speed(point)) for point in front.points],
            "line": {"color": light("soft"), "width": 2}, "hoverinfo": "skip",
        }
    ]  # fmt: skip
    files = dict.fromkeys(point.quantization for point in front.considered)
    on_front = set(front.points)
    for index, file in enumerate(files):
        for best in (True, False):
            chosen = [p for p in front.considered if p.quantization == file and (p in on_front) is best]
            if chosen:
                traces.append(_configurations(chosen, file, index, best=best, alone=not _has_best(front, file)))
    traces.append(
        {
            "type": "scatter", "mode": "markers", "name": "this plan", "x": [plan.placement.n_ctx],
            "y": [_round(plan.speed.decode_tokens_per_s.value)],
            "marker": {"symbol": "star", "size": 17, "color": light("ink")},
            "hovertemplate": "this plan: %{x:,} tokens, %{y:.4~g} tokens/s<extra></extra>",
        }
    )  # fmt: skip
    layout = _layout(
        _token_axis(max(point.n_ctx for point in front.considered), "tokens of context"),
        _titled("decode, tokens per second", rangemode="tozero"),
    )
    return Figure(key="front", traces=tuple(traces), layout=layout, narrow={})


def _has_best(front: Front, file: str) -> bool:
    return any(point.quantization == file for point in front.points)


def _configurations(chosen: list[FrontPoint], file: str, index: int, *, best: bool, alone: bool) -> JsonObject:
    """Configurations of one file: full marks on the front, faint ones behind it."""
    return {
        "type": "scatter", "mode": "markers", "name": _plain(file), "legendgroup": _plain(file),
        "showlegend": best or alone,
        "x": [point.n_ctx for point in chosen], "y": [_round(_speed(point)) for point in chosen],
        "text": [_plain(_words(point)) for point in chosen],
        "marker": {
            "symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 10 if best else 7, "opacity": 1.0 if best else 0.45,
            "color": light(_SERIES[index % len(_SERIES)]),
        },
        "hovertemplate": "%{x:,} tokens, %{y:.4~g} tokens/s<br>%{text}<extra></extra>",
    }  # fmt: skip


def _words(point: FrontPoint) -> str:
    speed = point.decode_tokens_per_s
    told = f"{three_digits(speed.low)} to {three_digits(speed.high)} ({speed.basis})"
    return f"{point.quantization}, KV cache {point.cache_type}; {told}"


def _speed(point: FrontPoint) -> float:
    return point.decode_tokens_per_s.value

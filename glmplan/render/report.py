"""A report as one HTML document: style, plotly.js, figures and text in it, and a policy that forbids the network."""

import base64
import hashlib
import json
from importlib import resources

from glmplan.jsonio import to_jsonable
from glmplan.render.report_figures import Figure, figures_of
from glmplan.render.report_html import element, raw
from glmplan.render.report_page import body, title_of
from glmplan.render.report_palette import COLOURS, variables
from glmplan.report import Report


def figures_on(report: Report) -> tuple[str, ...]:
    """Names of the figures the page of `report` has."""
    return tuple(figure.key for figure in figures_of(report))


def page(report: Report) -> str:
    """The whole document; the same for the same report."""
    figures = figures_of(report)
    scripts = (_plotly(), _shipped("report.js"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title_of(report)),
        raw("style", variables() + _shipped("report.css")),
    )
    drawn = element(
        "body",
        body(report, {figure.key for figure in figures}),
        raw("script", _figures_json(figures), type="application/json", id="figures"),
        *(raw("script", text) for text in scripts),
    )
    return "<!doctype html>\n" + element("html", head, drawn, lang="en").text + "\n"


def _policy(scripts: tuple[str, ...]) -> str:
    """Only the page's own two scripts run, and nothing is loaded from anywhere."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _figures_json(figures: tuple[Figure, ...]) -> str:
    """Figures and colours for the page's script; no character in it can end a script element."""
    document = {
        "colours": {pair[0]: f"--{role}" for role, pair in COLOURS.items()},
        "figures": [to_jsonable(figure) for figure in figures],
    }
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shipped(name: str) -> str:
    return resources.files("glmplan.render").joinpath(name).read_text("utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")

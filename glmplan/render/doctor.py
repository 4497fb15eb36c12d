"""A diagnosis for a person: worst first, each with its fix."""

from typing import TYPE_CHECKING

from glmplan.diagnosis import Diagnosis
from glmplan.render.model import clean
from glmplan.reserve import Reserve
from glmplan.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console


def show_diagnosis(diagnosis: Diagnosis, console: "Console | None" = None) -> None:
    """Print `diagnosis` to stdout, or to `console`."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=True)
    if not diagnosis.findings:
        console.print(f"nothing wrong found in {', '.join(diagnosis.checked)}", markup=False)
    for number, finding in enumerate(diagnosis.findings, 1):
        console.print(f"{number}. {finding.harm.value}: {clean(finding.what)}", markup=False)
        console.print(f"   fix: {clean(finding.fix)}", markup=False)
        console.print(f"   see: {finding.see}", markup=False)
    for reserve in diagnosis.reserves:
        console.print(clean(_reserve_text(reserve)), markup=False)


def _reserve_text(reserve: Reserve) -> str:
    build = f" {reserve.build}" if reserve.build else ""
    return (
        f"learned: every plan for {reserve.engine}{build} keeps {format_bytes(reserve.reserve_bytes)} free on "
        f"{reserve.device}, since memory ran out there on {reserve.learned_at[:10]} ({reserve.because}); "
        "glmplan doctor --forget-reserves forgets that"
    )

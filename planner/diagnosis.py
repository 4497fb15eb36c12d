"""What is wrong with a machine, its engines, files and settings, in order of harm, each with its fix."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from glmplan.diagnosis import Checkup, Diagnosis, Finding, Harm
from glmplan.planner.diagnosis_engines import engine_findings, ollama_findings
from glmplan.planner.diagnosis_memory import disk_findings, gpu_findings, host_findings, metal_findings
from glmplan.planner.diagnosis_settings import file_findings, port_findings, setting_findings

_RULES: Final[tuple[tuple[str, Callable[[Checkup], Iterator[Finding]]], ...]] = (
    ("engines", engine_findings),
    ("ollama", ollama_findings),
    ("model files", file_findings),
    ("gpus", gpu_findings),
    ("metal limit", metal_findings),
    ("memory and swap", host_findings),
    ("disk", disk_findings),
    ("settings", setting_findings),
    ("ports", port_findings),
)
_ORDER: Final = tuple(Harm)
PAGE: Final = "docs/troubleshooting.md"


def diagnose(checkup: Checkup) -> Diagnosis:
    """Every finding about `checkup`, worst first; equal harm in the order of the rules."""
    found = [replace(finding, see=f"{PAGE}#{finding.code}") for _, rule in _RULES for finding in rule(checkup)]
    found.sort(key=lambda finding: _ORDER.index(finding.harm))
    checked = tuple(name for name, _ in _RULES)
    return Diagnosis(findings=tuple(found), checked=checked, reserves=checkup.reserves)

"""What `glmplan doctor` looks at and what it says: `glmplan/doctor/1`."""

from enum import StrEnum
from typing import Final, Literal

from glmplan.machine import Machine
from glmplan.noun import noun
from glmplan.plan import Plan
from glmplan.reserve import Reserve

DOCTOR_SCHEMA: Final = "glmplan/doctor/1"


class Harm(StrEnum):
    """What a finding costs, worst first."""

    DOES_NOT_RUN = "does not run"
    WRONG_ANSWERS = "wrong answers"
    OUT_OF_MEMORY = "out of memory"
    CHANGES_A_PLAN = "changes a plan"
    SLOW = "slow"


@noun
class Setting:
    """One setting made outside glmplan; `origin` is a file, or `environment`, or the name of a service."""

    name: str
    value: str
    origin: str


@noun
class Configuration:
    """Settings of other tools that reach the engines: llama.cpp's files, LLAMA_ARG_*, OLLAMA_*."""

    llama_cpp: tuple[Setting, ...] = ()
    ollama: tuple[Setting, ...] = ()


@noun
class PortHolder:
    """A port somebody listens on; the name is None when the system does not tell."""

    port: int
    pid: int | None
    name: str | None


@noun
class SuspectFile:
    """A model file on this machine and what is known to be wrong with it."""

    path: str
    code: str
    message: str
    hint: str


@noun
class Checkup:
    """Everything the rules judge; `needed_bytes` is the download still to come, 0 when a file is here."""

    machine: Machine
    configuration: Configuration = Configuration()
    port_holders: tuple[PortHolder, ...] = ()
    files: tuple[SuspectFile, ...] = ()
    needed_bytes: int = 0
    model_bytes: int | None = None
    plan: Plan | None = None
    reserves: tuple[Reserve, ...] = ()


@noun
class Finding:
    """One thing that is wrong: what, with its numbers, and the fix; `see` is where the documents tell more."""

    code: str
    harm: Harm
    what: str
    fix: str
    see: str = ""


@noun
class Diagnosis:
    """All findings, worst first; `reserves` are no fault, but keep memory free in every plan."""

    schema: Literal["glmplan/doctor/1"] = DOCTOR_SCHEMA
    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    reserves: tuple[Reserve, ...] = ()

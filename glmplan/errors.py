"""Everything a user can act on, as one tree.

GlmplanError                  exit 1
├── InputError                exit 2   an option, a YAML file, a plan file
│   ├── ProfileError                   unknown name, malformed profile
│   ├── GgufError                      not a GGUF, truncated, hostile
│   └── PlanFileError                  wrong schema tag, failed validation
├── PlanningError             exit 3   the search ended and nothing is feasible
│   ├── NothingFits                    carries the nearest misses
│   ├── ObjectiveUnmet                 fits, but not at the asked context or speed
│   └── UnsupportedModel               no memory model for this architecture or type
├── EngineError               exit 4
│   ├── EngineNotFound                 where we looked, how to install
│   ├── EngineTooOld                   build found, build needed
│   ├── NotExpressible                 a knob of the plan that this kind of engine does not have
│   ├── ExportRefused                  the target's own checker does not accept a file we wrote
│   ├── EngineExited                   return code and the last log lines
│   ├── EngineNotHealthy               seconds waited, last status
│   ├── PortTaken                      the address somebody else listens on
│   └── ClusterError                   no Ray here, no cluster that runs, or a deployment that failed
├── FetchError                exit 1   a file could not be brought here whole
├── StalePlan                 exit 5   the machine is not the plan's
└── BenchError                exit 6
"""

from collections.abc import Mapping
from typing import ClassVar

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class GlmplanError(Exception):
    """An error with a next step: what happened, the numbers, what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", facts: Mapping[str, JsonValue] | None = None) -> None:
        """Keep the sentence, the next step and the numbers (`facts`, JSON values) apart."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts: dict[str, JsonValue] = dict(facts or {})


class InputError(GlmplanError):
    """An option, a YAML file or a plan file is wrong."""

    exit_code = 2


class ProfileError(InputError):
    """An unknown name (the hint lists near matches) or a malformed profile."""


class GgufError(InputError):
    """Not a GGUF, a truncated or a hostile header; `facts` holds the byte offset."""


class PlanFileError(InputError):
    """A plan file with the wrong schema tag or content."""


class PlanningError(GlmplanError):
    """The search ended and nothing is feasible: a result, not a bug."""

    exit_code = 3


class NothingFits(PlanningError):
    """No configuration fits; `facts` holds the nearest misses with missing bytes per device."""


class ObjectiveUnmet(PlanningError):
    """Something fits, but not at the asked context length or speed."""


class UnsupportedModel(PlanningError):
    """No memory model for this architecture or type: we do not guess."""


class EngineError(GlmplanError):
    """An inference engine could not be used."""

    exit_code = 4


class EngineNotFound(EngineError):
    """No engine of the wanted kind on this machine."""


class EngineTooOld(EngineError):
    """The installed build does not know a flag that the plan needs."""


class NotExpressible(EngineError):
    """This kind of engine has no setting for something the plan pins."""


class ExportRefused(EngineError):
    """A checker of the target did not accept an exported file; `facts` holds who it was and what it said."""


class EngineExited(EngineError):
    """The engine died; `facts` holds its return code and last log lines."""


class EngineNotHealthy(EngineError):
    """The engine did not answer in time."""


class PortTaken(EngineError):
    """Somebody else listens on the address."""


class ClusterError(EngineError):
    """Ray is not installed, no cluster answers, or it did not bring up what was asked of it."""


class FetchError(GlmplanError):
    """A file could not be brought here whole: the server lied or broke off, or the disk has no room for it."""


class StalePlan(GlmplanError):
    """The machine's fingerprint is not the plan's."""

    exit_code = 5


class BenchError(GlmplanError):
    """A measurement failed."""

    exit_code = 6

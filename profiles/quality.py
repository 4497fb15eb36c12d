"""The published figures of `models/quality.yaml` as one table with ranges.

A file's value is the reference study's figure times what the studies differ from it on average (each study counts
once); the range is what they differ by, because nobody measured this very model.
"""

import math
from collections.abc import Mapping
from functools import cache
from statistics import fmean, stdev
from typing import Any, Final

from glmplan.estimate import Basis, Estimate
from glmplan.profiles.store import shipped
from glmplan.quality import Divergence, QualityTable

# 80 % of a normal distribution lie within this many deviations.
_DEVIATIONS: Final = 1.2816
# A file that is only near a measured one, in natural logarithms; a cache figure of another kind of attention.
_NEAR_DEVIATION: Final = 0.4
_CACHE_DEVIATION: Final = 0.8


@cache
def quality_table() -> QualityTable:
    """Everything published, as far as it says something about this model's class."""
    facts = shipped("models", "quality.yaml")
    offset, deviation = _class_offset(facts)
    reference: Mapping[str, Any] = facts["studies"][facts["reference"]]
    n_studies = len(facts["studies"])
    rests_on = f"from {n_studies} models; none is published for GLM-4.7-Flash"
    files = {
        name.lower(): Divergence(
            estimate=_ranged(float(figure["kld"]) * math.exp(offset), deviation), rests_on=rests_on
        )
        for name, figure in reference["files"].items()
    }
    for name, like in facts["near"].items():
        known = float(reference["files"][like]["kld"]) * math.exp(offset)
        wider = math.hypot(deviation, _NEAR_DEVIATION)
        files[name.lower()] = Divergence(estimate=_ranged(known, wider), rests_on=f"as {like}, {rests_on}")
    files["bf16"] = _none("the model as published")
    return QualityTable(files=files, caches=_caches(facts), floor=float(reference["floor"]["kld"]))


def _class_offset(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation, over studies, of the logarithm of their figures over the reference's."""
    studies: Mapping[str, Any] = facts["studies"]
    reference: Mapping[str, Any] = studies[facts["reference"]]["files"]
    offsets: list[float] = []
    for study in studies.values():
        pairs = [(figure, reference[facts["near"].get(name, name)]) for name, figure in study["files"].items()]
        offsets.append(fmean(math.log(float(theirs["kld"]) / float(known["kld"])) for theirs, known in pairs))
    return fmean(offsets), stdev(offsets)


def _caches(facts: Mapping[str, Any]) -> dict[str, Divergence]:
    found = {"f16": _none("what the others are measured against")}
    for name, figures in facts["caches"].items():
        value = math.exp(fmean(math.log(float(figure["kld"])) for figure in figures))
        rests_on = f"from {len(figures)} models; none is published for absorbed MLA"
        found[name] = Divergence(estimate=_ranged(value, _CACHE_DEVIATION), rests_on=rests_on)
    perplexity: Mapping[str, Any] = facts["caches_by_perplexity"]
    for name, value in perplexity["of_type"].items():
        if name not in found:
            more = float(value) - float(perplexity["of_f16"])
            words = f"not published; perplexity of another model {more:+.3f} (standard error {perplexity['error']:g})"
            found[name] = Divergence(estimate=None, rests_on=words)
    return found


def _none(rests_on: str) -> Divergence:
    return Divergence(estimate=Estimate(value=0.0, low=0.0, high=0.0, basis=Basis.ASSUMED), rests_on=rests_on)


def _ranged(value: float, deviation: float) -> Estimate:
    spread = math.exp(_DEVIATIONS * deviation)
    return Estimate(value=value, low=value / spread, high=value * spread, basis=Basis.ASSUMED)

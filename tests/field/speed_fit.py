"""Speed factors fitted to published figures, and how far they are from the authors they were fitted without.

Every time is a sum of amounts times factors; a factor is its family's (CUDA, Metal, CPU, ...) times its class's, each
log-normal around a prior (speed_priors.yaml). Two authors with one machine differ too: each author and machine has an
offset of its own. The most probable values are found by Gauss-Newton steps; their covariance gives each factor's
deviation. Nothing is fitted to a single figure: a class with one author stays near its family.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
from field_speed import Observation, catalog_gpu, machine_of, observations, predicted, read, terms_of
from numpy.typing import NDArray

from glmplan.estimate import Estimate
from glmplan.planner.speed import CONTEXT_FACTORS
from glmplan.profiles.speed_classes import SpeedClasses, gpu_class, usable_flops_per_s
from glmplan.profiles.store import shipped

Vector = NDArray[np.floating[Any]]
Parameter = tuple[str, ...]

_KINDS: Final = ("decode", "prefill")
_HYBRID: Final = "hybrid"
_MOST_STEPS: Final = 40
_SMALLEST_STEP: Final = 1e-5
# Parameters used per token outside the experts' batches, GLM-4.7-Flash: what `math` of other models is scaled by.
_GLM_PARAMETERS: Final = 3.58e9


@dataclass(slots=True)
class _Row:
    """One observation: its terms (amount, class, factor), observed milliseconds and random offset."""

    terms: list[tuple[float, str, str]]
    observed_ms: float
    offset: Parameter
    kind: str
    size: Parameter | None = None


@dataclass(slots=True)
class _Parameters:
    """Names of all parameters with their priors (mean and deviation of a logarithm)."""

    index: dict[Parameter, int] = field(default_factory=dict[Parameter, int])
    means: list[float] = field(default_factory=list[float])
    deviations: list[float] = field(default_factory=list[float])

    def add(self, name: Parameter, mean: float, deviation: float) -> int:
        """The index of `name`, new or old."""
        if name not in self.index:
            self.index[name] = len(self.means)
            self.means.append(mean)
            self.deviations.append(deviation)
        return self.index[name]


def priors() -> Mapping[str, Any]:
    """The document of priors."""
    document: Mapping[str, Any] = read("speed_priors.yaml")
    return document


def family_of(name: str) -> str:
    """The family of a class."""
    return str(priors()["family_of"].get(name, name.split("-", maxsplit=1)[0]))


@cache
def all_classes() -> tuple[str, ...]:
    """Every class the product may ask for."""
    rules = shipped("speeds", "hardware.yaml")
    nvidia = {rules["nvidia"]["unknown"], *rules["nvidia"]["classes"].values()}
    apple = {f"{runtime}-{chip}" for chip in rules["apple"]["classes"].values() for runtime in ("metal", "mlx")}
    return tuple(sorted({*nvidia, *apple, rules["other"], "rocm", "cpu"}))


def _unit_classes() -> SpeedClasses:
    """Every factor 1: terms are amounts."""
    ones = dict.fromkeys(priors()["families"]["cuda"], (1.0, 0.1))
    kind = {"basis": "assumed", "least_spread": 1.0, "machine_deviation": 0.0}
    return SpeedClasses(
        {
            "classes": {name: {"factors": ones, "decode": kind, "prefill": kind} for name in all_classes()},
            "hybrid": dict.fromkeys(priors()["hybrid"], (1.0, 0.1)),
            "run_deviation": {"decode": 0.1, "prefill": 0.1, "context": 0.1},
        }
    )


def _machine_name(run: Mapping[str, Any]) -> str:
    return str(run["devices"]) if run["devices"] else str(run["host"])


def classes_of(run: Mapping[str, Any]) -> set[str]:
    """Classes of the run's devices."""
    machine = machine_of(run, _unit_classes())
    named = {gpu.speed_class for gpu in machine.gpus}
    return named | ({machine.host.speed_class} if not named or run.get("n_cpu_moe") else set[str]())


@cache
def _rows() -> tuple[tuple[str, _Row], ...]:
    """(author, row) of everything the fit may use."""
    units = _unit_classes()
    rows: list[tuple[str, _Row]] = []
    for seen in observations():
        if not seen.counts("fit"):
            continue
        terms = [(a, d.speed_class if d else _HYBRID, f) for d, f, a in terms_of(seen, units) if a > 0]
        offset = ("author", seen.source, _machine_name(seen.run), seen.kind)
        rows.append((seen.source, _Row(terms, 1000.0 / seen.tokens_per_s, offset, seen.kind)))
    return (*rows, *_rows_of_other_models())


def _rows_of_other_models() -> Iterable[tuple[str, _Row]]:
    document = read("speed_other_models.yaml")
    for run in document["runs"]:
        gpu, nodes = catalog_gpu(run["device"]), float(document["models"][run["model"]]["nodes"])
        flops = usable_flops_per_s(gpu)
        assert gpu.bandwidth_bytes_per_s, run["device"]
        assert flops, run["device"]
        name = gpu_class(gpu)
        terms = [
            (1e12 * float(run["gb_read"]) / gpu.bandwidth_bytes_per_s, name, "read"),
            (nodes, name, "launch_ms"),
            (1e3 * nodes * 2.0 * _GLM_PARAMETERS / flops, name, "math"),
        ]
        offset = ("author", str(run["source"]), f"{run['device']} {run['model']}", "decode")
        size = ("nodes", str(run["model"]))
        yield str(run["source"]), _Row(terms, 1000.0 / float(run["tg"]), offset, "decode", size)


@dataclass(frozen=True, slots=True)
class Fit:
    """Most probable logarithms of all parameters and their covariance."""

    parameters: _Parameters
    values: Vector
    covariance: Vector

    def factor(self, name: str, factor: str) -> tuple[float, float]:
        """Value and deviation of a class's factor; families and classes nobody published keep their priors."""
        before = prior(name, factor)
        index = self.parameters.index
        family, own = index.get(_family_parameter(name, factor)), index.get(("class", name, factor))
        value, variance = math.log(before[0]), before[1] ** 2
        if family is not None:
            value, variance = float(self.values[family]), float(self.covariance[family, family])
        if name == _HYBRID:
            return math.exp(value), math.sqrt(variance)
        if own is None:
            return math.exp(value), math.sqrt(variance + class_deviation(factor) ** 2)
        value += float(self.values[own])
        variance += float(self.covariance[own, own])
        if family is not None:
            variance += 2.0 * float(self.covariance[family, own])
        return math.exp(value), math.sqrt(variance)


def class_deviation(factor: str) -> float:
    """How far a class may be from its family."""
    return float(priors()["class_deviation"].get(factor, 0.0))


def prior(name: str, factor: str) -> tuple[float, float]:
    """Value and deviation of a factor before the fit."""
    pair = priors()[_HYBRID][factor] if name == _HYBRID else priors()["families"][family_of(name)][factor]
    return float(pair[0]), float(pair[1])


def _family_parameter(name: str, factor: str) -> Parameter:
    return ("family", name if name == _HYBRID else family_of(name), factor)


@dataclass(frozen=True, slots=True)
class _System:
    """The rows as arrays: term `t` of row `r` is `amounts[t] * exp(incidence[t] @ parameters)`."""

    parameters: _Parameters
    amounts: Vector
    incidence: Vector
    starts: NDArray[np.intp]
    offsets: Vector
    observed: Vector
    variances: Vector


def _system(rows: Sequence[_Row]) -> _System:
    parameters = _Parameters()
    members = [[_members(parameters, row, name, factor) for _, name, factor in row.terms] for row in rows]
    offsets = [parameters.add(row.offset, 0.0, _offset_deviation(row)) for row in rows]
    flat = [indices for each in members for indices in each]
    incidence = np.zeros((len(flat), len(parameters.means)))
    for term, indices in enumerate(flat):
        incidence[term, indices] = 1.0
    selected = np.zeros((len(rows), len(parameters.means)))
    selected[range(len(rows)), offsets] = 1.0
    return _System(
        parameters=parameters,
        amounts=np.array([amount for row in rows for amount, _, _ in row.terms]),
        incidence=incidence,
        starts=np.cumsum([0, *(len(row.terms) for row in rows[:-1])]),
        offsets=selected,
        observed=np.log(np.array([row.observed_ms for row in rows])),
        variances=np.array([float(priors()["point_deviation"][row.kind]) ** 2 for row in rows]),
    )


@cache
def fit(without: str | None = None) -> Fit:
    """The most probable factors, from every author but `without` (Gauss-Newton, solved in the observations' space)."""
    system = _system([row for author, row in _rows() if author != without])
    means, variances = np.array(system.parameters.means), np.array(system.parameters.deviations) ** 2.0
    values: Vector = means.copy()
    if without is not None:
        start = fit()
        values = np.array([start.values[start.parameters.index[name]] for name in system.parameters.index])
    gain: Vector = np.zeros((len(means), len(system.observed)))
    jacobian: Vector = gain.T
    for _ in range(_MOST_STEPS):
        times = system.amounts * np.exp(system.incidence @ values)
        totals = np.add.reduceat(times, system.starts)
        jacobian = np.add.reduceat(times[:, None] * system.incidence, system.starts) / totals[:, None]
        jacobian += system.offsets
        residuals = system.observed - np.log(totals) - system.offsets @ values
        spread = (jacobian * variances) @ jacobian.T + np.diag(system.variances)
        gain = np.linalg.solve(spread, jacobian * variances).T
        step = means + gain @ (residuals + jacobian @ (values - means)) - values
        values += np.clip(step, -0.5, 0.5)
        if float(np.abs(step).max()) < _SMALLEST_STEP:
            break
    return Fit(system.parameters, values, np.diag(variances) - gain @ (jacobian * variances))


def _offset_deviation(row: _Row) -> float:
    """What an author's machine may be off by: the machine's part weighs as much as its time, at the priors."""
    times: dict[str, float] = defaultdict(float)
    for amount, name, factor in row.terms:
        times[name] += amount * prior(name, factor)[0]
    total = sum(times.values())
    own = [
        time / total * _machine_deviation(name, row.kind) if name != _HYBRID else 0.0 for name, time in times.items()
    ]
    return math.hypot(float(priors()["source_deviation"][row.kind]), *own)


def _members(parameters: _Parameters, row: _Row, name: str, factor: str) -> list[int]:
    value, deviation = prior(name, factor)
    found = [parameters.add(_family_parameter(name, factor), math.log(value), deviation)]
    if name != _HYBRID:
        found.append(parameters.add(("class", name, factor), 0.0, class_deviation(factor)))
    if factor in CONTEXT_FACTORS:
        found.append(parameters.add(("slope", *row.offset), 0.0, float(priors()["context_deviation"])))
    if row.size is not None and factor != "read":
        spread = float(read("speed_other_models.yaml")["models"][row.size[1]]["nodes_spread"])
        found.append(parameters.add(row.size, 0.0, math.log(spread)))
    return found


def authors_by_class(without: str | None = None) -> Mapping[tuple[str, str], set[str]]:
    """Authors that published this model on a class, by (class, kind)."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for author, row in _rows():
        if author != without and row.size is None:
            for _, name, _ in row.terms:
                found[name, row.kind].add(author)
    return found


def document(without: str | None = None) -> dict[str, Any]:
    """What `profiles/speeds/classes.yaml` holds, fitted without one author or with all."""
    fitted, authors = fit(without), authors_by_class(without)
    factors = list(priors()["families"]["cuda"])
    classes: dict[str, Any] = {}
    for name in all_classes():
        classes[name] = {
            **{kind: _trust(name, kind, len(authors.get((name, kind), ()))) for kind in _KINDS},
            "factors": {factor: _rounded(fitted.factor(name, factor)) for factor in factors},
        }
    deviations = {kind: _run_deviation(kind) for kind in _KINDS}
    deviations["context"] = float(priors()["context_deviation"])
    ways = {factor: _rounded(fitted.factor(_HYBRID, factor)) for factor in priors()[_HYBRID]}
    return {"run_deviation": deviations, "hybrid": ways, "classes": classes}


def _trust(name: str, kind: str, n_authors: int) -> dict[str, Any]:
    basis = "calibrated" if n_authors > 1 else "roofline" if n_authors else "assumed"
    least = 1.0 if n_authors else float(priors()["least_spread_unseen"][kind])
    return {
        "basis": basis,
        "authors": n_authors,
        "machine_deviation": _machine_deviation(name, kind),
        "least_spread": least,
    }


def _machine_deviation(name: str, kind: str) -> float:
    return float(priors()["machine_deviation"].get(family_of(name), {}).get(kind, 0.0))


def _run_deviation(kind: str) -> float:
    return round(math.hypot(float(priors()["source_deviation"][kind]), float(priors()["point_deviation"][kind])), 3)


def _rounded(pair: tuple[float, float]) -> list[float]:
    return [float(f"{pair[0]:.4g}"), float(f"{pair[1]:.3g}")]


@dataclass(frozen=True, slots=True)
class Check:
    """A published figure beside what is predicted without its author."""

    seen: Observation
    said: Estimate

    @property
    def error(self) -> float:
        """Predicted over published, minus one."""
        return self.said.value / self.seen.tokens_per_s - 1.0

    @property
    def inside(self) -> bool:
        """Whether the range holds the published figure."""
        return self.said.low <= self.seen.tokens_per_s <= self.said.high


@cache
def checks() -> tuple[Check, ...]:
    """Every published figure, predicted from all other authors."""
    found: list[Check] = []
    seen = observations()
    fitted_authors = {author for author, _ in _rows()}
    everything = SpeedClasses(document())
    for author in dict.fromkeys(each.source for each in seen):
        classes = SpeedClasses(document(author)) if author in fitted_authors else everything
        found += [Check(each, predicted(each, classes)) for each in seen if each.source == author]
    return tuple(found)


def judged(kind: str) -> list[Check]:
    """The checks that count."""
    return [check for check in checks() if check.seen.kind == kind and check.seen.counts("judged")]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(np.median(values))

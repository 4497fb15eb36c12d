"""Which published weights stand in for a plan's GGUF file, for runtimes that read other formats."""

from typing import Any

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets
from glmplan.noun import noun
from glmplan.plan import Plan, PlannedModel
from glmplan.units import format_bytes


@noun
class Weights:
    """A repository of the model hub, how much memory its weights take, and what is to be said about the choice."""

    repo: str
    weights_bytes: int
    remarks: tuple[str, ...]


def stand_in(plan: Plan, kind: str, runtime: str) -> Weights:
    """The published weights of `kind` (`safetensors` or `mlx`) nearest to the plan's bits a weight.

    Raises:
        NotExpressible: the plan is for another model than the one whose repositories are known.
    """
    facts = targets.of("weights")
    model = plan.model
    if model.architecture not in facts["architectures"] or model.n_layer not in facts["n_layer"]:
        message = f"{runtime} reads no GGUF files, and no other weights are known for {model.name}"
        raise NotExpressible(
            message, hint="export for llama-server, or another runtime of llama.cpp", facts={"model": model.name}
        )
    bits = _bits(model, facts)
    row = next(row for row in facts[kind] if bits >= row["from_bits"])
    here, there = format_bytes(model.file_bytes), format_bytes(row["bytes"])
    instead = f"{row['repo']} ({there}) stands in for {model.quantization} ({here})"
    remarks = [f"{runtime} reads no GGUF files: {instead}; the plan's memory and speed are not its own"]
    if row["needs"]:
        remarks.append(f"{row['repo']} needs {row['needs']}")
    return Weights(repo=row["repo"], weights_bytes=row["bytes"], remarks=tuple(remarks))


def _bits(model: PlannedModel, facts: dict[str, Any]) -> float:
    """Bits a weight, from the bytes of the file and those of the same model with 16."""
    full = facts["safetensors"][0]["bytes"]
    return float(16 * model.file_bytes / full)

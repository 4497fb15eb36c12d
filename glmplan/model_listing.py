"""The JSON of `glmplan models`: `glmplan/models/1`."""

from typing import Final, Literal

from glmplan.noun import noun

MODELS_SCHEMA: Final = "glmplan/models/1"


@noun
class ListedFile:
    """A file that `--quant` names.

    `known_by` says how its tensor types are known: `recipe`, `listed` or `assumed`; `assumed_bytes` may then lie in
    other tensors than assumed. `repo` and `file` are None for a recipe that no listed publisher offers.
    """

    quant: str
    tensor_bytes: int
    bits_per_weight: float
    quality_rank: int | None
    known_by: str
    assumed_bytes: int
    repo: str | None
    file: str | None
    file_bytes: int | None
    sha256: str | None
    source: str


@noun
class ListedFigure:
    """A benchmark figure: `stated` by the document the project began with, `public` by `source`."""

    benchmark: str
    unit: str
    stated: float | None
    public: float | None
    disagrees: bool
    source: str
    note: str | None


@noun
class ListedModel:
    """A model of the catalog; `has_memory_model`: `plan` covers it, otherwise only `estimate --exact` does."""

    name: str
    title: str
    architecture: str
    n_parameters: int
    n_ctx_train: int
    f16_cache_bytes_per_token: int
    has_memory_model: bool
    files: tuple[ListedFile, ...]
    benchmarks: tuple[ListedFigure, ...]


@noun
class ModelListing:
    """Every matching model."""

    schema: Literal["glmplan/models/1"] = MODELS_SCHEMA
    models: tuple[ListedModel, ...]

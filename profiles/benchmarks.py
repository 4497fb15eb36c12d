"""Published benchmark figures of the models that this project is compared in; they decide nothing."""

from glmplan.noun import noun
from glmplan.profiles.store import shipped


@noun
class BenchmarkFigure:
    """One figure: `stated` by the document the project began with, `public` by `source`; None where not known.

    In percent unless `unit` says otherwise; `disagrees` where the two differ by more than rounding.
    """

    model: str
    benchmark: str
    unit: str
    stated: float | None
    public: float | None
    source: str
    disagrees: bool
    note: str | None


def benchmark_figures() -> tuple[BenchmarkFigure, ...]:
    """All figures, by model, in the order of the table."""
    table = shipped("models", "benchmarks.yaml")
    sources = table["sources"]
    return tuple(
        BenchmarkFigure(
            model=row["model"],
            benchmark=row["benchmark"],
            unit=row.get("unit", "percent"),
            stated=row["stated"],
            public=row["public"],
            source=sources[row["source"]],
            disagrees=row["disagrees"],
            note=row.get("note"),
        )
        for row in table["figures"]
    )

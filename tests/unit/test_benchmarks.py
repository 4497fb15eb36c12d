"""Benchmark figures are data with sources, and say where they disagree with what the project began with."""

import pytest

from glmplan.profiles.benchmarks import BenchmarkFigure, benchmark_figures

FIGURES = benchmark_figures()


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.model}, {figure.benchmark}")
def test_disagreement_is_marked(figure: BenchmarkFigure) -> None:
    assert figure.source
    assert figure.stated is not None or figure.public is not None
    if figure.stated is None or figure.public is None:
        assert not figure.disagrees
        return
    # Rounded to whole billions, a stated number of parameters may be half of one off.
    tolerance = 0.5 if figure.unit == "billion" else 0.05
    assert figure.disagrees == (abs(figure.stated - figure.public) > tolerance)


def test_the_known_disagreements() -> None:
    found = {(figure.model, figure.benchmark) for figure in FIGURES if figure.disagrees}
    assert ("Qwen3-30B-A3B", "SWE-bench Verified") in found
    assert ("Qwen3-Coder (480B)", "SWE-bench Verified") in found
    assert ("DeepSeek-V3.2", "total parameters") in found
    assert not any(model == "GLM-4.7-Flash" for model, _ in found)

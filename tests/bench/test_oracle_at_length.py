"""The closed form against llama.cpp's own allocator in thousands of configurations, the corners of its domain included.

`pytest -m "bench and compiled" -s tests/bench/test_oracle_at_length.py`; GLMPLAN_ORACLE_COUNT configurations of each
kind and model (1,500), GLMPLAN_ORACLE_SEED repeats a run.
"""

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest
from oracle_errors import Errors
from oracle_samples import CARDS, Sample, draw, draw_corner, seed_of_run

from glmplan.launchers.dry_run import DryRun, request_of

pytestmark = [pytest.mark.bench, pytest.mark.compiled]
COUNT: Final = int(os.environ.get("GLMPLAN_ORACLE_COUNT") or 1500)


@pytest.mark.parametrize("model", ["glm-4.7-flash", "qwen3-30b-a3b"])
@pytest.mark.parametrize("drawn", [draw, draw_corner], ids=["domain", "corners"])
def test_many_configurations_equal_the_engine(
    model: str,
    drawn: Callable[..., Sample],
    engine_on: Callable[[str], AbstractContextManager[DryRun]],
    header_true: Callable[..., Path],
) -> None:
    seed = seed_of_run()
    generator, errors = random.Random(seed), Errors()
    for cards in CARDS:
        with engine_on(cards) as engine:
            for _ in range(COUNT // len(CARDS)):
                sample = drawn(generator, cards.count(",") + 1, model)
                file = header_true(sample.quant, sample.n_nextn_layers, model)
                errors.compare(sample, cards, engine.ask(request_of(sample.placement, str(file))))
    print(f"\n{model} (GLMPLAN_ORACLE_SEED={seed}): {COUNT} configurations; {errors.hold_medians()}", end="")

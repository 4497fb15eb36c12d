"""Scored against llama.cpp's own `--fit`: every row of docs/vs-fit.md, and the engine's verdict on our side of it."""

import importlib.util
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path

import pytest
from fit_oracle import CARDS, ROOT, ask_fit, cases, compiled, fake_gpus, free_mib, parsed, recorded
from fit_score import DOCUMENT, FIT_TARGET_BYTES, IDLE_BYTES, Row, document, ours, rows

from glmplan.launchers.dry_run import DryRun, request_of
from glmplan.units import MIB


def test_the_record_is_complete() -> None:
    assert set(recorded()) == set(cases())
    assert {row.cards for row in rows()} == set(CARDS)


def test_never_more_experts_in_main_memory_at_the_same_context() -> None:
    assert [row for row in rows() if row.ours_host_bytes > row.fit_host_bytes] == []


def test_never_less_context_without_experts_in_main_memory() -> None:
    assert [row for row in rows() if not row.fit_host_bytes and row.longest_on_gpus < row.fit_n_ctx] == []


def test_no_memory_idles_while_experts_are_in_main_memory() -> None:
    assert [row for row in rows() if row.ours_host_bytes and row.ours_idle_bytes >= IDLE_BYTES] == []


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "python tests/gguf/fit_score.py"


@pytest.mark.compiled
def test_fit_still_answers_as_recorded(
    fake_gpu: Path,
    engine_headers: Path,
    engine_programs: Path,
    header_true: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """A third of the questions, drawn anew in every run."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    source, library = ROOT / "tests" / "oracle" / "preload.cpp", Path(spec.origin).parent / "lib"
    preload = compiled(source, tmp_path / "preload.so", engine_headers, library)
    drawn = random.Random().sample(cases(), len(cases()) // 3)
    models = {quant: header_true(quant) for _, quant, _ in drawn}
    known = recorded()

    def differs(case: tuple[str, str, str]) -> bool:
        return parsed(ask_fit(engine_programs, fake_gpu, preload, models[case[1]], case)) != known[case]

    with ThreadPoolExecutor(2) as pool:
        changed = [case for case, different in zip(drawn, pool.map(differs, drawn), strict=True) if different]
    assert changed == [], "python tests/gguf/fit_oracle.py"


@pytest.mark.compiled
@pytest.mark.parametrize("cards", CARDS)
def test_the_engine_accepts_every_plan_within_the_margin(
    cards: str, engine_on: Callable[[str], AbstractContextManager[DryRun]], header_true: Callable[..., Path]
) -> None:
    """llama.cpp's own dry run with our settings takes no more than what fit would leave free."""
    with engine_on(fake_gpus(cards)) as engine:
        for row in (row for row in rows() if row.cards == cards):
            placement = ours(row.cards, row.quant, row.setting, row.fit_n_ctx).placement
            answer = engine.ask(request_of(placement, str(header_true(row.quant))))
            assert answer.refusal is None, (row, answer.refusal)
            taken = [sum(answer.device_bytes(index)) for index in range(len(CARDS[cards]))]
            room = [mib * MIB - FIT_TARGET_BYTES for mib in free_mib(cards)]
            over = [have - may for have, may in zip(taken, room, strict=True)]
            assert max(over) <= 0, (row, placement, over)


def test_rows_by_quant_are_in_order() -> None:
    """The document's tables list every card set once, in order of size."""
    for quant, group in groupby(sorted(rows(), key=lambda row: row.quant), key=lambda row: row.quant):
        listed = [row.cards for row in group]
        assert list(dict.fromkeys(listed)) == list(CARDS), quant


def test_a_row_says_what_it_compares() -> None:
    row = next(row for row in rows() if (row.cards, row.quant, row.setting) == ("16 GB", "q4_K_M", "default"))
    assert isinstance(row, Row)
    assert row.fit_n_ctx == 4096
    assert 0 < row.ours_host_bytes < row.fit_host_bytes

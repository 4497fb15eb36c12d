"""A console for every test that launches engines; a test that leaves one running fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from console import Console


@pytest.fixture
def console(tmp_path: Path, tiny_gguf: Path) -> Iterator[Console]:
    """`glmplan` in subprocesses; nothing may run when the test ends."""
    made = Console(tmp_path, tiny_gguf)
    yield made
    left = made.kill_leftovers()
    assert left == []

"""Filled KV caches kept in files from one start of llama-server to the next (`--slot-save-path`).

Source: llama.cpp tools/server/README.md, POST /slots/{id}?action=save and restore.
"""

from pathlib import Path
from typing import Final

from glmplan.launchers.client import Target, connect

FLAG: Final = "--slot-save-path"
_PATIENCE_S: Final = 120.0


class SlotFiles:
    """Caches in `folder`; `kind` tells those apart that no other configuration can read."""

    def __init__(self, folder: Path, kind: str) -> None:
        """Nothing is written yet."""
        self._folder = folder
        self._kind = kind

    def restore(self, target: Target, slot: int, depth: int) -> bool:
        """Bring the kept prefix of `depth` tokens into `slot`; False when there is none, or the engine refuses it."""
        name = self._name(depth)
        return (self._folder / name).is_file() and self._ask(target, slot, "restore", name)

    def save(self, target: Target, slot: int, depth: int) -> None:
        """Keep what `slot` holds; an engine that refuses only costs time later."""
        self._ask(target, slot, "save", self._name(depth))

    def _name(self, depth: int) -> str:
        return f"{self._kind}-{depth}.bin"

    @staticmethod
    def _ask(target: Target, slot: int, action: str, name: str) -> bool:
        import httpx

        try:
            with connect(target) as client:
                answer: httpx.Response = client.post(
                    f"/slots/{slot}", params={"action": action}, json={"filename": name}, timeout=_PATIENCE_S
                )
        except httpx.HTTPError:
            return False
        return answer.is_success

"""Notes a probe takes about what it could not read."""

from glmplan.machine import ProbeNote


class Notes:
    """Collects the notes of one probe, in order, each once."""

    def __init__(self, probe: str) -> None:
        """Start an empty list for `probe`."""
        self._probe = probe
        self._notes: list[ProbeNote] = []

    def add(self, field: str, why: str, hint: str = "") -> None:
        """Say why `field` is not known, or what to beware of, and what would change it."""
        note = ProbeNote(probe=self._probe, field=field, why=why, hint=hint)
        if note not in self._notes:
            self._notes.append(note)

    @property
    def taken(self) -> tuple[ProbeNote, ...]:
        """The notes so far."""
        return tuple(self._notes)

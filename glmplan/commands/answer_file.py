"""The file that `-o` names: written whole or not at all."""

from pathlib import Path

from glmplan.errors import InputError


def write_answer(output: Path, text: str, *, mode: int = 0o644) -> None:
    """Write `text` to `output`.

    Raises:
        InputError: it cannot be written; says how much room there is on a full disk.
    """
    from glmplan.full_disk import not_written
    from glmplan.paths import write_atomic

    try:
        write_atomic(output, text, mode=mode)
    except OSError as error:
        error.filename = str(output)
        why = not_written(error)
        raise InputError(why.message, hint="choose another place with -o", facts=why.facts) from error

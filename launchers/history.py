"""Measurements and rehearsals: one file of JSON lines per machine fingerprint, appended to, never rewritten.

A record is there as a whole or not at all: what a full disk took of one is taken back.

A measurement's number is its place among all of them by time: numbers of older records never change.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from glmplan.errors import InputError
from glmplan.full_disk import naming, not_written
from glmplan.jsonio import loads, to_jsonable
from glmplan.measurement import Measurement
from glmplan.noun import noun
from glmplan.paths import data_folder
from glmplan.rehearsal import Rehearsal

LAST: Final = "last"
BEFORE: Final = "before"


@noun
class Record:
    """A stored measurement and its number, from 1."""

    number: int
    measurement: Measurement


def append(measurement: Measurement) -> Path:
    """Add `measurement` to the file of its machine; which file that is.

    Raises:
        GlmplanError: it cannot be written; nothing of it is in the file.
    """
    return _append(_path(measurement.machine_fingerprint), measurement)


def append_rehearsal(rehearsal: Rehearsal) -> Path:
    """Add `rehearsal` to the file of its machine; which file that is. Raises the same."""
    return _append(rehearsals_file(rehearsal.machine_fingerprint), rehearsal)


def rehearsals_file(fingerprint: str) -> Path:
    """Where the rehearsals of a machine are kept."""
    return data_folder() / "rehearsals" / f"{fingerprint}.jsonl"


def _append(path: Path, record: Measurement | Rehearsal) -> Path:
    line = json.dumps(to_jsonable(record), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _append_whole(path, line.encode())
    except OSError as error:
        raise not_written(error) from error
    return path


def _append_whole(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # nobody else's line may be behind ours when it is taken back
        before = os.fstat(descriptor).st_size
        try:
            # A disk with little room takes a part, and says so only when it is given the rest.
            rest = line
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def read(fingerprint: str) -> tuple[Measurement, ...]:
    """Everything measured on a machine, oldest first."""
    return _of_file(_path(fingerprint))


def folder() -> Path:
    """Where the files of all machines are."""
    return data_folder() / "measurements"


def records() -> tuple[Record, ...]:
    """Everything measured, oldest first."""
    found = [measurement for path in sorted(folder().glob("*.jsonl")) for measurement in _of_file(path)]
    found.sort(key=lambda measurement: measurement.created_at)
    return tuple(Record(number=number, measurement=each) for number, each in enumerate(found, start=1))


def number_of(measurement: Measurement) -> int | None:
    """The number of a record that was just appended; None when it is not there."""
    return next((record.number for record in reversed(records()) if record.measurement == measurement), None)


def choose(name: str) -> Measurement:
    """The record that `name` means: a file, a number, a time or its beginning, `last`, or `before` (the one before it).

    Raises:
        InputError: there is none, or several.
    """
    path = Path(name)
    if path.is_file():
        return _of_document(path)
    known = records()
    if name in {LAST, BEFORE}:
        wanted = len(known) if name == LAST else len(known) - 1
        found = [record for record in known if record.number == wanted]
    elif name.isdigit() and int(name) <= len(known):
        found = [record for record in known if record.number == int(name)]
    else:
        found = [record for record in known if record.measurement.created_at.startswith(name)]
    if len(found) != 1:
        raise _not_one(name, found, len(known))
    return found[0].measurement


def _not_one(name: str, found: Sequence[Record], n_known: int) -> InputError:
    if found:
        numbers = ", ".join(str(record.number) for record in found)
        message = f"{name!r} is the beginning of the time of records {numbers}"
    else:
        message = f"no record and no file {name!r}: {n_known} measurements are stored"
    return InputError(message, hint="glmplan bench --list shows numbers and times", facts={"stored": n_known})


def _of_document(path: Path) -> Measurement:
    """The measurement in a report of `bench --json`, or one that stands alone."""
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict) and "measurement" in document:
        text = json.dumps(document["measurement"])
    return loads(Measurement, text, origin=str(path))


def _of_file(path: Path) -> tuple[Measurement, ...]:
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(
        loads(Measurement, line, origin=f"{path}:{number}") for number, line in enumerate(lines, start=1) if line
    )


def _path(fingerprint: str) -> Path:
    return folder() / f"{fingerprint}.jsonl"

"""`glmplan bench --list` and `--compare A B`: what was measured before."""

import sys

from glmplan.benchmark import ListedRecord, RecordList
from glmplan.measurement import Measurement


def show_list(*, as_json: bool) -> None:
    """Print the stored measurements, oldest first."""
    from glmplan.jsonio import dumps
    from glmplan.launchers import history
    from glmplan.render.bench import list_lines

    listed = RecordList(
        folder=str(history.folder()),
        records=tuple(_listed(record.number, record.measurement) for record in history.records()),
    )
    sys.stdout.write(dumps(listed) + "\n" if as_json else "\n".join(list_lines(listed)) + "\n")


def show_comparison(name_a: str, name_b: str, *, as_json: bool) -> None:
    """Print two records side by side.

    Raises:
        InputError: a name means no record, or several.
    """
    from glmplan.jsonio import dumps
    from glmplan.launchers import history
    from glmplan.launchers.bench_compare import compare
    from glmplan.render.bench import comparison_lines

    found = compare(name_a, history.choose(name_a), name_b, history.choose(name_b))
    sys.stdout.write(dumps(found) + "\n" if as_json else "\n".join(comparison_lines(found)) + "\n")


def _listed(number: int, record: Measurement) -> ListedRecord:
    from glmplan.launchers.bench_compare import points_of, spelled

    return ListedRecord(
        number=number,
        created_at=record.created_at,
        origin=record.origin.value,
        engine=record.engine,
        engine_version=record.engine_version,
        model=record.model,
        quantization=record.quantization,
        synthetic=record.synthetic,
        machine_fingerprint=record.machine_fingerprint,
        points=tuple(dict.fromkeys(spelled(point) for point in points_of(record.samples))),
    )

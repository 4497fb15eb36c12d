"""The reserves that were learned on this machine: one small file in the data folder."""

from pathlib import Path

from glmplan import jsonio
from glmplan.errors import InputError
from glmplan.paths import data_folder, write_atomic
from glmplan.reserve import Reserve


def path() -> Path:
    """Where they are kept."""
    return data_folder() / "reserves.json"


def read() -> tuple[Reserve, ...]:
    """All reserves; none where the file is absent or cannot be read."""
    try:
        text = path().read_text(encoding="utf-8")
        return jsonio.loads(tuple[Reserve, ...], text, origin=str(path()))
    except (OSError, InputError):
        return ()


def learn(reserve: Reserve) -> None:
    """Remember `reserve` in place of an earlier one of the same engine build and device.

    Raises:
        OSError: it cannot be written; the earlier ones stay.
    """
    key = _key(reserve)
    kept = [known for known in read() if _key(known) != key]
    write_atomic(path(), jsonio.dumps([*kept, reserve]) + "\n", mode=0o600)


def forget() -> tuple[Reserve, ...]:
    """Forget all of them; what they were."""
    forgotten = read()
    path().unlink(missing_ok=True)
    return forgotten


def _key(reserve: Reserve) -> tuple[str, str | None, str]:
    return reserve.engine, reserve.build, reserve.device

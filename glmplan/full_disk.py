"""A disk that takes no more: which one, how much room it has, and what to do; and errors that name their file."""

import contextlib
import errno
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Final

from glmplan.errors import GlmplanError, JsonValue

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """An OSError raised inside names `path`: those of writing, unlike those of opening, name no file by themselves.

    Raises:
        OSError: as it came, with its file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def no_room(error: OSError) -> GlmplanError | None:
    """What a full disk, a used-up quota or a limit on the size of files means; None for any other error."""
    if error.errno in _NO_ROOM:
        return _full(error)
    return _too_large(error) if error.errno == errno.EFBIG else None


def not_written(error: OSError) -> GlmplanError:
    """Why a file could not be written, whatever the reason."""
    return no_room(error) or GlmplanError(_sentence(error), hint="mend its permissions, or write elsewhere")


def _full(error: OSError) -> GlmplanError:
    usage = _usage(error)
    if usage is None:
        return GlmplanError(_sentence(error), hint="make room on that disk, or write elsewhere")
    free_bytes, total_bytes = usage
    facts: dict[str, JsonValue] = {
        "file": str(error.filename), "free_bytes": free_bytes, "total_bytes": total_bytes,
    }  # fmt: skip
    message = f"{_sentence(error)} ({free_bytes:,} of {total_bytes:,} bytes are free)"
    return GlmplanError(message, hint="make room on that disk, or write elsewhere", facts=facts)


def _too_large(error: OSError) -> GlmplanError:
    import resource

    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit_bytes == resource.RLIM_INFINITY:
        return GlmplanError(_sentence(error), hint="its file system takes no files that large: write elsewhere")
    message = f"{_sentence(error)} (files may have {limit_bytes:,} bytes here)"
    return GlmplanError(message, hint="raise the limit with ulimit -f", facts={"limit_bytes": limit_bytes})


def _sentence(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror or error}"


def _usage(error: OSError) -> tuple[int, int] | None:
    """Free and all bytes of the file system that the file is on; None when that is not known."""
    if not error.filename:
        return None
    folder = Path(str(error.filename))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(folder)
        return usage.free, usage.total
    return None

"""Where glmplan keeps its own files; folders are created on first write, never at import."""

import os
import tempfile
from pathlib import Path

from glmplan.full_disk import naming

APP = "glmplan"


def _folder(kind: str) -> Path:
    home = os.environ.get("GLMPLAN_HOME")
    if home:
        return Path(home) / kind
    import platformdirs

    dirs = platformdirs.PlatformDirs(APP, appauthor=False)
    return Path({"config": dirs.user_config_dir, "cache": dirs.user_cache_dir,
                 "data": dirs.user_data_dir, "state": dirs.user_state_dir}[kind])  # fmt: skip


def config_folder() -> Path:
    """Hand-written settings and profiles."""
    return _folder("config")


def cache_folder() -> Path:
    """What may be deleted at any time."""
    return _folder("cache")


def data_folder() -> Path:
    """Measurements, calibration, saved plans."""
    return _folder("data")


def state_folder() -> Path:
    """Engine logs, pid files, crash tracebacks."""
    return _folder("state")


def write_atomic(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write `text` to `path` so that a reader sees the old or the new file, never a half one.

    What a symbolic link points to is written, and a device or a pipe (`/dev/stdout`) is written into, not replaced.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with naming(path), os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

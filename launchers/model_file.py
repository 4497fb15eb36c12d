"""Is the file a plan names here, whole, and a GGUF? Asked before an engine is started."""

import re
from pathlib import Path
from typing import Final

from glmplan.errors import GgufError, InputError, JsonValue
from glmplan.plan import PlannedModel
from glmplan.units import format_bytes

_MAGIC: Final = b"GGUF"
_SHARD: Final = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")


def require_model(model: PlannedModel, *, how_to_get: str = "download it, or plan again with --gguf PATH") -> None:
    """Prove that the model file can be loaded as far as that is seen without reading it.

    Args:
        model: the file, by its first part.
        how_to_get: the hint when it is not here.

    Raises:
        InputError: it is not on this machine.
        GgufError: it is shorter than planned, or not a GGUF.
    """
    path = Path(model.file)
    if path.is_dir():
        _require_folder(path, model, how_to_get)
        return
    shards = _shards(path)
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        name = model.file if missing == path else str(missing)  # a path would spoil an address
        message = f"the model file {name} is not on this machine"
        raise InputError(message, hint=how_to_get, facts={"file": name})
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except OSError as error:
        message = f"cannot read the model file {path}: {error.strerror}"
        raise InputError(message, hint="check its permissions") from error
    if magic != _MAGIC:
        message = f"{path} is not a GGUF file: it begins with {magic!r}"
        raise GgufError(message, hint="plan again with --gguf PATH of a GGUF file", facts={"offset": 0})
    found_bytes = sum(shard.stat().st_size for shard in shards)
    if found_bytes < model.file_bytes:
        message = (
            f"{path} is incomplete: {found_bytes} of {model.file_bytes} bytes "
            f"({format_bytes(found_bytes)} of {format_bytes(model.file_bytes)})"
        )
        facts = {"bytes": found_bytes, "expected_bytes": model.file_bytes}
        raise GgufError(message, hint=f"finish the download: {how_to_get}", facts=dict(facts))


def _require_folder(path: Path, model: PlannedModel, how_to_get: str) -> None:
    """The same of a folder of safetensors files."""
    found_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    if not (path / "config.json").is_file() or found_bytes < model.file_bytes:
        message = (
            f"{path} is incomplete: {found_bytes} of {model.file_bytes} bytes of weights"
            f"{'' if (path / 'config.json').is_file() else ', and no config.json'}"
        )
        facts: dict[str, JsonValue] = {"bytes": found_bytes, "expected_bytes": model.file_bytes}
        raise InputError(message, hint=f"finish the download: {how_to_get}", facts=facts)


def _shards(path: Path) -> list[Path]:
    """All parts of a split file, or the file itself."""
    match = _SHARD.match(path.name)
    if match is None:
        return [path]
    return [path.with_name(f"{match[1]}-{number:05d}-of-{match[3]}.gguf") for number in range(1, int(match[3]) + 1)]

"""A model in one file or several: every part's header, checked against the others.

Split files: `NAME-00001-of-00003.gguf` and keys `split.no`, `split.count`, `split.tensors.count` (llama.cpp
tools/gguf-split; src/llama-model-loader.cpp opens them the same way, from the first part on).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from glmplan.errors import GgufError, InputError
from glmplan.model import Tensor
from glmplan.noun import noun
from glmplan.profiles.gguf_bytes import ByteSource
from glmplan.profiles.gguf_header import GgufHeader, MetadataValue, parse_header
from glmplan.profiles.gguf_keys import ModelKeys

_PART: Final = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MOST_PARTS: Final = 256  # parts of 20 to 50 GB; the largest published models have about 60


@noun
class Shard:
    """One file of a model and its header."""

    path: str
    header: GgufHeader
    bytes_read: int


@noun
class GgufModel:
    """All shards of a model; metadata is that of the first."""

    shards: tuple[Shard, ...]

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """Keys of the first shard, where the model's facts are."""
        return self.shards[0].header.metadata

    @property
    def keys(self) -> ModelKeys:
        """Typed access to the metadata."""
        return ModelKeys(self.shards[0].path, self.metadata)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of all shards in file order."""
        return tuple(entry.tensor for shard in self.shards for entry in shard.header.tensors)

    @property
    def bytes_read(self) -> int:
        """Bytes fetched to learn all this."""
        return sum(shard.bytes_read for shard in self.shards)

    @property
    def file_bytes(self) -> int | None:
        """Length of all shards; None when a server did not say."""
        sizes = [shard.header.file_bytes for shard in self.shards]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def part_path(path: str, number: int, count: int) -> str | None:
    """The path of part `number` (from 1) of `count`, named after any part; None when `path` names no part.

    Only the last component is looked at, and a query string is kept.
    """
    address, mark, query = path.partition("?")
    match = _PART.fullmatch(address)
    if match is None or int(match["count"]) != count:
        return None
    return f"{match['prefix']}-{number:05d}-of-{count:05d}.gguf{mark}{query}"


def read_shards(path: str, open_part: Callable[[str], ByteSource]) -> GgufModel:
    """Headers of the file at `path` and, if it is the first of several parts, of all others.

    Args:
        path: local path or address of the file, or of its first part.
        open_part: opens one part by its path.

    Raises:
        GgufError: a part is damaged, out of order or of another model.
        InputError: a part is missing or cannot be read.
    """
    first = _read_part(path, open_part)
    keys = ModelKeys(path, first.header.metadata)
    count = keys.whole("split.count") or 1
    if count == 1:
        return GgufModel(shards=(first,))
    number = keys.whole("split.no") or 0
    if number:
        shown = part_path(path, 1, count) or "the first part"
        message = f"{path} is part {number + 1} of {count}"
        raise GgufError(message, hint=f"pass the first part: {shown}", facts={"file": path, "offset": 0})
    if count > _MOST_PARTS:
        message = f"{path} says it is one of {count} parts, more than any model"
        raise GgufError(message, hint="download the file again", facts={"file": path, "offset": 0})
    shards = [first, *(_read_other(path, index, count, open_part) for index in range(1, count))]
    model = GgufModel(shards=tuple(shards))
    _refuse_mixed(path, model, keys.whole("split.tensors.count"))
    return model


def _read_part(path: str, open_part: Callable[[str], ByteSource]) -> Shard:
    source = open_part(path)
    try:
        header = parse_header(source)
        return Shard(path=path, header=header, bytes_read=source.bytes_read)
    finally:
        source.close()


def _read_other(path: str, index: int, count: int, open_part: Callable[[str], ByteSource]) -> Shard:
    other = part_path(path, index + 1, count)
    if other is None:
        message = f"{path} is the first of {count} parts, and its name does not lead to the others"
        hint = f"give the parts their names back: NAME-00001-of-{count:05d}.gguf and so on"
        raise GgufError(message, hint=hint, facts={"file": path, "offset": 0})
    try:
        shard = _read_part(other, open_part)
    except GgufError:
        raise
    except InputError as error:
        message = f"part {index + 1} of {count} cannot be read: {error.message}"
        raise InputError(message, hint=error.hint, facts={**error.facts, "missing_part": other}) from error
    number = ModelKeys(other, shard.header.metadata).whole("split.no")
    if number != index:
        message = f"{other} says it is part {'of nothing' if number is None else number + 1}, expected {index + 1}"
        raise GgufError(message, hint="download the parts again", facts={"file": other, "offset": 0})
    return shard


def _refuse_mixed(path: str, model: GgufModel, stated: int | None) -> None:
    names = Counter(tensor.name for tensor in model.tensors)
    name, times = names.most_common(1)[0] if names else ("", 0)
    if times > 1:
        message = f"{path}: tensor {name!r} occurs in two parts"
        raise GgufError(message, hint="the parts belong to different models", facts={"file": path, "offset": 0})
    if stated is not None and stated != len(names):
        message = f"{path}: {stated} tensors announced, {len(names)} found in {len(model.shards)} parts"
        raise GgufError(message, hint="download the parts again", facts={"file": path, "offset": 0})

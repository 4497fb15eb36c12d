"""The header of a GGUF file: metadata, tensors and where their data begins; data itself is never read.

Format: ggml/include/gguf.h. What llama.cpp's loader refuses (ggml/src/gguf.cpp) is refused here too, with the offset:
a file that passes here is one it can open, apart from big-endian files, which only a machine of that order loads.
"""

import math
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from glmplan.errors import GgufError
from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.model import Tensor
from glmplan.noun import noun
from glmplan.profiles.gguf_bytes import ByteSource, Cursor

DEFAULT_ALIGNMENT: Final = 32
# Real files hold 20 to 70 keys and 100 to 14,000 tensors; the limits bound time and memory on hostile ones.
MAX_KEYS: Final = 4096
MAX_TENSORS: Final = 32_768
MAX_KEY_BYTES: Final = 65_535
MAX_NAME_BYTES: Final = 63  # GGML_MAX_NAME - 1
MAX_DIMENSIONS: Final = 4
MAX_ELEMENTS: Final = 2**63 - 1
MAX_ARRAY: Final = 2**30
KEPT_TEXT_BYTES: Final = 2**20
KEPT_NUMBERS: Final = 512  # LLAMA_MAX_LAYERS: an array by layer is kept whole
KEPT_STRINGS: Final = 8
KEPT_STRING_BYTES: Final = 256
_SMALLEST_KEY_BYTES: Final = 8 + 1 + 4 + 1
_SMALLEST_TENSOR_BYTES: Final = 8 + 4 + 4 + 8


class ValueType(IntEnum):
    """Types of metadata values (`enum gguf_type`)."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_CODES: Final[dict[ValueType, str]] = {
    ValueType.UINT8: "B", ValueType.INT8: "b", ValueType.UINT16: "H", ValueType.INT16: "h",
    ValueType.UINT32: "I", ValueType.INT32: "i", ValueType.FLOAT32: "f", ValueType.BOOL: "?",
    ValueType.UINT64: "Q", ValueType.INT64: "q", ValueType.FLOAT64: "d",
}  # fmt: skip

Scalar = bool | int | float | str

_IMPOSTORS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs", "this is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"<", "this is a web page: on a model hub take the /resolve/ address, not /blob/"),
    (b"{", "this is JSON, not a model file"),
    (b"PK", "this is a ZIP archive: unpack it, or convert the checkpoint to GGUF"),
    (b"tjgg", "a GGML file from before August 2023: convert it again"),
    (b"fmgg", "a GGML file from before August 2023: convert it again"),
    (b"lmgg", "a GGML file from before August 2023: convert it again"),
)


@noun
class ArraySample:
    """An array of the metadata: its length and its first elements (all of them up to 512 numbers)."""

    type: ValueType
    count: int
    first: tuple[Scalar, ...]

    @property
    def complete(self) -> bool:
        """Whether `first` is the whole array."""
        return len(self.first) == self.count


@noun
class MetadataValue:
    """One metadata value and the offset of its first byte; texts are cut after 1 MiB."""

    type: ValueType
    value: Scalar | ArraySample
    offset: int


@noun
class TensorEntry:
    """A tensor and the offset of its data from `GgufHeader.data_offset`."""

    tensor: Tensor
    offset: int


@noun
class GgufHeader:
    """What a GGUF file says before its data begins.

    `data_bytes` reaches from `data_offset` to the end of the last tensor, without its padding.
    """

    version: int
    big_endian: bool
    alignment: int
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorEntry, ...]
    data_offset: int
    data_bytes: int
    file_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        """Length of a complete file."""
        return self.data_offset + self.data_bytes


def parse_header(source: ByteSource) -> GgufHeader:
    """Read the header of `source`, which stays open.

    Raises:
        GgufError: not a GGUF, a version nobody loads, truncated, or damaged; `facts` holds the offset.
    """
    cursor = Cursor(source)
    version = _read_magic(cursor)
    n_tensors, n_keys = cursor.number("Q", "the tensor count"), cursor.number("Q", "the key count")
    _check_count(cursor, "tensors", n_tensors, MAX_TENSORS, _SMALLEST_TENSOR_BYTES)
    _check_count(cursor, "keys", n_keys, MAX_KEYS, _SMALLEST_KEY_BYTES)
    metadata: dict[str, MetadataValue] = {}
    for index in range(n_keys):
        _read_pair(cursor, metadata, index)
    alignment = _alignment(cursor, metadata)
    tensors = _read_tensors(cursor, n_tensors, alignment)
    data_offset = _padded(cursor.offset, alignment) if tensors else cursor.offset
    data_bytes = tensors[-1].offset + tensors[-1].tensor.n_bytes if tensors else 0
    header = GgufHeader(
        version=version,
        big_endian=cursor.order == ">",
        alignment=alignment,
        metadata=metadata,
        tensors=tensors,
        data_offset=data_offset,
        data_bytes=data_bytes,
        file_bytes=source.size_bytes,
    )
    _refuse_truncated(source, header)
    return header


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def _read_magic(cursor: Cursor) -> int:
    """Check the magic, settle the byte order, return the version."""
    magic = cursor.take(4, "the magic")
    if magic != b"GGUF":
        shown = magic.decode("ascii", "backslashreplace")
        hints = [hint for start, hint in _IMPOSTORS if magic.startswith(start[:4])]
        cursor.fail(f"not a GGUF file: it starts with {shown!r}", at=0, hint=hints[0] if hints else "")
    version = cursor.number("I", "the version")
    if version and not version & 0xFFFF:
        # Read in the wrong order the small number has its low half empty (gguf.cpp does the same test).
        cursor.order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in {2, 3}:
        hint = "llama.cpp reads versions 2 and 3 since October 2023: convert the model again" if version == 1 else ""
        cursor.fail(f"GGUF version {version} is not one of 2, 3", at=4, hint=hint)
    return version


def _check_count(cursor: Cursor, what: str, count: int, most: int, smallest_bytes: int) -> None:
    if count > most:
        cursor.fail(f"{count} {what}, more than any model ({most})")
    cursor.require(count * smallest_bytes, f"a header of {count} {what}")


def _read_text(cursor: Cursor, what: str, *, most: int) -> str:
    """A short name in strict UTF-8; longer than `most` bytes is an error."""
    offset = cursor.offset
    length = cursor.number("Q", f"the length of {what}")
    if not 0 < length <= most:
        cursor.fail(f"{what} has {length} bytes, 1 to {most} are allowed", at=offset)
    try:
        return cursor.take(length, what).decode("utf-8")
    except UnicodeDecodeError as error:
        cursor.fail(f"{what} is not UTF-8: {error.reason}", at=offset + 8 + error.start)


def _read_pair(cursor: Cursor, metadata: dict[str, MetadataValue], index: int) -> None:
    at = cursor.offset
    key = _read_text(cursor, f"key {index}", most=MAX_KEY_BYTES)
    if key in metadata:
        cursor.fail(f"key {key!r} occurs twice", at=at)
    kind = _value_type(cursor, key)
    offset = cursor.offset
    value = _read_array(cursor, key) if kind is ValueType.ARRAY else _read_scalar(cursor, kind, key)
    metadata[key] = MetadataValue(type=kind, value=value, offset=offset)


def _value_type(cursor: Cursor, key: str) -> ValueType:
    at = cursor.offset
    number = cursor.number("I", f"the type of {key!r}")
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"key {key!r} has unknown value type {number}", at=at)


def _read_scalar(cursor: Cursor, kind: ValueType, key: str) -> Scalar:
    if kind is ValueType.STRING:
        return _read_value_text(cursor, key, keep=KEPT_TEXT_BYTES)
    layout = cursor.order + _CODES[kind]
    value: Scalar = struct.unpack(layout, cursor.take(struct.calcsize(layout), f"the value of {key!r}"))[0]
    return value


def _read_value_text(cursor: Cursor, key: str, *, keep: int) -> str:
    """A text value; of a longer one than `keep` bytes only the start is read. Bad UTF-8 is shown, not refused."""
    length = cursor.checked_length(cursor.number("Q", f"the length of {key!r}"), f"the text of {key!r}")
    kept = min(length, keep)
    text = cursor.take(kept, f"the text of {key!r}").decode("utf-8", "replace")
    cursor.skip(length - kept, f"the text of {key!r}")
    return text


def _read_array(cursor: Cursor, key: str) -> ArraySample:
    at = cursor.offset
    kind = _value_type(cursor, key)
    if kind is ValueType.ARRAY:
        cursor.fail(f"key {key!r} is an array of arrays, which llama.cpp does not read", at=at)
    count = cursor.number("Q", f"the length of {key!r}")
    if count > MAX_ARRAY:
        cursor.fail(f"array {key!r} has {count} elements, more than {MAX_ARRAY}", at=at + 4)
    if kind is ValueType.STRING:
        cursor.require(count * 8, f"array {key!r}")
        kept = min(count, KEPT_STRINGS)
        texts = tuple(_read_value_text(cursor, key, keep=KEPT_STRING_BYTES) for _ in range(kept))
        cursor.skip_strings(count - kept, f"array {key!r}")
        return ArraySample(type=kind, count=count, first=texts)
    size = struct.calcsize("<" + _CODES[kind])
    cursor.require(count * size, f"array {key!r}")
    kept = count if count <= KEPT_NUMBERS else KEPT_STRINGS
    layout = f"{cursor.order}{kept}{_CODES[kind]}"
    numbers: tuple[Scalar, ...] = struct.unpack(layout, cursor.take(kept * size, f"array {key!r}"))
    cursor.skip((count - kept) * size, f"array {key!r}")
    return ArraySample(type=kind, count=count, first=numbers)


def _alignment(cursor: Cursor, metadata: Mapping[str, MetadataValue]) -> int:
    found = metadata.get("general.alignment")
    if found is None:
        return DEFAULT_ALIGNMENT
    value = found.value
    if found.type is not ValueType.UINT32 or not isinstance(value, int):
        cursor.fail(f"general.alignment is of type {found.type.name}, expected UINT32", at=found.offset)
    if value <= 0 or value & (value - 1):
        cursor.fail(f"general.alignment is {value}, not a power of two", at=found.offset)
    return value


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorEntry, ...]:
    """The tensor table; its offsets must follow one another without gap or overlap, as llama.cpp demands."""
    entries: list[TensorEntry] = []
    seen: set[str] = set()
    expected = 0
    for index in range(count):
        at = cursor.offset
        tensor = _read_tensor(cursor, index)
        if tensor.name in seen:
            cursor.fail(f"tensor {tensor.name!r} occurs twice", at=at)
        seen.add(tensor.name)
        offset_at = cursor.offset
        offset = cursor.number("Q", f"the offset of {tensor.name!r}")
        if offset != expected:
            what = f"tensor {tensor.name!r} has its data at {offset}, expected {expected} after the tensor before it"
            cursor.fail(what, at=offset_at)
        expected = _padded(offset + tensor.n_bytes, alignment)
        if expected > MAX_ELEMENTS:
            cursor.fail(f"tensor {tensor.name!r} ends {expected} bytes into the data", at=offset_at)
        entries.append(TensorEntry(tensor=tensor, offset=offset))
    return tuple(entries)


def _read_tensor(cursor: Cursor, index: int) -> Tensor:
    name = _read_text(cursor, f"the name of tensor {index}", most=MAX_NAME_BYTES)
    at = cursor.offset
    n_dimensions = cursor.number("I", f"the dimensions of {name!r}")
    if n_dimensions > MAX_DIMENSIONS:
        cursor.fail(f"tensor {name!r} has {n_dimensions} dimensions, more than {MAX_DIMENSIONS}", at=at)
    raw = cursor.take(8 * n_dimensions, f"the shape of {name!r}")
    shape: tuple[int, ...] = struct.unpack(f"{cursor.order}{n_dimensions}Q", raw)
    if any(length > MAX_ELEMENTS for length in shape) or math.prod(shape) > MAX_ELEMENTS:
        cursor.fail(f"tensor {name!r} has shape {shape}, too large for any machine", at=at)
    return _typed_tensor(cursor, name, shape)


def _typed_tensor(cursor: Cursor, name: str, shape: tuple[int, ...]) -> Tensor:
    at = cursor.offset
    number = cursor.number("I", f"the type of {name!r}")
    try:
        kind = GgmlType(number)
    except ValueError:
        hint = "a type that llama.cpp removed, or one newer than this program: update it, or convert the model again"
        cursor.fail(f"tensor {name!r} has unknown type {number}", at=at, hint=hint)
    per_block = BLOCKS[kind][0]
    row = shape[0] if shape else 1
    if row % per_block:
        what = f"tensor {name!r} has rows of {row} elements, not whole blocks of {kind.name} ({per_block})"
        cursor.fail(what, at=at)
    return Tensor(name=name, type=kind, shape=shape)


def _refuse_truncated(source: ByteSource, header: GgufHeader) -> None:
    have, need = header.file_bytes, header.needed_bytes
    if have is None or have >= need:
        return
    ends = next(
        entry.tensor.name for entry in header.tensors if header.data_offset + entry.offset + entry.tensor.n_bytes > have
    )
    message = f"{source.name} is incomplete: it has {have} bytes and its header needs {need}, {need - have} are missing"
    raise GgufError(
        message,
        hint="finish the download, or delete the file and fetch it again",
        facts={"file": source.name, "offset": have, "have_bytes": have, "need_bytes": need, "first_cut_tensor": ends},
    )

"""Bytes of a file, wherever they are, and a forward cursor over them that a hostile length cannot exhaust."""

import os
import stat
import struct
from pathlib import Path
from typing import Final, NoReturn, Protocol

from glmplan.errors import GgufError, InputError

BLOCK_BYTES: Final = 2**20
# Real headers end at 13 MiB (201,088 tokens, 446,189 merges); 64 MiB fetched is not a model header any more.
MAX_FETCHED_BYTES: Final = 64 * 2**20
# 154,880 tokens and 321,649 merges in GLM-4.7-Flash; a quarter of a second to walk two million.
MAX_STRINGS: Final = 2_000_000
MAX_STRING_BYTES: Final = 2**30  # GGUF_MAX_STRING_LENGTH


class ByteSource(Protocol):
    """Random access to the bytes of one file."""

    @property
    def name(self) -> str:
        """Path or address, for messages."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Length of the file; None while nobody has said."""
        ...

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far."""
        ...

    def fetch(self, offset: int, at_least: int) -> bytes:
        """Bytes from `offset`: `at_least` or more, fewer only at the end of the file."""
        ...

    def close(self) -> None:
        """Let go of the file or the connection."""
        ...


class BufferSource:
    """A file held in memory; `size_bytes` may claim more than is there (a header whose data is elsewhere)."""

    def __init__(self, content: bytes, *, name: str = "<bytes>", size_bytes: int | None = None) -> None:
        """Serve `content` as a file of `size_bytes` (its own length by default)."""
        self._content = content
        self.name = name
        self.size_bytes: int | None = len(content) if size_bytes is None else size_bytes
        self.bytes_read = 0

    def fetch(self, offset: int, at_least: int) -> bytes:
        """At least `at_least` bytes from `offset`, where there are as many."""
        block = self._content[offset : offset + max(at_least, BLOCK_BYTES)]
        self.bytes_read += len(block)
        return block

    def close(self) -> None:
        """Nothing to let go of."""


class LocalFile:
    """A file on this machine, read in blocks of 1 MiB."""

    def __init__(self, path: Path) -> None:
        """Open `path` for reading.

        Raises:
            InputError: absent, unreadable, or not a regular file.
        """
        self.name = str(path)
        self.bytes_read = 0
        self._file: int | None = None
        try:
            # A FIFO would block an open for reading until somebody writes.
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
            found = os.fstat(self._file)
        except (OSError, ValueError) as error:
            self.close()
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            message = f"cannot read {path}: {reason}"
            raise InputError(message, hint="check the path and its permissions", facts={"path": str(path)}) from error
        if not stat.S_ISREG(found.st_mode):
            self.close()
            message = f"{path} is {'a folder' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}"
            raise InputError(message, hint="name the .gguf file itself", facts={"path": str(path)})
        self.size_bytes: int | None = found.st_size

    def fetch(self, offset: int, at_least: int) -> bytes:
        """At least `at_least` bytes from `offset`, fewer at the end of the file.

        Raises:
            InputError: the disk or the file system failed.
        """
        if self._file is None:
            return b""
        try:
            block = os.pread(self._file, max(at_least, BLOCK_BYTES), offset)
        except (OSError, OverflowError) as error:
            message = f"cannot read {self.name} at offset {offset}: {error}"
            raise InputError(message, hint="check the disk", facts={"path": self.name, "offset": offset}) from error
        self.bytes_read += len(block)
        return block

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Cursor:
    """A forward reader of one file; every length is checked against what is left before anything is allocated."""

    def __init__(self, source: ByteSource) -> None:
        """Start at offset 0 in little-endian order."""
        self._source = source
        self._buffer = b""
        self._base = 0
        self._at = 0
        self._fetched = 0
        self._strings_left = MAX_STRINGS
        self.order = "<"

    @property
    def offset(self) -> int:
        """Absolute offset of the next byte."""
        return self._base + self._at

    def fail(self, what: str, *, at: int | None = None, hint: str = "") -> NoReturn:
        """Give up on the file.

        Raises:
            GgufError: always; it says what is wrong where in which file.
        """
        offset = self.offset if at is None else at
        message = f"{self._source.name}: {what} (at offset {offset})"
        raise GgufError(
            message,
            hint=hint or "the file is damaged or not a GGUF model: download it again",
            facts={"file": self._source.name, "offset": offset},
        )

    def require(self, n_bytes: int, what: str) -> None:
        """Refuse a length that the file cannot hold.

        Raises:
            GgufError: `n_bytes` reach beyond the end.
        """
        size = self._source.size_bytes
        if size is not None and n_bytes > size - self.offset:
            left = max(size - self.offset, 0)
            self.fail(f"{what} needs {n_bytes} bytes, the file has {left} left of {size}")

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next `n_bytes`.

        Raises:
            GgufError: the file ends before.
        """
        end = self._at + n_bytes
        if end > len(self._buffer):
            self._fill(n_bytes, what)
            end = self._at + n_bytes
        block = self._buffer[self._at : end]
        self._at = end
        return block

    def skip(self, n_bytes: int, what: str) -> None:
        """Move on by `n_bytes` without reading them."""
        self.require(n_bytes, what)
        self._at += n_bytes

    def number(self, code: str, what: str) -> int:
        """The next integer of struct code `code` in the file's byte order."""
        layout = self.order + code
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]
        return value

    def checked_length(self, n_bytes: int, what: str) -> int:
        """`n_bytes` if a string can be that long.

        Raises:
            GgufError: longer than a loader accepts, or than what is left.
        """
        if n_bytes > MAX_STRING_BYTES:
            self.fail(f"{what} has {n_bytes} bytes, more than {MAX_STRING_BYTES}", at=self.offset - 8)
        self.require(n_bytes, what)
        return n_bytes

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over `count` length-prefixed strings without keeping any.

        Raises:
            GgufError: a length beyond the end, or more strings than any vocabulary has.
        """
        self._strings_left -= count
        if self._strings_left < 0:
            self.fail(f"{what} has {count} strings, more than any vocabulary ({MAX_STRINGS})")
        self.require(count * 8, what)
        unpack = struct.Struct(self.order + "Q").unpack_from
        while count:
            buffer, at, last = self._buffer, self._at, len(self._buffer) - 8
            start = at
            while count and at <= last:
                start = at
                at += 8 + unpack(buffer, at)[0]
                count -= 1
            if at > len(buffer):  # the last string ends outside the buffer: check it before going there
                self._at = start + 8
                self.skip(self.checked_length(at - self._at, f"a string of {what}"), f"a string of {what}")
            self._at = at
            if count:
                self._fill(8, what)

    def _fill(self, n_bytes: int, what: str) -> None:
        """Have at least `n_bytes` in the buffer, dropping what was consumed."""
        self.require(n_bytes, what)
        offset = self.offset
        blocks = [self._buffer[self._at :]]
        have = len(blocks[0])
        while have < n_bytes:
            block = self._source.fetch(offset + have, n_bytes - have)
            self._fetched += len(block)
            if not block:
                self.fail(f"the file ends inside {what}: {n_bytes} bytes needed, {have} there")
            if self._fetched > MAX_FETCHED_BYTES:
                self.fail(f"the header is longer than {MAX_FETCHED_BYTES} bytes: not that of a model")
            blocks.append(block)
            have += len(block)
        self._buffer, self._base, self._at = b"".join(blocks), offset, 0

"""The header reader: what it reads, what it refuses, and that a hostile file costs neither time nor memory."""

import struct
import time
import tracemalloc
from pathlib import Path

import build_gguf as b
import pytest

from glmplan.errors import GgufError, InputError
from glmplan.profiles.gguf_bytes import BLOCK_BYTES, BufferSource, LocalFile
from glmplan.profiles.gguf_header import ArraySample, GgufHeader, parse_header

F32_ROW = b.TensorSpec("a.weight", b.F32, (8,))


def parse(content: bytes, *, size_bytes: int | None = None) -> GgufHeader:
    return parse_header(BufferSource(content, name="x.gguf", size_bytes=size_bytes))


def refusal(content: bytes, *, size_bytes: int | None = None) -> GgufError:
    with pytest.raises(GgufError) as caught:
        parse(content, size_bytes=size_bytes)
    assert isinstance(caught.value.facts["offset"], int)
    assert "x.gguf" in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_keys_and_tensors_in_both_byte_orders(version: int, order: str) -> None:
    keys: dict[str, b.Typed | b.Array | b.Value] = {
        "general.architecture": "deepseek2",
        "n": 7,
        "flag": True,
        "ratio": 1.5,
        "big": b.Typed(b.UINT64, 2**40),
        "negative": b.Typed(b.INT64, -5),
        "list": b.Array(b.UINT16, (1, 2, 3)),
        "tokens": b.Array(b.STRING, tuple(f"token{number}" for number in range(100))),
    }
    tensors = [b.TensorSpec("a.weight", b.Q8_0, (64, 3)), b.TensorSpec("b.weight", b.F32, (5,))]
    header = parse(b.build(keys, tensors, order=order, version=version))
    values = {key: found.value for key, found in header.metadata.items()}
    assert values["big"] == 2**40
    assert values["negative"] == -5
    assert values["flag"] is True
    assert values["ratio"] == 1.5
    listed, tokens = values["list"], values["tokens"]
    assert isinstance(listed, ArraySample)
    assert listed.first == (1, 2, 3)
    assert listed.complete
    assert isinstance(tokens, ArraySample)
    assert (tokens.count, tokens.first[0], len(tokens.first)) == (100, "token0", 8)
    assert [(entry.tensor.name, entry.tensor.n_bytes, entry.offset) for entry in header.tensors] == [
        ("a.weight", 204, 0),
        ("b.weight", 20, 224),
    ]
    assert header.big_endian is (order == ">")
    assert header.version == version
    assert header.data_bytes == 244


def test_alignment_moves_the_data() -> None:
    header = parse(b.build({"general.alignment": 4096}, [F32_ROW], alignment=4096))
    assert header.data_offset == 4096


def test_a_file_without_tensors_has_no_data() -> None:
    content = b.build({"general.architecture": "llama"}, data=False)
    assert parse(content).needed_bytes == len(content)


def test_offset_of_every_value_is_kept() -> None:
    content = b.build({"first": 1, "second": "text"})
    assert content[parse(content).metadata["first"].offset :][:4] == struct.pack("<I", 1)


def test_a_long_text_is_cut_and_the_rest_not_read() -> None:
    content = b.build({"long": "a" * (2**20 + 50), "after": 3})
    found = parse(content).metadata
    assert len(str(found["long"].value)) == 2**20
    assert found["after"].value == 3


def test_bad_utf8_in_a_value_is_shown_not_refused() -> None:
    head = b.text("general.name") + struct.pack("<I", b.STRING) + b.text(b"caf\xe9")
    assert parse(b.assemble([head], [])).metadata["general.name"].value == "caf\N{REPLACEMENT CHARACTER}"


def test_not_a_number_is_a_value() -> None:
    value = parse(b.build({"scale": float("nan")})).metadata["scale"].value
    assert value != value  # noqa: PLR0124 - that is what NaN does


def test_an_array_of_numbers_is_skipped_without_being_read() -> None:
    count = 2**28
    keys = b.text("scores") + struct.pack("<IIQ", b.ARRAY, b.FLOAT32, count)
    head = b.assemble([keys + bytes(32)], [])
    source = BufferSource(head, size_bytes=len(head) - 32 + 4 * count)
    sample = parse_header(source).metadata["scores"].value
    assert isinstance(sample, ArraySample)
    assert (sample.count, sample.complete) == (count, False)
    assert source.bytes_read < 1000


HOSTILE = {
    "empty": b"",
    "three bytes": b"GGU",
    "magic only": b"GGUF",
    "version cut": b"GGUF\x03\x00",
    "web page": b"<!DOCTYPE html><html>",
    "version 0": b.assemble([], [], version=0),
    "version 1": b.assemble([], [], version=1),
    "version 4": b.assemble([], [], version=4),
    "version huge": b.assemble([], [], version=2**32 - 1),
    "2^63 keys": b.assemble([], [], n_keys=2**63),
    "2^64-1 tensors": b.assemble([], [], n_tensors=2**64 - 1),
    "more keys than bytes": b.assemble([b.pair("a", 1)], [], n_keys=1000),
    "more tensors than bytes": b.assemble([], [b.tensor_row(F32_ROW, 0)], n_tensors=3000),
    "key length 2^63": b.assemble([b.text("key", length=2**63) + bytes(20)], []),
    "key length beyond the file": b.assemble([b.text("key", length=60) + bytes(20)], []),
    "key of length 0": b.assemble([b.pair("", 1) + bytes(8)], []),
    "key twice": b.assemble([b.pair("a", 1), b.pair("a", 2)], []),
    "key not UTF-8": b.assemble([b.pair(b"\xff\xfe", 1)], []),
    "value type 13": b.assemble([b.text("a") + struct.pack("<IQ", 13, 0)], []),
    "value type 2^32-1": b.assemble([b.text("a") + struct.pack("<IQ", 2**32 - 1, 0)], []),
    "text length 2^64-1": b.assemble([b.text("a") + struct.pack("<I", b.STRING) + b.text("x", length=2**64 - 1)], []),
    "array of arrays": b.assemble([b.text("a") + struct.pack("<IIQ", b.ARRAY, b.ARRAY, 1) + bytes(24)], []),
    "array type unknown": b.assemble([b.text("a") + struct.pack("<IIQ", b.ARRAY, 99, 1) + bytes(24)], []),
    "array of 2^63": b.assemble([b.text("a") + struct.pack("<IIQ", b.ARRAY, b.UINT8, 2**63)], []),
    "array of 2^30 missing": b.assemble([b.text("a") + struct.pack("<IIQ", b.ARRAY, b.FLOAT64, 2**30)], []),
    "texts of 2^29 missing": b.assemble([b.text("a") + struct.pack("<IIQ", b.ARRAY, b.STRING, 2**29)], []),
    "text in array 2^63": b.assemble(
        [b.text("a") + struct.pack("<IIQ", b.ARRAY, b.STRING, 9) + b.text("") * 8 + b.text("", length=2**63)], []
    ),
    "alignment 0": b.build({"general.alignment": 0}, [F32_ROW]),
    "alignment 48": b.build({"general.alignment": 48}, [F32_ROW], alignment=48),
    "alignment as text": b.build({"general.alignment": "32"}, [F32_ROW]),
    "alignment as int32": b.build({"general.alignment": b.Typed(b.INT32, 32)}, [F32_ROW]),
    "tensor twice": b.build({}, [F32_ROW, F32_ROW]),
    "tensor name of 64 bytes": b.build({}, [b.TensorSpec("n" * 64, b.F32, (8,))]),
    "tensor name empty": b.build({}, [b.TensorSpec("", b.F32, (8,))]),
    "five dimensions": b.build({}, [b.TensorSpec("a", b.F32, (1, 1, 1, 1, 1))]),
    "2^32-1 dimensions": b.assemble([], [b.text("a") + struct.pack("<I", 2**32 - 1) + bytes(64)]),
    "dimension 2^63": b.build({}, [b.TensorSpec("a", b.F32, (2**63,))], data=False),
    "product overflows": b.build({}, [b.TensorSpec("a", b.F32, (2**32, 2**32))], data=False),
    "zero hides overflow of bytes": b.build({}, [b.TensorSpec("a", b.F32, (2**62,))], data=False),
    "type removed": b.build({}, [b.TensorSpec("a", 4, (32,))]),
    "type unknown": b.build({}, [b.TensorSpec("a", 77, (32,))]),
    "half a block": b.build({}, [b.TensorSpec("a", b.Q4_K, (128, 2))]),
    "scalar of blocks": b.build({}, [b.TensorSpec("a", b.Q4_0, ())]),
    "offset beyond the file": b.build({}, [b.TensorSpec("a", b.F32, (8,), 2**62)], data=False),
    "overlapping": b.build({}, [F32_ROW, b.TensorSpec("b", b.F32, (8,), 0)]),
    "gap": b.build({}, [F32_ROW, b.TensorSpec("b", b.F32, (8,), 64)]),
    "unaligned": b.build({}, [F32_ROW, b.TensorSpec("b", b.F32, (8,), 33)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_quickly_with_the_offset(name: str) -> None:
    started = time.monotonic()
    tracemalloc.start()
    try:
        refusal(HOSTILE[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 2
    assert peak < 8 * 2**20


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in {"empty", "three bytes"}])
def test_hostile_headers_of_unknown_length_end_too(name: str) -> None:
    source = BufferSource(HOSTILE[name], name="x.gguf")
    source.size_bytes = None
    with pytest.raises(GgufError):
        parse_header(source)


def test_every_prefix_of_a_good_file_is_refused() -> None:
    content = b.build(b.glm_keys(), [F32_ROW])
    for length in range(len(content)):
        refusal(content[:length])


def test_truncated_data_names_the_numbers() -> None:
    content = b.build({"general.architecture": "llama"}, [F32_ROW, b.TensorSpec("b.weight", b.F32, (64,))])
    error = refusal(content[:-100])
    assert error.facts["have_bytes"] == len(content) - 100
    assert error.facts["need_bytes"] == len(content)
    assert error.facts["first_cut_tensor"] == "b.weight"
    assert "100 are missing" in error.message


def test_version_1_and_git_lfs_pointers_are_recognised() -> None:
    assert "convert" in refusal(HOSTILE["version 1"]).hint
    assert "git lfs" in refusal(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").hint
    assert "/resolve/" in refusal(HOSTILE["web page"]).hint


def test_offsets_point_at_what_is_wrong() -> None:
    assert refusal(HOSTILE["web page"]).facts["offset"] == 0
    assert refusal(HOSTILE["version 4"]).facts["offset"] == 4
    assert refusal(HOSTILE["key twice"]).facts["offset"] == 24 + len(b.pair("a", 1))


def vocabulary(count: int) -> bytes:
    keys = b.text("tokens") + struct.pack("<IIQ", b.ARRAY, b.STRING, count) + b.text("abcdefgh") * count
    return b.assemble([keys], [])


def test_a_vocabulary_is_walked_without_keeping_it() -> None:
    content = vocabulary(200_000)
    tracemalloc.start()
    try:
        sample = parse(content).metadata["tokens"].value
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(sample, ArraySample)
    assert sample.count == 200_000
    assert peak < 8 * 2**20


def test_the_longest_vocabulary_takes_less_than_two_seconds() -> None:
    content = vocabulary(1_999_999)
    started = time.process_time()
    parse(content)
    assert time.process_time() - started < 2


def test_more_strings_than_any_vocabulary_are_refused_before_walking() -> None:
    keys = b.text("tokens") + struct.pack("<IIQ", b.ARRAY, b.STRING, 2**29)
    refusal(b.assemble([keys + bytes(4096)], []), size_bytes=2**40)


def test_a_header_that_never_ends_is_given_up() -> None:
    class Endless:
        name = "x.gguf"
        size_bytes = None
        bytes_read = 0

        def fetch(self, offset: int, at_least: int) -> bytes:
            if offset == 0:
                return b.assemble([], [], n_keys=4000)
            key = b.text(f"k{offset:020d}") + struct.pack("<I", b.STRING) + b.text("v" * (BLOCK_BYTES - 41))
            return (key * 2)[: max(at_least, len(key))]

        def close(self) -> None: ...

    with pytest.raises(GgufError, match="longer than"):
        parse_header(Endless())


def test_local_files_must_be_regular_and_readable(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.gguf", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(InputError) as caught:
            LocalFile(path)
        assert caught.value.hint


def test_a_local_file_reads_no_data(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b.build(b.glm_keys(), b.glm_tensors(), data=False))
    with path.open("r+b") as stream:
        stream.truncate(10 * 2**30)
    source = LocalFile(path)
    header = parse_header(source)
    source.close()
    assert header.file_bytes == 10 * 2**30
    assert source.bytes_read <= BLOCK_BYTES

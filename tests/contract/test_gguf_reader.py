"""Our header reader against the `gguf` package: what its writer writes, what its reader reads, its block sizes."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from glmplan.ggml_types import BLOCKS, GgmlType
from glmplan.profiles.gguf import read_profile
from glmplan.profiles.gguf_bytes import LocalFile
from glmplan.profiles.gguf_header import ArraySample, GgufHeader, parse_header
from glmplan.profiles.gguf_quantization import FILE_TYPES

TYPES = [GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.Q8_0, GgmlType.Q4_0, GgmlType.Q4_K, GgmlType.Q6_K]


def header_of(path: Path) -> GgufHeader:
    source = LocalFile(path)
    try:
        return parse_header(source)
    finally:
        source.close()


def write(path: Path, *, big_endian: bool = False, alignment: int | None = None) -> None:
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(path, "deepseek2", endianess=order)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_uint8("v.u8", 200)
    writer.add_int8("v.i8", -100)
    writer.add_uint16("v.u16", 60_000)
    writer.add_int16("v.i16", -30_000)
    writer.add_uint32("v.u32", 4_000_000_000)
    writer.add_int32("v.i32", -2_000_000_000)
    writer.add_uint64("v.u64", 2**63)
    writer.add_int64("v.i64", -(2**62))
    writer.add_float32("v.f32", 0.5)
    writer.add_float64("v.f64", 1e300)
    writer.add_bool("v.yes", True)
    writer.add_string("v.text", "GLM-4.7-Flash \N{SNOWMAN}")
    writer.add_array("v.numbers", [1, 2, 3])
    writer.add_array("v.texts", ["a", "b", "\N{SNOWMAN}"])
    writer.add_array("v.long", list(range(5000)))
    writer.add_token_list([f"token {number}" for number in range(3000)])
    for index, kind in enumerate(TYPES):
        per_block, size = BLOCKS[kind]
        rows, blocks = 3, 2 + index
        data = np.zeros((rows, blocks * size), dtype=np.uint8)
        quantised = gguf.GGMLQuantizationType(int(kind))
        if kind in {GgmlType.F32, GgmlType.F16}:
            typed = np.float32 if kind is GgmlType.F32 else np.float16
            writer.add_tensor(f"t.{kind.name}", np.zeros((rows, blocks * per_block), dtype=typed))
        else:
            writer.add_tensor(f"t.{kind.name}", data, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def plain(value: Any) -> Any:
    item = getattr(value, "item", None)
    return value if item is None else item()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("alignment", [None, 64, 4096])
def test_we_read_what_the_package_writes_as_it_reads_it(
    tmp_path: Path, big_endian: bool, alignment: int | None
) -> None:
    path = tmp_path / "x.gguf"
    write(path, big_endian=big_endian, alignment=alignment)
    ours, theirs = header_of(path), gguf.GGUFReader(path)
    assert ours.alignment == theirs.alignment
    assert ours.data_offset == theirs.data_offset
    assert ours.big_endian is (big_endian == (sys.byteorder == "little"))
    mine = {
        entry.tensor.name: (entry.tensor.shape, int(entry.tensor.type), entry.tensor.n_bytes,
                            ours.data_offset + entry.offset)
        for entry in ours.tensors
    }  # fmt: skip
    assert mine == {
        tensor.name: (tuple(int(length) for length in tensor.shape), int(tensor.tensor_type), int(tensor.n_bytes),
                      int(tensor.data_offset))
        for tensor in theirs.tensors
    }  # fmt: skip
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert set(ours.metadata) == set(fields)
    for name, found in ours.metadata.items():
        if isinstance(found.value, ArraySample):
            contents = fields[name].contents()
            assert found.value.count == len(contents)
            assert list(found.value.first) == [plain(value) for value in contents[: len(found.value.first)]]
        else:
            assert found.value == plain(fields[name].contents())


def test_block_sizes_are_those_of_the_package() -> None:
    theirs = {kind.name: tuple(size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    shared = {kind.name: BLOCKS[kind] for kind in GgmlType if kind.name in theirs}
    assert shared == {name: theirs[name] for name in shared}
    assert len(shared) >= 33
    assert {kind.name: int(kind) for kind in GgmlType if kind.name in theirs} == {
        name: int(gguf.GGMLQuantizationType[name]) for name in shared
    }


def test_every_type_of_the_package_is_known() -> None:
    assert {kind.name for kind in gguf.GGMLQuantizationType} <= {kind.name for kind in GgmlType}


def test_file_types_are_those_of_the_package() -> None:
    theirs = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for kind in gguf.LlamaFileType
        if kind.name != "GUESSED"
    }
    known = {number: name for number, name in FILE_TYPES.items() if number in theirs}
    assert known == theirs


def test_profile_of_a_written_file_sums_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tensor("token_embd.weight", np.zeros((10, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    profile = read_profile(path)
    assert (profile.n_vocab, profile.quantization, profile.tensor_bytes) == (10, "F32", 2560)
    assert profile.file_bytes == path.stat().st_size

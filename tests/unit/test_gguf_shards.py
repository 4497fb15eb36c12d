"""Models in several files."""

from pathlib import Path

import build_gguf as b
import pytest

from glmplan.errors import GgufError, InputError
from glmplan.profiles.gguf import inspect_model, read_profile
from glmplan.profiles.gguf_shards import part_path

A, B, C = (b.TensorSpec(f"blk.{number}.ffn_up.weight", b.F32, (8, number + 1)) for number in range(3))


def write_parts(folder: Path, *, count: int = 3, total: int = 3, tensors: list[b.TensorSpec] | None = None) -> Path:
    for number, tensor in enumerate(tensors or [A, B, C]):
        keys: dict[str, b.Typed | b.Array | b.Value] = {
            "split.no": b.Typed(b.UINT16, number),
            "split.count": b.Typed(b.UINT16, count),
            "split.tensors.count": b.Typed(b.INT32, total),
        }
        if number == 0:
            keys |= b.glm_keys()
        (folder / f"m-{number + 1:05d}-of-00003.gguf").write_bytes(b.build(keys, [tensor]))
    return folder / "m-00001-of-00003.gguf"


def test_all_parts_are_read_from_the_first(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    profile = read_profile(first)
    assert [tensor.name for tensor in profile.tensors] == [A.name, B.name, C.name]
    assert profile.file_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert profile.file == str(first)
    found = inspect_model(str(first), with_tensors=True)
    assert [shard.n_tensors for shard in found.shards] == [1, 1, 1]
    assert found.tensors is not None
    assert [tensor.shard for tensor in found.tensors] == [0, 1, 2]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(InputError, match="part 2 of 3") as caught:
        read_profile(first)
    assert caught.value.facts["missing_part"] == str(tmp_path / "m-00002-of-00003.gguf")


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    first = write_parts(tmp_path)
    third = tmp_path / "m-00003-of-00003.gguf"
    third.write_bytes(third.read_bytes()[:-32])
    with pytest.raises(GgufError, match="m-00003-of-00003"):
        read_profile(first)


def test_a_later_part_sends_to_the_first(tmp_path: Path) -> None:
    write_parts(tmp_path)
    with pytest.raises(GgufError, match="part 2 of 3") as caught:
        read_profile(tmp_path / "m-00002-of-00003.gguf")
    assert "m-00001-of-00003.gguf" in caught.value.hint


def test_parts_of_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="occurs in two parts"):
        read_profile(write_parts(tmp_path, tensors=[A, B, A]))
    with pytest.raises(GgufError, match="7 tensors announced, 3 found"):
        read_profile(write_parts(tmp_path, total=7))
    first = write_parts(tmp_path)
    (tmp_path / "m-00003-of-00003.gguf").write_bytes((tmp_path / "m-00002-of-00003.gguf").read_bytes())
    with pytest.raises(GgufError, match="says it is part 2, expected 3"):
        read_profile(first)


def test_a_name_that_does_not_lead_to_the_parts_is_refused(tmp_path: Path) -> None:
    renamed = write_parts(tmp_path).rename(tmp_path / "renamed.gguf")
    with pytest.raises(GgufError, match="does not lead to the others"):
        read_profile(renamed)
    with pytest.raises(GgufError, match="60000 parts"):
        read_profile(write_parts(tmp_path, count=60000))


def test_part_paths_keep_folder_and_query() -> None:
    assert part_path("https://h/a/m-00001-of-00012.gguf?download=true", 3, 12) == (
        "https://h/a/m-00003-of-00012.gguf?download=true"
    )
    assert part_path("/x/m.gguf", 2, 2) is None
    assert part_path("/x/m-00001-of-00002.gguf", 2, 3) is None

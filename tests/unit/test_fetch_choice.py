"""Which file is meant, and which copy on this machine will do."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Final

import build_gguf as b
import pytest
from launch_plans import plan_of

from glmplan.commands.fetching import copy_here, fetch_command, is_here, wanted_by, wanted_quant, with_local_file
from glmplan.engine import EngineKind
from glmplan.errors import InputError, ProfileError
from glmplan.fetched import HubFile
from glmplan.plan import PlannedModel
from glmplan.profiles.locate import hub_file, this_machine
from glmplan.profiles.published import copy_of, published_file
from glmplan.profiles.recipes import model_facts
from glmplan.profiles.stores import Stores

REPO: Final = "unsloth/GLM-4.7-Flash-GGUF"
WHOLE: Final = b.build({"general.architecture": "deepseek2"}, [b.TensorSpec("token_embd.weight", b.F32, (64, 40))])
COMMIT: Final = "46cbdf738df46cbdf738df46cbdf738df46cbdf7"


def planned(file: str, *, quantization: str = "q4_K_M", synthetic: bool = False, tmp: Path) -> PlannedModel:
    source = tmp / "some.gguf"
    source.write_bytes(WHOLE)
    model = plan_of(source, EngineKind.XLLAMACPP).model
    return dataclasses.replace(
        model, name="glm-4.7-flash", file=file, quantization=quantization, synthetic=synthetic, sha256=None
    )


def put(path: Path, content: bytes = WHOLE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_hub(file: str, content: bytes = WHOLE) -> Path:
    hub = Path(os.environ["XDG_CACHE_HOME"]) / "huggingface" / "hub" / f"models--{REPO.replace('/', '--')}"
    blob = put(hub / "blobs" / hashlib.sha256(content + file.encode()).hexdigest(), content)
    link = hub / "snapshots" / COMMIT / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link


@pytest.mark.parametrize(
    ("quant", "file"),
    [
        ("q4_K_M", "GLM-4.7-Flash-Q4_K_M.gguf"),
        ("Q8_0", "GLM-4.7-Flash-Q8_0.gguf"),
        ("bf16", "BF16/GLM-4.7-Flash-BF16-00001-of-00002.gguf"),
        ("ud-q4_k_xl", "GLM-4.7-Flash-UD-Q4_K_XL.gguf"),
    ],
)
def test_a_quantisation_has_a_published_file(quant: str, file: str) -> None:
    assert published_file(quant) == HubFile(repo=REPO, file=file)


def test_published_files_are_named_so_that_they_can_be_fetched() -> None:
    access = this_machine()
    for row in model_facts()["published_files"]:
        reference = f"hf:{row['repo']}/{row['file']}"
        assert hub_file(reference, access).reference == reference
        assert row["source"]


def test_an_unpublished_quantisation_lists_the_others() -> None:
    with pytest.raises(ProfileError) as raised:
        published_file("q99")
    assert "q4_K_M, q8_0, bf16" in raised.value.hint


def test_parts() -> None:
    file = HubFile(repo=REPO, file="BF16/m-00001-of-00003.gguf", revision="v1")
    assert [part.file[-19:] for part in file.parts] == [
        "-00001-of-00003.gguf"[1:], "-00002-of-00003.gguf"[1:], "-00003-of-00003.gguf"[1:],
    ]  # fmt: skip
    assert {part.revision for part in file.parts} == {"v1"}
    alone = HubFile(repo=REPO, file="m.gguf")
    assert alone.parts == (alone,)


@pytest.mark.parametrize(
    ("written", "revision"),
    [
        (f"hf:{REPO}/BF16/m.gguf", "main"),
        (f"hf:{REPO}@v1/BF16/m.gguf", "v1"),
        (f"https://huggingface.co/{REPO}/resolve/main/BF16/m.gguf?download=true", "main"),
        (f"https://huggingface.co/{REPO}/blob/abc/BF16/m.gguf", "abc"),
    ],
)
def test_ways_to_name_a_file(written: str, revision: str) -> None:
    assert hub_file(written, this_machine()) == HubFile(repo=REPO, file="BF16/m.gguf", revision=revision)


@pytest.mark.parametrize(
    "written",
    ["hf:x", "hf:a/b", "hf:a/b/../c", "hf:../../etc/passwd", "hf:a/b//c", "hf:a/..@x/c", "ollama:x",
     "https://huggingface.co/a/b/resolve/main/..%2f..%2fx", "https://other.example/a/b/resolve/main/x.gguf"],
)  # fmt: skip
def test_what_names_no_file(written: str) -> None:
    with pytest.raises(InputError):
        hub_file(written, this_machine())


def test_a_plan_names_its_file_in_several_ways(tmp_path: Path) -> None:
    path = f"/x/models--{REPO.replace('/', '--')}/snapshots/{COMMIT}/BF16/m.gguf"
    assert wanted_by(planned("glm-4.7-flash:q4_K_M", tmp=tmp_path)) == wanted_quant("q4_K_M")
    assert wanted_by(planned("/gone/my.gguf", tmp=tmp_path)) == wanted_quant("q4_K_M")
    assert wanted_by(planned(f"hf:{REPO}/x.gguf", tmp=tmp_path)).file == HubFile(repo=REPO, file="x.gguf")
    assert wanted_by(planned(path, tmp=tmp_path)).file == HubFile(repo=REPO, file="BF16/m.gguf", revision=COMMIT)
    with pytest.raises(InputError, match="synthetic"):
        wanted_by(planned("/gone/cut.gguf", synthetic=True, tmp=tmp_path))


def test_the_command_that_brings_a_plans_file(tmp_path: Path) -> None:
    assert fetch_command(planned("glm-4.7-flash:q4_K_M", tmp=tmp_path)) == "glmplan fetch --quant q4_K_M"
    assert fetch_command(planned(f"hf:{REPO}/a b.gguf", tmp=tmp_path)) == f"glmplan fetch 'hf:{REPO}/a b.gguf'"
    assert "glmplan fetch" not in fetch_command(planned("/gone/x.gguf", quantization="F32", tmp=tmp_path))
    other = dataclasses.replace(planned("qwen3-30b-a3b:q8_0", quantization="q8_0", tmp=tmp_path), name="qwen3-30b-a3b")
    assert fetch_command(other) == "glmplan fetch --model qwen3-30b-a3b --quant q8_0"


def test_a_copy_in_another_tools_store_is_used_in_place() -> None:
    place = put(Path.home() / ".lmstudio" / "models" / "somebody" / "GLM-4.7-Flash-GGUF" / "GLM-4.7-Flash-Q4_K_M.gguf")
    here = copy_here(wanted_quant("q4_K_M"))
    assert here is not None
    assert (here.path, here.store, here.total_bytes) == (str(place), "lm-studio", len(WHOLE))
    assert copy_here(wanted_quant("q8_0")) is None


def test_a_cut_copy_is_never_taken_for_the_model() -> None:
    put(Path.home() / ".lmstudio" / "models" / REPO / "GLM-4.7-Flash-Q4_K_M.gguf", WHOLE[:-100])
    assert copy_here(wanted_quant("q4_K_M")) is None


def test_another_models_file_of_this_name_is_not_taken() -> None:
    other = b.build({"general.architecture": "llama"}, [b.TensorSpec("token_embd.weight", b.F32, (64, 40))])
    put(Path.home() / ".lmstudio" / "models" / "x" / "y" / "GLM-4.7-Flash-Q4_K_M.gguf", other)
    assert copy_here(wanted_quant("q4_K_M")) is None


def test_a_split_copy_needs_every_part() -> None:
    stores = Stores(env=os.environ, home=Path.home())
    file = HubFile(repo=REPO, file="BF16/m-00001-of-00002.gguf")
    parts = [
        b.build(
            {"general.architecture": "deepseek2", "split.count": 2, "split.no": number},
            [b.TensorSpec(f"t{number}", b.F32, (64, 40))],
        )
        for number in (0, 1)
    ]
    first = put_hub("BF16/m-00001-of-00002.gguf", parts[0])
    assert copy_of(file, stores) is None
    second = put_hub("BF16/m-00002-of-00002.gguf", parts[1][:-50])
    assert copy_of(file, stores) is None
    second.resolve().write_bytes(parts[1])
    here = copy_of(file, stores)
    assert here is not None
    assert (here.path, [Path(part.path).name for part in here.files]) == (str(first), [first.name, second.name])


def test_a_plan_follows_its_file(tmp_path: Path) -> None:
    plan = plan_of(put(tmp_path / "x.gguf"), EngineKind.XLLAMACPP)
    assert with_local_file(plan) is plan
    away = dataclasses.replace(plan, model=planned("glm-4.7-flash:q4_K_M", tmp=tmp_path))
    assert with_local_file(away) is away
    link = put_hub("GLM-4.7-Flash-Q4_K_M.gguf")
    assert with_local_file(away).model.file == str(link)
    assert with_local_file(away).model.file_bytes == len(WHOLE)


def test_here_means_whole(tmp_path: Path) -> None:
    model = plan_of(put(tmp_path / "x.gguf"), EngineKind.XLLAMACPP).model
    assert is_here(model)
    assert not is_here(dataclasses.replace(model, file_bytes=len(WHOLE) + 1))
    assert not is_here(dataclasses.replace(model, file="glm-4.7-flash:q4_K_M"))

"""Where other tools keep model files, imitated under a temporary folder."""

import hashlib
import json
from pathlib import Path

import build_gguf as b
import pytest

from glmplan.errors import InputError
from glmplan.jsonio import dumps
from glmplan.profiles.gguf import inspect_model, read_profile
from glmplan.profiles.locate import Access, locate
from glmplan.profiles.store_listing import quantization_in_name, stored_models
from glmplan.profiles.stores import OllamaName, Stores, find_hub_file, find_ollama, model_digest

REPO, FILE = "unsloth/GLM-4.7-Flash-GGUF", "GLM-4.7-Flash-Q4_K_M.gguf"
COMMIT = "46cbdf738df46cbdf738df46cbdf738df46cbdf7"
CONTENT = b.build(b.glm_keys(), [b.TensorSpec("token_embd.weight", b.F32, (8, 4))])
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def stores(home: Path, **env: str) -> Stores:
    home.mkdir(parents=True, exist_ok=True)
    return Stores(env=env, home=home, root=home / "root")


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_hub(hub: Path, *, file: str = FILE, commit: str = COMMIT, ref: str | None = "main") -> Path:
    repository = hub / f"models--{REPO.replace('/', '--')}"
    blob = put(repository / "blobs" / DIGEST)
    link = repository / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    if ref:
        put(repository / "refs" / ref, commit.encode())
    return link


def put_ollama(models: Path, tag: str = "q4_K_M", *, separator: str = "-", content: bytes = CONTENT) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    config = put(models / "blobs" / f"sha256{separator}{'c' * 64}", json.dumps({"file_type": "Q4_K_M"}).encode())
    manifest = {
        "schemaVersion": 2,
        "config": {"digest": config.name.replace("-", ":")},
        "layers": [
            {"mediaType": "application/vnd.ollama.image.license", "digest": f"sha256:{'a' * 64}"},
            {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
        ],
    }
    place = models / "manifests" / "registry.ollama.ai" / "library" / "glm-4.7-flash" / tag
    put(place, json.dumps(manifest).encode())
    return put(models / "blobs" / f"sha256{separator}{digest}", content)


@pytest.mark.parametrize(
    ("variable", "below"),
    [("LLAMA_CACHE", ""), ("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"),
     ("XDG_CACHE_HOME", "huggingface/hub"), (None, ".cache/huggingface/hub")],
)  # fmt: skip
def test_the_hub_cache_is_found_by_every_variable(tmp_path: Path, variable: str | None, below: str) -> None:
    base = tmp_path / "base"
    link = put_hub(base / below)
    env = {variable: str(base)} if variable else {}
    found = find_hub_file(stores(base if variable is None else tmp_path / "home", **env), REPO, FILE)
    assert found is not None
    assert (found.path, found.store, found.sha256) == (link, "huggingface", DIGEST)


def test_main_takes_its_own_snapshot_first_and_any_other_after(tmp_path: Path) -> None:
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    other = put_hub(hub, commit="b" * 40, ref=None)
    assert find_hub_file(stores(tmp_path), REPO, FILE) is not None
    main = put_hub(hub)
    found = find_hub_file(stores(tmp_path), REPO, FILE)
    assert found is not None
    assert found.path == main
    exact = find_hub_file(stores(tmp_path), REPO, FILE, "b" * 40)
    assert exact is not None
    assert exact.path == other
    assert find_hub_file(stores(tmp_path), REPO, FILE, "no-such-branch") is None


def test_files_in_folders_of_a_repository_are_found(tmp_path: Path) -> None:
    link = put_hub(tmp_path / ".cache" / "huggingface" / "hub", file="BF16/x-00001-of-00002.gguf")
    found = find_hub_file(stores(tmp_path), REPO, "BF16/x-00001-of-00002.gguf")
    assert found is not None
    assert found.path == link


def test_llama_cpps_flat_cache_and_lm_studio_are_found(tmp_path: Path) -> None:
    flat = put(tmp_path / "a" / ".cache" / "llama.cpp" / f"unsloth_GLM-4.7-Flash-GGUF_{FILE}")
    found = find_hub_file(stores(tmp_path / "a"), REPO, FILE)
    assert found is not None
    assert (found.path, found.store) == (flat, "llama.cpp")
    kept = put(tmp_path / "b" / ".lmstudio" / "models" / REPO / FILE)
    found = find_hub_file(stores(tmp_path / "b"), REPO, FILE)
    assert found is not None
    assert (found.path, found.store) == (kept, "lm-studio")


def test_lm_studio_is_found_by_its_pointer_and_its_downloads_folder(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    put(home / ".lmstudio-home-pointer", f"{elsewhere}\n".encode())
    kept = put(elsewhere / "models" / REPO / FILE)
    found = find_hub_file(stores(home), REPO, FILE)
    assert found is not None
    assert found.path == kept
    put(elsewhere / "settings.json", json.dumps({"downloadsFolder": str(tmp_path / "big-disk")}).encode())
    moved = put(tmp_path / "big-disk" / REPO / FILE)
    found = find_hub_file(stores(home), REPO, FILE)
    assert found is not None
    assert found.path == moved
    put(elsewhere / "settings.json", b"[not json")
    assert stores(home).lm_studio_folders == (elsewhere / "models",)


@pytest.mark.parametrize("separator", ["-", ":"])
def test_ollama_blobs_are_found_by_tag_whatever_its_case(tmp_path: Path, separator: str) -> None:
    blob = put_ollama(tmp_path / ".ollama" / "models", tag="q4_k_m", separator=separator)
    name = OllamaName(host="registry.ollama.ai", namespace="library", model="glm-4.7-flash", tag="Q4_K_M")
    found = find_ollama(stores(tmp_path), name)
    assert found is not None
    assert (found.path, found.store, found.sha256) == (blob, "ollama", DIGEST)


def test_ollamas_own_variable_and_its_service_folder_are_searched(tmp_path: Path) -> None:
    put_ollama(tmp_path / "models", tag="latest")
    put_ollama(tmp_path / "root" / "usr" / "share" / "ollama" / ".ollama" / "models", tag="bf16")
    access = Access(stores=stores(tmp_path, OLLAMA_MODELS=str(tmp_path / "models")), offline=True)
    assert locate("ollama:glm-4.7-flash", access).store == "ollama"
    assert locate("ollama:glm-4.7-flash:bf16", access).store == "ollama"
    assert locate("ollama:registry.ollama.ai/library/glm-4.7-flash:bf16", access).store == "ollama"


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", '{"layers": 3}', '{"layers": [{"mediaType": "x"}]}', "[" * 100_000,
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}'],
)  # fmt: skip
def test_broken_manifests_name_no_file(manifest: str) -> None:
    assert model_digest(manifest) is None


def test_a_local_copy_is_read_without_the_network(tmp_path: Path) -> None:
    put_hub(tmp_path / ".cache" / "huggingface" / "hub")
    access = Access(stores=stores(tmp_path), offline=True)
    profile = read_profile(f"hf:{REPO}/{FILE}", access=access)
    assert profile.file is not None
    assert profile.file.endswith(FILE)
    assert (profile.sha256, profile.download) == (DIGEST, f"hf:{REPO}/{FILE}")
    assert inspect_model(f"hf:{REPO}/{FILE}", access=access).store == "huggingface"


@pytest.mark.parametrize("reference", [f"hf:{REPO}/other.gguf", "ollama:absent", "https://127.0.0.1:1/x.gguf"])
def test_offline_refuses_the_network(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError, match="network") as caught:
        locate(reference, Access(stores=stores(tmp_path), offline=True))
    assert "--offline" in caught.value.hint


def test_the_hubs_own_offline_switch_is_honoured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="network"):
        locate(f"hf:{REPO}/{FILE}", Access(stores=stores(tmp_path, HF_HUB_OFFLINE="1")))


@pytest.mark.parametrize(
    "reference",
    ["hf:", "hf:unsloth", "hf:a/b", "hf:a/b/", "hf:a/../b/c.gguf", "hf:a/b/../../../etc/passwd", "hf:a/b//c.gguf",
     "hf:a/b/c\n.gguf", "ollama:", "ollama:a b", "ollama:../../x", "ftp://host/x.gguf", "http://", "https:///x",
     "http://host:99999/x", "http://[::1/x", "http://\x01/x"],
)  # fmt: skip
def test_malformed_names_are_refused_with_an_example(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError) as caught:
        locate(reference, Access(stores=stores(tmp_path)))
    assert caught.value.hint


def test_odd_paths_are_told_apart_from_bugs(tmp_path: Path) -> None:
    access = Access(stores=stores(tmp_path))
    for reference in ("~nobody-here/x.gguf", "x" * 5000, f"{tmp_path}/\udcff.gguf"):
        with pytest.raises(InputError, match="cannot read"):
            inspect_model(reference, access=access)
    odd = put(tmp_path / "\udcff.gguf")
    assert "\\udcff" in dumps(inspect_model(str(odd), access=access))


def test_an_endpoint_that_is_no_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="HF_ENDPOINT"):
        locate(f"hf:{REPO}/{FILE}", Access(stores=stores(tmp_path, HF_ENDPOINT="my mirror")))
    with pytest.raises(InputError, match="HF_TOKEN") as caught:
        locate(f"hf:{REPO}/{FILE}", Access(stores=stores(tmp_path, HF_TOKEN="hf_secret\nx")))
    assert "secret" not in caught.value.message


def test_a_repository_without_a_file_lists_what_is_there(tmp_path: Path) -> None:
    put_hub(tmp_path / ".cache" / "huggingface" / "hub")
    with pytest.raises(InputError) as caught:
        locate(f"hf:{REPO}", Access(stores=stores(tmp_path)))
    assert FILE in caught.value.hint


def test_a_path_that_looks_like_a_repository_gets_the_right_form(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        locate(f"{REPO}/{FILE}", Access(stores=stores(tmp_path)))
    assert f"hf:{REPO}/{FILE}" in caught.value.hint


def test_addresses_of_the_hub_follow_the_endpoint_and_carry_the_token_for_it_alone(tmp_path: Path) -> None:
    access = Access(stores=stores(tmp_path, HF_ENDPOINT="https://mirror.example/hub/", HF_TOKEN="hf_secret"))
    located = locate(f"hf:{REPO}@v1.0/{FILE}", access)
    assert located.place == f"https://mirror.example/hub/{REPO}/resolve/v1.0/{FILE}"
    assert located.credentials is not None
    assert located.credentials.origin == "https://mirror.example:443"
    assert "hf_secret" not in repr(located)
    page = locate(f"https://mirror.example/{REPO}/blob/main/{FILE}", access)
    assert page.place == f"https://mirror.example/{REPO}/resolve/main/{FILE}"
    assert page.credentials is not None
    assert locate(f"https://other.example/{REPO}/blob/main/{FILE}", access).credentials is None


def test_addresses_lose_their_secrets_before_they_are_shown(tmp_path: Path) -> None:
    access = Access(stores=stores(tmp_path))
    located = locate("https://user:secret@host.example/x.gguf?signature=secret", access)
    assert "secret" not in located.reference
    assert located.download is not None
    assert "secret" not in located.download


def test_every_model_of_every_store_is_listed_once(tmp_path: Path) -> None:
    put_hub(tmp_path / ".cache" / "huggingface" / "hub")
    for number in (1, 2):
        put(tmp_path / ".lmstudio" / "models" / REPO / f"GLM-4.7-Flash-BF16-0000{number}-of-00002.gguf")
    put(tmp_path / ".lmstudio" / "models" / REPO / "mmproj-F16.gguf")
    put(tmp_path / ".cache" / "llama.cpp" / "a_b_GLM-4.7-Flash-UD-Q4_K_XL.gguf")
    put_ollama(tmp_path / ".ollama" / "models")
    found = {(model.store, model.quantization, model.bytes) for model in stored_models(stores(tmp_path))}
    assert found == {
        ("huggingface", "Q4_K_M", len(CONTENT)),
        ("lm-studio", "BF16", 2 * len(CONTENT)),
        ("llama.cpp", "UD-Q4_K_XL", len(CONTENT)),
        ("ollama", "Q4_K_M", len(CONTENT)),
    }


def test_no_store_no_models(tmp_path: Path) -> None:
    assert stored_models(stores(tmp_path / "empty")) == ()


@pytest.mark.parametrize(
    ("name", "quantization"),
    [("GLM-4.7-Flash-Q4_K_M.gguf", "Q4_K_M"), ("GLM-4.7-Flash-UD-Q2_K_XL.gguf", "UD-Q2_K_XL"),
     ("x.IQ4_XS.gguf", "IQ4_XS"), ("GLM-4.7-Flash-MXFP4_MOE.gguf", "MXFP4_MOE"), ("Q4-model.gguf", "Q4"),
     ("glm-4.7-flash-bf16-00001-of-00002.gguf", "bf16"), ("model.gguf", None)],
)  # fmt: skip
def test_quantisations_are_read_off_names(name: str, quantization: str | None) -> None:
    assert quantization_in_name(name) == quantization

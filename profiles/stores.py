"""Where other tools keep model files on this machine, and how to find one there by its name.

Pure path logic over an environment and a home folder, so that any machine can be imitated under a temporary folder.
Sources: llama.cpp common/hf-cache.cpp and common/common.cpp (`fs_get_cache_directory`), huggingface_hub's cache layout,
ollama envconfig/config.go and server/modelpath.go, lms (lmstudio-ai/lms, `findLMStudioHome`).
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glmplan.noun import noun

HUGGING_FACE: Final = "huggingface"
LLAMA_CPP: Final = "llama.cpp"
LM_STUDIO: Final = "lm-studio"
OLLAMA: Final = "ollama"

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LATER_PART: Final = re.compile(r"-(?!00001-)\d{5}-of-\d{5}\.gguf$")
_MODEL_LAYER: Final = "application/vnd.ollama.image.model"
_MOST_MANIFEST_BYTES: Final = 2**20


@noun
class Found:
    """A model file in a store; `sha256` when the store names its files by it."""

    path: Path
    store: str
    sha256: str | None = None


@noun
class OllamaName:
    """An Ollama model name in full; the defaults are those of its command line."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = "https"


@noun
class Stores:
    """The stores of one user on one machine; `root` is the root folder of its file system."""

    env: Mapping[str, str]
    home: Path
    root: Path = Path("/")

    @property
    def hub_folders(self) -> tuple[Path, ...]:
        """Folders with Hugging Face's cache layout, in the order in which llama.cpp looks for one."""
        candidates = [
            self._from_env("LLAMA_CACHE"),
            self._from_env("HF_HUB_CACHE"),
            self._from_env("HUGGINGFACE_HUB_CACHE"),
            self._from_env("HF_HOME", "hub"),
            self._from_env("XDG_CACHE_HOME", "huggingface", "hub"),
            self.home / ".cache" / "huggingface" / "hub",
        ]
        return _present(candidates)

    @property
    def llama_cpp_folders(self) -> tuple[Path, ...]:
        """llama.cpp's own flat cache, in use until it took over Hugging Face's layout."""
        candidates = [
            self._from_env("LLAMA_CACHE"),
            self._from_env("XDG_CACHE_HOME", "llama.cpp"),
            self.home / ".cache" / "llama.cpp",
            self.home / "Library" / "Caches" / "llama.cpp",
        ]
        return _present(candidates)

    @property
    def lm_studio_folders(self) -> tuple[Path, ...]:
        """Model folders of LM Studio: its pointer file, then the places it used over time."""
        homes = [self._lm_studio_pointer(), self.home / ".lmstudio", self.home / ".cache" / "lm-studio"]
        folders: list[Path | None] = []
        for folder in homes:
            if folder is not None:
                folders += [_downloads_folder(folder), folder / "models"]
        return _present(folders)

    @property
    def ollama_folders(self) -> tuple[Path, ...]:
        """Model folders of Ollama: of this user, and of the system service on Linux."""
        candidates = [
            self._from_env("OLLAMA_MODELS"),
            self.home / ".ollama" / "models",
            self.root / "usr" / "share" / "ollama" / ".ollama" / "models",
            self.root / "var" / "lib" / "ollama" / ".ollama" / "models",
        ]
        return _present(candidates)

    def _from_env(self, variable: str, *below: str) -> Path | None:
        value = self.env.get(variable)
        return Path(value).joinpath(*below) if value else None

    def _lm_studio_pointer(self) -> Path | None:
        text = read_small(self.home / ".lmstudio-home-pointer")
        lines = (text or "").strip().splitlines()
        return Path(lines[0].strip()) if lines else None


def find_hub_file(stores: Stores, repo: str, file: str, revision: str = "main") -> Found | None:
    """A file of a hub repository that some tool on this machine has already fetched.

    Args:
        stores: where to look.
        repo: `organisation/name`.
        file: path inside the repository.
        revision: branch, tag or commit; a copy of another revision is taken only for `main`.
    """
    for folder in stores.hub_folders:
        for snapshot in snapshots(folder / f"models--{repo.replace('/', '--')}", revision):
            if is_file(snapshot / file):
                return Found(path=snapshot / file, store=HUGGING_FACE, sha256=blob_sha256(snapshot / file))
    for folder in stores.llama_cpp_folders:
        flat = folder / f"{repo}_{file}".replace("/", "_")
        if is_file(flat):
            return Found(path=flat, store=LLAMA_CPP)
    for folder in stores.lm_studio_folders:
        kept = folder / repo / Path(file).name
        if is_file(kept):
            return Found(path=kept, store=LM_STUDIO)
    return None


def find_ollama(stores: Stores, name: OllamaName) -> Found | None:
    """The blob of an Ollama model that was pulled to this machine."""
    for folder in stores.ollama_folders:
        manifest = _child(folder / "manifests", name.host, name.namespace, name.model, name.tag)
        digest = model_digest(read_small(manifest) or "") if manifest is not None else None
        if digest is None:
            continue
        for spelling in (f"sha256-{digest}", f"sha256:{digest}"):
            if is_file(folder / "blobs" / spelling):
                return Found(path=folder / "blobs" / spelling, store=OLLAMA, sha256=digest)
    return None


def model_digest(manifest: str) -> str | None:
    """SHA-256 of the model layer of an Ollama manifest (OCI image manifest JSON), None when it has none."""
    try:
        layers = json.loads(manifest)["layers"]
        digests = [layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    kind, _, digest = str(digests[0]).partition(":") if digests else ("", "", "")
    return digest if kind == "sha256" and _SHA256.fullmatch(digest) else None


def hub_files(stores: Stores, repo: str) -> tuple[str, ...]:
    """GGUF files of a repository that are in a hub cache, by their path in the repository."""
    names: set[str] = set()
    for folder in stores.hub_folders:
        for snapshot in snapshots(folder / f"models--{repo.replace('/', '--')}", "main"):
            names.update(str(path.relative_to(snapshot)) for path in gguf_files(snapshot))
    return tuple(sorted(names))


def _present(candidates: list[Path | None]) -> tuple[Path, ...]:
    """The folders that exist, each once."""
    return tuple(dict.fromkeys(path for path in candidates if path is not None and _is_folder(path)))


def _is_folder(path: Path) -> bool:
    """Whether a folder is there; one behind another user's closed folder is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there and may be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def folders(folder: Path, pattern: str) -> list[Path]:
    """Folders in `folder` by a glob pattern, sorted."""
    return sorted(path for path in folder.glob(pattern) if _is_folder(path))


def snapshots(repository: Path, revision: str) -> list[Path]:
    """Snapshot folders to look in: the one the revision names, then for `main` all others, newest first."""
    kept = repository / "snapshots"
    commit = (read_small(repository / "refs" / revision) or revision).strip()
    named = [kept / commit] if commit and os.sep not in commit else []
    if revision != "main":
        return named
    others = sorted(folders(kept, "*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys([*named, *others]))


def blob_sha256(path: Path) -> str | None:
    """A snapshot entry is a link to a blob named by the SHA-256 of its content."""
    try:
        name = path.readlink().name
    except OSError:
        return None
    return name if _SHA256.fullmatch(name) else None


def gguf_files(folder: Path, *, skip: str | None = None) -> list[Path]:
    """Model files below a folder; later parts of split files and projectors are left out."""
    skipped = set(folder.glob(skip)) if skip else set[Path]()
    return sorted(
        path
        for path in folder.rglob("*.gguf")
        if is_file(path)
        and not _LATER_PART.search(path.name)
        and not path.name.startswith("mmproj")
        and not skipped.intersection(path.parents)
    )


def _child(folder: Path, *names: str) -> Path | None:
    """The file under `folder` by these names whatever their case: Ollama folds tags to lower case on disk."""
    for name in names:
        exact = folder / name
        if not is_file(exact) and not _is_folder(exact):
            try:
                alike = [path for path in folder.iterdir() if path.name.casefold() == name.casefold()]
            except OSError:
                return None
            if not alike:
                return None
            exact = alike[0]
        folder = exact
    return folder


def _downloads_folder(lm_studio: Path) -> Path | None:
    """The folder LM Studio was told to download to (`downloadsFolder` of its settings.json)."""
    try:
        settings = json.loads(read_small(lm_studio / "settings.json") or "{}")
        folder = settings.get("downloadsFolder")
    except (ValueError, AttributeError, RecursionError):
        return None
    return Path(folder) if isinstance(folder, str) and folder else None


def read_small(path: Path) -> str | None:
    """The first MiB of a text file, None when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MOST_MANIFEST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None

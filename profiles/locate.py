"""From what a user names (a path, an address, `hf:REPO/FILE`, `ollama:TAG`) to the place where the bytes are.

Files that are already on this machine come first; the network is used only when they are not.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from glmplan.errors import InputError
from glmplan.fetched import HubFile
from glmplan.http_requests import Credentials, HttpLimits, checked_url, get_document, origin_of, shown_url
from glmplan.noun import noun
from glmplan.profiles.stores import OllamaName, Stores, find_hub_file, find_ollama, hub_files, is_file, model_digest

_HUB: Final = "https://huggingface.co"
_OLLAMA_HOST: Final = "registry.ollama.ai"
_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
_WORD: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HF: Final = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}(?:/{_WORD})*?))?/([^@]+)")
_HF_REPO: Final = re.compile(rf"({_WORD}/{_WORD})(?:[@:].*)?")
_OLLAMA: Final = re.compile(rf"(?:(https?)://)?(?:([^/\s]+)/)??(?:({_WORD})/)?({_WORD})(?::({_WORD}))?")
_BLOB_PAGE: Final = re.compile(r"(/[^/]+/[^/]+)/blob/(.+)")
_HUB_PATH: Final = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)")
_YES: Final = frozenset({"1", "on", "yes", "true"})


@noun
class Access:
    """Where files may be looked for, and whether over the network."""

    stores: Stores
    offline: bool = False
    limits: HttpLimits = HttpLimits()

    @property
    def env(self) -> Mapping[str, str]:
        """The environment the stores are found by."""
        return self.stores.env

    @property
    def hub(self) -> str:
        """Address of the model hub: HF_ENDPOINT or the public one.

        Raises:
            InputError: HF_ENDPOINT is not an address.
        """
        try:
            return checked_url(self.env.get("HF_ENDPOINT") or _HUB).rstrip("/")
        except InputError as error:
            message = f"HF_ENDPOINT is {error.message}"
            raise InputError(message, hint="unset it, or give the mirror's https address") from error

    @property
    def hub_is_offline(self) -> bool:
        """Whether the hub is not to be asked: told so here, or by HF_HUB_OFFLINE."""
        return self.offline or self.env.get("HF_HUB_OFFLINE", "").lower() in _YES

    @property
    def credentials(self) -> Credentials | None:
        """HF_TOKEN, bound to the hub."""
        token = self.env.get("HF_TOKEN", "").strip()
        if not token:
            return None
        if not token.isascii() or not token.isprintable():
            message = "HF_TOKEN holds characters no token has"
            raise InputError(message, hint="set it again without quotes and line breaks")
        return Credentials(token=token, origin=origin_of(self.hub))


@noun
class Located:
    """A model file: `place` is a path on this machine, or an address when `remote`."""

    reference: str
    place: str
    remote: bool
    store: str | None = None
    sha256: str | None = None
    download: str | None = None
    credentials: Credentials | None = None


def this_machine(*, offline: bool = False) -> Access:
    """Access for the user who runs this process."""
    return Access(stores=Stores(env=os.environ, home=Path.home()), offline=offline)


def locate(reference: str, access: Access) -> Located:
    """Find what `reference` names.

    Raises:
        InputError: malformed, or not on this machine while the network is forbidden.
    """
    scheme, colon, rest = reference.partition(":")
    if colon and scheme == "hf":
        return _locate_hub(reference, rest, access)
    if colon and scheme == "ollama":
        return _locate_ollama(reference, rest, access)
    if reference.startswith(("http://", "https://")):
        return _locate_url(reference, access)
    if "://" in reference:
        message = f"no way to read {scheme}:// addresses"
        raise InputError(message, hint="give a path, an http(s) address, hf:REPO/FILE or ollama:TAG")
    return _locate_path(reference)


def _locate_path(reference: str) -> Located:
    path = Path(reference)
    with suppress(RuntimeError):  # `~nobody/x`: no such user
        path = path.expanduser()
    if not is_file(path) and re.fullmatch(rf"{_WORD}/{_WORD}/.+\.gguf", reference):
        message = f"no such file: {path}"
        raise InputError(message, hint=f"for a file on the model hub write hf:{reference}", facts={"path": str(path)})
    return Located(reference=reference, place=str(path), remote=False)


def _locate_url(reference: str, access: Access) -> Located:
    url = checked_url(reference)
    credentials = None
    if origin_of(url) == origin_of(access.hub):
        credentials = access.credentials
        parts = urlsplit(url)
        page = _BLOB_PAGE.fullmatch(parts.path)
        if page:
            url = parts._replace(path=f"{page[1]}/resolve/{page[2]}").geturl()
    _refuse_offline(shown_url(url), offline=access.offline)
    return Located(reference=shown_url(url), place=url, remote=True, download=shown_url(url), credentials=credentials)


def _locate_hub(reference: str, rest: str, access: Access) -> Located:
    named = _named_file(rest)
    if named is None:
        raise _malformed_hub(reference, rest, access)
    repo, revision, file = named.repo, named.revision, named.file
    found = find_hub_file(access.stores, repo, file, revision)
    if found is not None:
        return Located(
            reference=reference,
            place=str(found.path),
            remote=False,
            store=found.store,
            sha256=found.sha256,
            download=reference,
        )
    _refuse_offline(reference, offline=access.hub_is_offline)
    url = f"{access.hub}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"
    return Located(reference=reference, place=url, remote=True, download=reference, credentials=access.credentials)


def hub_file(reference: str, access: Access) -> HubFile:
    """The file of a repository that `hf:REPO/FILE`, or an address of the hub, names; nothing is looked for.

    Raises:
        InputError: it names none.
    """
    scheme, _, rest = reference.partition(":")
    if scheme in {"http", "https"}:
        rest = _rest_of_address(reference, access)
    named = _named_file(rest) if scheme in {"hf", "http", "https"} else None
    if named is None:
        raise _malformed_hub(reference, rest, access)
    return named


def _named_file(rest: str) -> HubFile | None:
    """`REPO[@REVISION]/FILE`, if it cannot lead out of the folders it is looked for in."""
    match = _HF.fullmatch(rest)
    if match is None or any(part in {"", ".", ".."} for part in match[3].split("/")) or not match[3].isprintable():
        return None
    return HubFile(repo=match[1], revision=match[2] or "main", file=match[3])


def _rest_of_address(url: str, access: Access) -> str:
    """A page or download address of the hub as `REPO@REVISION/FILE`."""
    parts = urlsplit(checked_url(url))
    match = _HUB_PATH.fullmatch(unquote(parts.path))
    if match is None or origin_of(url) not in {origin_of(access.hub), origin_of(_HUB)}:
        message = f"{shown_url(url)} is no file of the model hub"
        raise InputError(message, hint="write hf:ORGANISATION/NAME/FILE.gguf, or download it and plan with --gguf PATH")
    return f"{match[1]}@{match[2]}/{match[3]}"


def _malformed_hub(reference: str, rest: str, access: Access) -> InputError:
    repo = _HF_REPO.fullmatch(rest)
    known = hub_files(access.stores, repo[1]) if repo else ()
    hint = f"in the cache of this machine: {', '.join(known)}" if known else "write hf:ORGANISATION/NAME/FILE.gguf"
    message = f"{reference!r} does not name a file of a repository"
    return InputError(message, hint=hint, facts={"reference": reference})


def _locate_ollama(reference: str, rest: str, access: Access) -> Located:
    match = _OLLAMA.fullmatch(rest)
    if match is None:
        message = f"{reference!r} is not the name of an Ollama model"
        raise InputError(message, hint="for example ollama:glm-4.7-flash:q4_K_M", facts={"reference": reference})
    name = OllamaName(
        scheme=match[1] or "https",
        host=match[2] or _OLLAMA_HOST,
        namespace=match[3] or "library",
        model=match[4],
        tag=match[5] or "latest",
    )
    found = find_ollama(access.stores, name)
    if found is not None:
        return Located(reference=reference, place=str(found.path), remote=False, store=found.store, sha256=found.sha256)
    _refuse_offline(reference, offline=access.offline)
    base = f"{name.scheme}://{name.host}/v2/{name.namespace}/{name.model}"
    manifest = get_document(f"{base}/manifests/{name.tag}", accept=_MANIFEST, limits=access.limits)
    digest = model_digest(manifest)
    if digest is None:
        message = f"the registry's manifest of {reference} names no model file"
        raise InputError(message, hint="check the name and the tag", facts={"reference": reference})
    return Located(reference=reference, place=f"{base}/blobs/sha256:{digest}", remote=True, sha256=digest)


def _refuse_offline(what: str, *, offline: bool) -> None:
    if offline:
        message = f"{what} is not on this machine, and the network is not to be used"
        raise InputError(message, hint="drop --offline (and HF_HUB_OFFLINE), or fetch the file first")

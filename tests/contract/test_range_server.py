"""The HTTP reader against a real server: how little it reads, and that no fault leaves it hanging or silent."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import build_gguf as b
import pytest
from range_server import RangeServer, serving

from glmplan.errors import GgufError, GlmplanError, InputError
from glmplan.http_requests import Credentials, HttpLimits, parse_content_range, shown_url
from glmplan.profiles.gguf import inspect_model, read_profile
from glmplan.profiles.locate import Access
from glmplan.profiles.ranges import RangeSource
from glmplan.profiles.stores import Stores

QUICK = HttpLimits(connect_s=2.0, read_s=0.4, slack_s=1.5, slowest_bytes_per_s=2**20, attempts=3, backoff_s=0.01)
PATH = "/org/repo/resolve/main/m.gguf"
VOCABULARY = b.text("tokenizer.ggml.tokens") + struct.pack("<IIQ", b.ARRAY, b.STRING, 154_880)
FILE_BYTES = 20 * 2**30


def glm_header() -> bytes:
    """A header as long as a published one: 154,880 tokens and 321,649 merges, 9 MB."""
    merges = b.text("tokenizer.ggml.merges") + struct.pack("<IIQ", b.ARRAY, b.STRING, 321_649)
    pairs = [b.pair(key, value) for key, value in b.glm_keys().items()]
    pairs += [VOCABULARY + b.text("token text") * 154_880, merges + b.text("a merge of") * 321_649]
    offset, rows = 0, list[bytes]()
    for spec in b.glm_tensors():
        rows.append(b.tensor_row(spec, offset))
        offset += -(-b.tensor_bytes(spec) // 32) * 32
    return b.assemble(pairs, rows)


HEADER = glm_header()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving(HEADER, size_bytes=FILE_BYTES) as running:
        yield running


def access(tmp_path: Path, **env: str) -> Access:
    return Access(stores=Stores(env=env, home=tmp_path, root=tmp_path), limits=QUICK)


def test_a_published_header_takes_less_than_12_mb(server: RangeServer, tmp_path: Path) -> None:
    found = inspect_model(server.url + PATH, access=access(tmp_path))
    assert (found.n_tensors, found.n_vocab) == (len(b.glm_tensors()), 154_880)
    assert found.file_bytes == FILE_BYTES
    assert found.bytes_read == server.sent_bytes < 12_000_000
    assert len(server.seen) <= 7
    assert all(seen.headers["Accept-Encoding"] == "identity" for seen in server.seen)


def test_local_and_remote_say_the_same(server: RangeServer, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HEADER)
    with path.open("r+b") as stream:
        stream.truncate(FILE_BYTES)
    remote = read_profile(server.url + PATH, access=access(tmp_path))
    local = read_profile(path)
    assert remote.tensors == local.tensors
    assert remote.attention == local.attention
    assert (remote.file, local.file) == (None, str(path))
    assert remote.download == server.url + PATH


@pytest.mark.parametrize(
    "fault",
    ["ignores_range", "ignores_range_and_drops", "drops", "smaller_parts", "unknown_length", "longer_body",
     "busy_at_first"],
)  # fmt: skip
def test_servers_with_bad_manners_are_read_all_the_same(server: RangeServer, tmp_path: Path, fault: str) -> None:
    server.fault = fault
    found = inspect_model(server.url + PATH, access=access(tmp_path))
    assert found.n_tensors == len(b.glm_tensors())
    assert found.bytes_read < 12_000_000


def test_a_dropped_connection_is_resumed_where_it_broke(server: RangeServer, tmp_path: Path) -> None:
    server.fault = "drops"
    inspect_model(server.url + PATH, access=access(tmp_path))
    starts = [int((seen.range or "").removeprefix("bytes=").split("-")[0]) for seen in server.seen]
    assert starts == sorted(set(starts))
    assert starts[1] <= 300_000


def test_a_server_that_ignores_range_is_hung_up_on(server: RangeServer, tmp_path: Path) -> None:
    server.fault = "ignores_range"
    inspect_model(server.url + PATH, access=access(tmp_path))
    assert len(server.seen) == 1
    assert server.sent_bytes < 100 * 2**20  # what was on its way in the socket's buffers, of 20 GiB


FAULTS: dict[str, tuple[type[GlmplanError], str]] = {
    "always_drops": (InputError, "broke"),
    "stalls": (InputError, "stopped sending"),
    "silent": (InputError, "stopped sending"),
    "drips": (InputError, "too slowly"),
    "drips_headers": (InputError, "too slowly"),
    "web_page": (InputError, "web page"),
    "web_page_in_part": (InputError, "web page"),
    "unlabelled_web_page": (GgufError, "not a GGUF"),
    "wrong_start": (GgufError, "asked for bytes from 0 and sent bytes from 7"),
    "no_content_range": (GgufError, "Content-Range ''"),
    "broken_content_range": (GgufError, "bytes 5-2/1"),
    "changing_length": (GgufError, "bytes before"),
    "changing_file": (GgufError, "changed while"),
    "compressed": (GgufError, "compressed"),
    "multipart": (GgufError, "several parts"),
    "busy": (InputError, "503"),
    "status_401": (InputError, "401"),
    "status_404": (InputError, "404"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_end_in_a_clear_error(server: RangeServer, tmp_path: Path, fault: str) -> None:
    server.fault = fault
    kind, says = FAULTS[fault]
    started = time.monotonic()
    with pytest.raises(kind, match=says) as caught:
        inspect_model(server.url + PATH, access=access(tmp_path))
    assert caught.value.hint
    assert time.monotonic() - started < 10
    if kind is GgufError:
        assert isinstance(caught.value.facts["offset"], int)


def test_a_gated_file_asks_for_a_token(server: RangeServer, tmp_path: Path) -> None:
    server.fault = "status_401"
    with pytest.raises(InputError) as caught:
        inspect_model(server.url + PATH, access=access(tmp_path))
    assert "HF_TOKEN" in caught.value.hint
    assert caught.value.facts["status"] == 401


def test_a_short_file_on_a_server_is_called_truncated(tmp_path: Path) -> None:
    with serving(HEADER, size_bytes=len(HEADER) + 1000) as server, pytest.raises(GgufError, match="missing") as caught:
        inspect_model(server.url + PATH, access=access(tmp_path))
    assert caught.value.facts["have_bytes"] == len(HEADER) + 1000


def test_a_file_that_ends_in_its_header_is_refused(tmp_path: Path) -> None:
    with serving(HEADER[:2_000_000]) as server, pytest.raises(GgufError) as caught:
        inspect_model(server.url + PATH, access=access(tmp_path))
    assert isinstance(caught.value.facts["offset"], int)


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    with serving(b"") as server:
        url = server.url
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot connect"):
        inspect_model(f"{url}/x.gguf", access=access(tmp_path))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SSL_CERT_FILE", "/nowhere/ca.pem"), ("ALL_PROXY", "socks9://secret@host"), ("HTTP_PROXY", "http://[::secret")],
)
def test_an_unusable_environment_is_named_without_its_secrets(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as caught:
        inspect_model(server.url + PATH, access=access(tmp_path))
    assert "secret" not in caught.value.message
    assert variable in caught.value.hint


def test_hub_names_go_to_the_endpoint_with_the_token(server: RangeServer, tmp_path: Path) -> None:
    found = inspect_model("hf:org/repo/m.gguf", access=access(tmp_path, HF_ENDPOINT=server.url, HF_TOKEN="hf_abc"))
    assert found.source == "hf:org/repo/m.gguf"
    assert {seen.path for seen in server.seen} == {PATH}
    assert {seen.headers["Authorization"] for seen in server.seen} == {"Bearer hf_abc"}


def test_the_token_stays_with_the_hub_when_it_redirects(server: RangeServer, tmp_path: Path) -> None:
    with serving(b"") as hub:
        hub.redirects[PATH] = f"{server.url}/cdn/blob?signature=secret"
        keys = access(tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_abc")
        assert inspect_model("hf:org/repo/m.gguf", access=keys).n_tensors > 0
        assert [seen.headers.get("Authorization") for seen in hub.seen] == ["Bearer hf_abc"]
    assert len(server.seen) > 1
    assert {seen.headers.get("Authorization") for seen in server.seen} == {None}


def test_the_token_does_not_go_to_other_addresses(server: RangeServer, tmp_path: Path) -> None:
    keys = access(tmp_path, HF_ENDPOINT="https://hub.example", HF_TOKEN="hf_abc")
    inspect_model(server.url + PATH, access=keys)
    assert {seen.headers.get("Authorization") for seen in server.seen} == {None}


def test_a_signed_address_that_ran_out_is_asked_for_again(server: RangeServer, tmp_path: Path) -> None:
    server.fault = "expires"
    server.redirects[PATH] = "/cdn/blob"
    assert inspect_model(server.url + PATH, access=access(tmp_path)).n_tensors > 0
    assert sum(1 for seen in server.seen if seen.path == PATH) > 1


def test_no_secret_of_an_address_reaches_a_message(server: RangeServer, tmp_path: Path) -> None:
    server.fault = "status_404"
    url = f"http://user:hunter2@127.0.0.1:{server.port}{PATH}?token=hunter2"
    with pytest.raises(InputError) as caught:
        inspect_model(url, access=access(tmp_path))
    assert "hunter2" not in caught.value.message + caught.value.hint + str(caught.value.facts)


@pytest.mark.parametrize(
    ("target", "says"),
    [("/again", "redirects"), ("file:///etc/passwd", "not an http"), ("gopher://x/y", "not an http")],
)
def test_redirects_that_lead_nowhere_are_refused(server: RangeServer, tmp_path: Path, target: str, says: str) -> None:
    server.redirects |= {PATH: target, "/again": "/again"}
    with pytest.raises(InputError, match=says):
        inspect_model(server.url + PATH, access=access(tmp_path))


def test_parts_of_a_split_file_are_read_by_range_each(tmp_path: Path) -> None:
    split: dict[str, b.Typed | b.Array | b.Value] = {"split.count": b.Typed(b.UINT16, 2), "split.no": 0}
    content = b.build(b.glm_keys() | split, [b.TensorSpec("a", b.F32, (8,))])
    with serving(content) as server, pytest.raises(GgufError, match="says it is part 1, expected 2"):
        inspect_model(f"{server.url}/m-00001-of-00002.gguf", access=access(tmp_path))
    assert [seen.path for seen in server.seen] == ["/m-00001-of-00002.gguf", "/m-00002-of-00002.gguf"]


def test_an_ollama_model_is_read_from_a_registry(server: RangeServer, tmp_path: Path) -> None:
    digest = "a" * 64
    manifest = b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:%s"}]}'
    server.documents["/v2/library/glm/manifests/q4"] = manifest.replace(b"%s", digest.encode())
    name = f"ollama:{server.url}/library/glm:q4"
    found = inspect_model(name, access=access(tmp_path))
    assert (found.source, found.sha256, found.store) == (name, digest, None)
    assert server.seen[1].path == f"/v2/library/glm/blobs/sha256:{digest}"
    server.documents["/v2/library/glm/manifests/q4"] = b"{}"
    with pytest.raises(InputError, match="names no model file"):
        inspect_model(name, access=access(tmp_path))


def test_reading_backwards_from_a_server_without_ranges_starts_anew(server: RangeServer) -> None:
    server.fault = "ignores_range"
    source = RangeSource(server.url + PATH, limits=QUICK, first_block_bytes=1000)
    assert source.fetch(500_000, 100)[:100] == HEADER[500_000:500_100]
    assert source.fetch(0, 100)[:100] == HEADER[:100]
    source.close()
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [("bytes 0-9/100", (0, 9, 100)), ("bytes 0-9/*", (0, 9, None)), ("bytes */100", (None, None, 100))],
)
def test_content_range_is_parsed(text: str, parts: tuple[int | None, int | None, int | None]) -> None:
    found = parse_content_range(text)
    assert found is not None
    assert (found.first, found.last, found.total) == parts


@pytest.mark.parametrize("text", ["", "bytes", "bytes 9-0/100", "bytes 0-100/100", "items 0-9/10", "bytes 0-9/1e3"])
def test_a_malformed_content_range_is_nothing(text: str) -> None:
    assert parse_content_range(text) is None


def test_what_is_shown_of_an_address_has_no_secrets() -> None:
    assert shown_url("https://u:p@h.example:8443/a/b?sig=1#x") == "https://h.example:8443/a/b"
    assert "hf_abc" not in repr(Credentials(token="hf_abc", origin="https://h:443"))

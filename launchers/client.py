"""Talking to a running server: which API it has, and one HTTP client with its key and no proxy."""

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from glmplan.errors import BenchError, EngineError
from glmplan.launchers.json_values import document, listing, mapping
from glmplan.noun import noun

if TYPE_CHECKING:
    import httpx

_CONNECT_S: Final = 5.0
# A prefill of a long prompt on a slow machine is silent for as long as llama-server's own timeout allows.
_READ_S: Final = 3600.0
_ASK_S: Final = 10.0


class ApiKey:
    """A key that does not show itself in messages and logs."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        """Keep `key`."""
        self._key = key

    def __repr__(self) -> str:
        return "ApiKey(hidden)"

    def header(self) -> str:
        """The value of an Authorization header."""
        return f"Bearer {self._key}"


@noun
class Target:
    """A server to send requests to.

    `timings`: it is llama.cpp's own server, whose /completion takes token ids and tells its own times.
    `n_ctx` is the context of one slot, `n_vocab` the size of the vocabulary, `n_slots` how many requests it serves at
    once, `switches_thinking` whether its chat template knows `enable_thinking`; None when the server does not say.
    `tells_usage`: it counts tokens only in the usage of its answers.
    """

    url: str
    model: str
    timings: bool
    api_key: ApiKey | None = None
    n_ctx: int | None = None
    n_vocab: int | None = None
    build: str | None = None
    n_slots: int | None = None
    tells_usage: bool = False
    switches_thinking: bool | None = None


@contextmanager
def connect(target: Target) -> "Generator[httpx.Client, None, None]":
    """An HTTP client for `target`; environment proxies are not for servers one names."""
    import httpx

    headers = {} if target.api_key is None else {"Authorization": target.api_key.header()}
    timeout = httpx.Timeout(_READ_S, connect=_CONNECT_S)
    # Certificates take 40 ms to load, and only https has any; redirects are not followed.
    verify = target.url.startswith("https:")
    with httpx.Client(base_url=target.url, headers=headers, timeout=timeout, trust_env=False, verify=verify) as client:
        yield client


def look(url: str, *, api_key: ApiKey | None = None) -> Target:
    """What kind of server answers at `url`, with its model name, context and vocabulary.

    Raises:
        BenchError: nobody answers there, the key is wrong, or it is not a server of completions.
    """
    import httpx

    base = url.rstrip("/").removesuffix("/v1")
    bare = Target(url=base, model="", timings=False, api_key=api_key)
    try:
        with connect(bare) as client:
            models = client.get("/v1/models", timeout=_ASK_S)
            props = client.get("/props", timeout=_ASK_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"no server answers at {base}: {error}"
        raise BenchError(message, hint="glmplan status lists running engines; glmplan run starts one") from error
    if models.status_code == HTTPStatus.UNAUTHORIZED:
        message = f"the server at {base} wants an API key"
        raise BenchError(message, hint="--api-key-file FILE, or GLMPLAN_API_KEY in the environment")
    served = mapping(next(iter(listing(document(models.text).get("data"))), None))
    if not served:
        message = f"{base} answers, but lists no model (HTTP {models.status_code})"
        raise BenchError(message, hint="give the address of an OpenAI-style server")
    properties = document(props.text) if props.is_success else {}
    settings = mapping(properties.get("default_generation_settings"))
    template = properties.get("chat_template")
    return Target(
        url=base,
        model=str(served.get("id", "")),
        timings="default_generation_settings" in properties,
        api_key=api_key,
        n_ctx=settings.get("n_ctx"),
        n_vocab=mapping(served.get("meta")).get("n_vocab"),
        build=properties.get("build_info"),
        n_slots=properties.get("total_slots"),
        switches_thinking="enable_thinking" in template if isinstance(template, str) and template else None,
    )


def count_tokens(target: Target, text: str) -> int:
    """Tokens of `text` by the server's own tokenizer.

    Raises:
        EngineError: the server has no tokenizer to ask.
    """
    import httpx

    path, body = ("/tokenize", {"content": text}) if target.timings else ("/extras/tokenize/count", {"input": text})
    try:
        with connect(target) as client:
            response = client.post(path, json=body, timeout=_ASK_S * 6)
        answer = document(response.raise_for_status().text)
    except httpx.HTTPError as error:
        message = f"{target.url}{path} cannot count tokens: {error}"
        raise EngineError(message, hint="read the engine's log: glmplan logs") from error
    return len(answer["tokens"]) if target.timings else int(answer["count"])

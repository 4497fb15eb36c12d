"""Clients of a service: one streamed answer checked to the end, many at once, and answers that are known beforehand."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

N_TOKENS = 24
KEY = "not-a-secret-of-anybody"
_TRIES = 8


@dataclass
class Answer:
    """What came of one request; `whole` if the stream ended as it should."""

    text: str = ""
    whole: bool = False
    error: str = ""
    pieces: int = 0


def body_of(prompt: str, n_tokens: int = N_TOKENS, *, stream: bool = True) -> dict[str, object]:
    """A request whose answer is always the same: greedy, and nothing taken from a cache."""
    return {
        "model": "glm-4.7-flash", "prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "stream": stream,
        "cache_prompt": False, "ignore_eos": True,
    }  # fmt: skip


def ask(client: httpx.Client, url: str, prompt: str, n_tokens: int = N_TOKENS) -> Answer:
    """Stream one answer."""
    answer = Answer()
    try:
        with client.stream("POST", f"{url}/v1/completions", json=body_of(prompt, n_tokens)) as response:
            if not response.is_success:
                answer.error = f"HTTP {response.status_code} {response.read().decode()}"
                return answer
            for line in response.iter_lines():
                if line.startswith("data: "):
                    _take(answer, line.removeprefix("data: "))
    except httpx.HTTPError as error:
        answer.error = f"{type(error).__name__}: {error}"
    return answer


def _take(answer: Answer, event: str) -> None:
    if event == "[DONE]":
        answer.whole = not answer.error
        return
    document = json.loads(event)
    if "error" in document:
        answer.error = str(document["error"])
        return
    answer.pieces += 1
    answer.text += document["choices"][0].get("text") or ""


def prompt_of(number: int) -> str:
    """A prompt of its own for every number."""
    return f"w{260 + number % 200} w{261 + number * 7 % 230} {number}"


@dataclass
class Crowd:
    """Clients that ask without a pause until they are told to stop, each answer compared with the one expected."""

    url: str
    expected: dict[str, str]
    answered: int = 0
    retried: int = 0
    failed: list[str] = field(default_factory=list[str])
    said: list[str] = field(default_factory=list[str])
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def start(self, n_clients: int) -> None:
        """Begin to ask."""
        prompts = list(self.expected)
        for number in range(n_clients):
            mine = [prompts[(number + step) % len(prompts)] for step in range(len(prompts))]
            thread = threading.Thread(target=self._go_on, args=(mine,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let every client finish what it asked."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive(), "a client waits for an answer that does not come"

    def wait_for(self, more: int, limit_s: float) -> None:
        """Wait until that many more answers have come."""
        wanted = self.answered + more
        deadline = time.monotonic() + limit_s
        while self.answered < wanted:
            assert time.monotonic() < deadline, f"{self.answered} of {wanted} answers; {self.failed} {self.said[-5:]}"
            time.sleep(0.1)

    def _go_on(self, prompts: Sequence[str]) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}  # means nothing to a service without a key
        with httpx.Client(timeout=httpx.Timeout(120), headers=headers) as client:
            number = 0
            while not self._stop.is_set():
                self._one(client, prompts[number % len(prompts)])
                number += 1

    def _one(self, client: httpx.Client, prompt: str) -> None:
        """One question, asked again when its stream broke off: a broken stream says so."""
        answer = Answer()
        for _ in range(_TRIES):
            answer = ask(client, self.url, prompt)
            if answer.whole:
                break
            with self._lock:
                self.retried += 1
                self.said.append(answer.error or "ended in silence")
            time.sleep(0.5)
        with self._lock:
            if not answer.whole:
                self.failed.append(f"{prompt}: {answer.error}")
            elif answer.text != self.expected[prompt]:
                self.failed.append(f"{prompt}: {answer.text!r} instead of {self.expected[prompt]!r}")
            else:
                self.answered += 1


def expected_answers(urls: Sequence[str], n_prompts: int) -> dict[str, str]:
    """Answers of engines asked directly, one question at a time: every engine gives the same, and tells most apart."""
    prompts = [prompt_of(number) for number in range(n_prompts)]
    answers: dict[str, str] = {}
    # The engines close connections that are kept open as they like.
    with httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        for url in urls:
            for prompt in prompts:
                answer = ask(client, url, prompt)
                assert answer.whole, answer.error
                assert answers.setdefault(prompt, answer.text) == answer.text
    assert len(set(answers.values())) > 0.8 * n_prompts
    return answers

"""Several requests at once, each as its client sees it, and what all of them reach together."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from glmplan.launchers.client import Target
from glmplan.launchers.stream import Completion, Prompt, stream_completion
from glmplan.measurement import SpeedSample


@dataclass(frozen=True, slots=True)
class Request:
    """One stream to ask for."""

    prompt: Prompt
    n_predict: int
    cache_prompt: bool
    id_slot: int


@dataclass(frozen=True, slots=True)
class Together:
    """Completions of requests that were sent at the same moment, and the joules until and after their first tokens."""

    completions: tuple[Completion, ...]
    prefill_joules: float | None
    decode_joules: float | None

    def shared_by(self, samples: Sequence[SpeedSample]) -> tuple[SpeedSample, ...]:
        """`samples` with what their group reached, and each with its share of the energy.

        Aggregate prefill counts from the first request to the last first token, aggregate decode from the first token
        to the last one. A stream that is alone has its own rates for both.
        """
        n = len(samples)
        if n == 1:
            prefill, decode = samples[0].prefill_tokens_per_s, samples[0].decode_tokens_per_s
        else:
            prompt_s = max(done.first_at_s for done in self.completions) - min(d.began_at_s for d in self.completions)
            decode_s = max(done.last_at_s for done in self.completions) - min(d.first_at_s for d in self.completions)
            prefill = sum(sample.prompt_tokens for sample in samples) / prompt_s
            decode = sum(sample.output_tokens - 1 for sample in samples) / decode_s
        return tuple(
            replace(
                sample,
                n_streams=n,
                aggregate_prefill_tokens_per_s=prefill,
                aggregate_decode_tokens_per_s=decode,
                prefill_joules=None if self.prefill_joules is None else self.prefill_joules / n,
                decode_joules=None if self.decode_joules is None else self.decode_joules / n,
            )
            for sample in samples
        )


def run_together(target: Target, requests: Sequence[Request], read_joules: Callable[[], float | None]) -> Together:
    """Send `requests` at once and read every stream to its end.

    Raises:
        EngineError: one was refused or broke off.
    """
    barrier = threading.Barrier(len(requests))
    at_first: list[float | None] = []

    def one(request: Request) -> Completion:
        barrier.wait()
        return stream_completion(
            target,
            request.prompt,
            n_predict=request.n_predict,
            cache_prompt=request.cache_prompt,
            ignore_eos=True,
            id_slot=request.id_slot,
            on_first=lambda: at_first.append(read_joules()),
        )

    before = read_joules()
    if len(requests) == 1:
        completions = [one(requests[0])]
    else:
        with ThreadPoolExecutor(max_workers=len(requests)) as pool:
            completions = list(pool.map(one, requests))
    after = read_joules()
    middle = at_first[-1] if len(at_first) == len(requests) else None
    return Together(
        completions=tuple(completions),
        prefill_joules=_between(before, middle),
        decode_joules=_between(middle, after),
    )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None or end <= start else end - start

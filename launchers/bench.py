"""Measure a running engine through the very server that serves: prefill, decode and TTFT at given depths.

At depth d the first d tokens are in the KV cache already; what is timed is the prefill of `prompt_tokens` more
and the decode after them. That is what a forecast at depth d speaks of. Several streams each have a slot and a
prefix of their own.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from glmplan.benchmark import BenchSettings, LeftOut
from glmplan.errors import BenchError
from glmplan.launchers import prompts
from glmplan.launchers.bench_streams import Request, run_together
from glmplan.launchers.client import Target, count_tokens
from glmplan.launchers.stream import Completion, Prompt, stream_completion
from glmplan.measurement import SpeedSample
from glmplan.noun import noun

_WARM_UP_TOKENS: Final = 8
_WARM_UP_SEED, _PREFIX_SEED, _FIRST_SEED = 1, 2, 3
# Samples to count words by, where a server only counts what it has computed; the seeds of samples go up from 3.
_SAMPLE_WORDS, _SAMPLE_SEED = (50, 150), 100_003
_MANY_SEEDS = 10**9
# Less of the prefix in the cache than this, and a sample would not be of the depth it claims.
_CACHED_SHARE: Final = 0.9
# A prefix is filled in pieces, so that one that takes too long can be given up.
_FILL_TOKENS: Final = 2048


class Meter(Protocol):
    """Counts energy; `glmplan.profiles.energy` has those of this machine."""

    def read_joules(self) -> float | None:
        """Joules since some moment; None when it cannot be read."""
        ...


class Prefixes(Protocol):
    """Keeps filled caches from one start of an engine to the next; `slot_files.SlotFiles` is one."""

    def restore(self, target: Target, slot: int, depth: int) -> bool:
        """Bring a prefix of `depth` tokens into `slot`; False when it is not kept."""
        ...

    def save(self, target: Target, slot: int, depth: int) -> None:
        """Keep what `slot` holds."""
        ...


class NoPrefixes:
    """Keeps nothing."""

    def restore(self, target: Target, slot: int, depth: int) -> bool:  # noqa: ARG002 - as the protocol names them
        """Never kept."""
        return False

    def save(self, target: Target, slot: int, depth: int) -> None:
        """Nothing to do."""


class NoMeter:
    """Counts nothing."""

    def read_joules(self) -> float | None:
        """Never known."""
        return None


@noun
class Point:
    """The samples of one depth with one number of streams."""

    depth_tokens: int
    n_streams: int
    samples: tuple[SpeedSample, ...]


class _TooSlow(Exception):
    """Filling a prefix went past the time there was."""


def measure(
    target: Target, settings: BenchSettings, *, on_sample: Callable[[SpeedSample], None]
) -> tuple[SpeedSample, ...]:
    """Every sample of `settings`, depth by depth.

    Raises:
        BenchError: the server's context is too short for a depth.
        EngineError: the server refused or died.
    """
    points, _ = measure_points(target, settings, on_sample=on_sample)
    return tuple(sample for point in points for sample in point.samples)


def measure_points(
    target: Target,
    settings: BenchSettings,
    *,
    on_sample: Callable[[SpeedSample], None],
    on_fill: Callable[[int, int], None] = lambda _done, _depth: None,
    meter: Meter | None = None,
    prefixes: Prefixes | None = None,
) -> tuple[tuple[Point, ...], tuple[LeftOut, ...]]:
    """Every point of `settings` that there is room and time for, and those left out.

    Args:
        target: the server.
        settings: what to measure.
        on_sample: called with each sample as it comes.
        on_fill: called with (tokens in the cache, tokens wanted) while a prefix is filled.
        meter: counts energy; None counts none.
        prefixes: keeps filled caches; None keeps none.

    Raises:
        BenchError: the server's context is too short and nothing may be left out, or nothing could be measured.
        EngineError: the server refused or died.
    """
    require_room(target, settings)
    refused = [too_long(target, settings, depth, n) for depth, n in _in_order(settings)]
    bench = _Bench(target, settings, meter or NoMeter(), prefixes or NoPrefixes(), on_sample, on_fill)
    points: list[Point] = []
    left: list[LeftOut] = []
    for (depth, n_streams), why in zip(_in_order(settings), refused, strict=True):
        reason = why or bench.too_slow(points, depth, n_streams)
        point = None
        if reason is None:
            try:
                point = bench.point(depth, n_streams)
            except _TooSlow as gave_up:
                reason = str(gave_up)
        if point is not None:
            points.append(point)
        else:
            left.append(LeftOut(depth_tokens=depth, n_streams=n_streams, why=reason or ""))
    if not points:
        message = f"nothing could be measured: {left[0].why}"
        raise BenchError(message, hint="a smaller --depth or --prompt-tokens, or a longer --max-time")
    return tuple(points), tuple(left)


def too_long(target: Target, settings: BenchSettings, depth: int, n_streams: int) -> str | None:
    """Why a point does not fit the server; None when it does."""
    needed = settings.needed_tokens(depth, n_streams)
    if target.n_slots is not None and n_streams > target.n_slots:
        return f"needs as many slots, the engine has {target.n_slots}"
    if target.n_ctx is not None and needed > target.n_ctx:
        return f"takes {needed} tokens, the engine's context is {target.n_ctx}"
    return None


def require_room(target: Target, settings: BenchSettings) -> None:
    """Prove that every point fits the server, where nothing may be left out.

    Raises:
        BenchError: the context or the slots are too few.
    """
    if settings.skip_what_does_not_fit:
        return
    for depth, n_streams in _in_order(settings):
        why = too_long(target, settings, depth, n_streams)
        if why is not None:
            message = f"depth {depth} with {n_streams} streams {why}"
            raise BenchError(
                message,
                hint="a smaller --depth, --prompt-tokens or --streams, or a plan with a larger --n-ctx",
                facts={"needed_tokens": settings.needed_tokens(depth, n_streams), "n_ctx": target.n_ctx},
            )


def _in_order(settings: BenchSettings) -> list[tuple[int, int]]:
    """One stream at every depth first: what deeper points will take is told by the ones before."""
    return [(depth, n) for n in sorted(set(settings.streams)) for depth in sorted(set(settings.depths))]


class _Bench:
    """One benchmark on its way: prompts, what each slot holds, and the clock."""

    def __init__(
        self,
        target: Target,
        settings: BenchSettings,
        meter: Meter,
        prefixes: Prefixes,
        on_sample: Callable[[SpeedSample], None],
        on_fill: Callable[[int, int], None],
    ) -> None:
        self._target = target
        self._settings = settings
        self._meter = meter
        self._prefixes = prefixes
        self._on_sample = on_sample
        self._on_fill = on_fill
        self._source = PromptSource(target)
        self._filled: dict[int, int] = {}
        self._began = time.monotonic()
        stream_completion(target, self._source.prompt(_WARM_UP_TOKENS, seed=_WARM_UP_SEED), n_predict=_WARM_UP_TOKENS)

    def too_slow(self, points: Sequence[Point], depth: int, n_streams: int) -> str | None:
        """Why a point would end after the time there is, by what the points before took; None when it would not."""
        limit = self._settings.max_time_s
        if limit is None or not points:
            return None
        left_s = limit - (time.monotonic() - self._began)
        needed_s = expected_s(points, self._settings, depth, n_streams, filled=self._filled)
        if needed_s <= left_s:
            return None
        return f"would take about {needed_s:.0f} s, {max(0.0, left_s):.0f} s are left of --max-time {limit:g}"

    def point(self, depth: int, n_streams: int) -> Point:
        if depth:
            for slot in range(n_streams):
                self._fill(slot, depth)
        samples: list[SpeedSample] = []
        for repetition in range(self._settings.repetitions):
            for sample in self._together(depth, n_streams, repetition):
                self._on_sample(sample)
                samples.append(sample)
        return Point(depth_tokens=depth, n_streams=n_streams, samples=tuple(samples))

    def _fill(self, slot: int, depth: int) -> None:
        """Bring the prefix of `depth` tokens into the cache of `slot`."""
        limit = self._settings.max_time_s
        if self._filled.get(slot, 0) < depth and self._prefixes.restore(self._target, slot, depth):
            self._filled[slot] = depth
            return
        if not (self._target.timings and self._target.n_vocab):
            stream_completion(self._target, self._source.prefix(depth), n_predict=0, cache_prompt=True, id_slot=slot)
            self._filled[slot] = depth
            return
        for done in range(min(self._filled.get(slot, 0), depth), depth, _FILL_TOKENS):
            self._on_fill(done, depth)
            upto = min(depth, done + _FILL_TOKENS)
            # 0 asks llama.cpp to fill its cache and decode nothing.
            prefix = self._source.prefix(upto)
            stream_completion(self._target, prefix, n_predict=0, cache_prompt=True, id_slot=slot)
            self._filled[slot] = upto
            spent_s = time.monotonic() - self._began
            if limit is not None and upto < depth and spent_s > limit:
                message = f"{upto} of {depth} tokens were in the cache when --max-time {limit:g} was over"
                raise _TooSlow(message)
        self._filled[slot] = depth
        self._prefixes.save(self._target, slot, depth)

    def _together(self, depth: int, n_streams: int, repetition: int) -> tuple[SpeedSample, ...]:
        settings = self._settings
        sized = [
            self._source.after_prefix(depth, settings.prompt_tokens, seed=_FIRST_SEED + repetition * 64 + slot)
            for slot in range(n_streams)
        ]
        requests = [
            Request(prompt=prompt, n_predict=settings.output_tokens, cache_prompt=depth > 0, id_slot=slot)
            for slot, (prompt, _, _) in enumerate(sized)
        ]
        done = run_together(self._target, requests, self._meter.read_joules)
        samples: list[SpeedSample] = []
        for completion, (_, cached, new) in zip(done.completions, sized, strict=True):
            refuse_short(completion, settings.output_tokens)
            if completion.prompt_tokens is None:
                samples.append(sample_by_size(completion, depth_tokens=cached, prompt_tokens=new))
            else:
                _refuse_uncached(depth, completion.cached_tokens)
                samples.append(
                    sample_of(completion, depth_tokens=completion.cached_tokens, prompt_tokens=completion.prompt_tokens)
                )
        return done.shared_by(samples)


def expected_s(
    points: Sequence[Point], settings: BenchSettings, depth: int, n_streams: int, *, filled: dict[int, int]
) -> float:
    """Seconds a point will take: its prefixes and its requests, with times per token that grow as measured.

    Between the two deepest points of one stream the time per token is a straight line, and is taken as one beyond;
    streams are taken to share the engine without gain.
    """
    alone = [point for point in points if point.n_streams == 1] or list(points)
    prefill_s = _straight([(p.depth_tokens, _mean_s(p, prefill=True)) for p in alone], depth)
    decode_s = _straight([(p.depth_tokens, _mean_s(p, prefill=False)) for p in alone], depth)
    to_fill = sum(max(0, depth - filled.get(slot, 0)) for slot in range(n_streams))
    tokens = settings.repetitions * n_streams
    return to_fill * prefill_s + tokens * (settings.prompt_tokens * prefill_s + settings.output_tokens * decode_s)


def _mean_s(point: Point, *, prefill: bool) -> float:
    rates = [s.prefill_tokens_per_s if prefill else s.decode_tokens_per_s for s in point.samples]
    return len(rates) / sum(rates)


def _straight(known: Sequence[tuple[int, float]], depth: int) -> float:
    *before, (last_depth, last) = sorted(known)
    if not before or depth <= last_depth:
        return last
    earlier_depth, earlier = before[-1]
    slope = max(0.0, (last - earlier) / max(1, last_depth - earlier_depth))
    return last + slope * (depth - last_depth)


class PromptSource:
    """Prompts that fit the server's API."""

    def __init__(self, target: Target) -> None:
        """Prompts for `target`."""
        self._target = target
        self._tokens_per_word: float | None = None
        # Servers that cache every prompt they saw must not have seen these in an earlier measurement.
        self._seeds_from = time.time_ns() % _MANY_SEEDS if target.tells_usage else 0

    def prompt(self, n_tokens: int, *, seed: int) -> Prompt:
        """`n_tokens` that no cache has seen."""
        return self.after_prefix(0, n_tokens, seed=seed)[0]

    def prefix(self, n_tokens: int) -> Prompt:
        """The first `n_tokens` of the prefix that all prompts of a depth share."""
        return self.prompt(n_tokens, seed=_PREFIX_SEED)

    def after_prefix(self, depth: int, n_tokens: int, *, seed: int) -> tuple[Prompt, int, int]:
        """A prompt whose first `depth` tokens are always the same; with the exact sizes of both parts."""
        if self._target.timings and self._target.n_vocab:
            ids = prompts.token_ids(n_tokens, self._target.n_vocab, seed=seed)
            prefix = prompts.token_ids(depth, self._target.n_vocab, seed=_PREFIX_SEED)
            return prefix + ids, depth, n_tokens
        tail, tail_tokens = prompts.words(n_tokens, self._count, seed=self._seeds_from + seed)
        if not depth:
            return tail, 0, tail_tokens
        head, head_tokens = prompts.words(depth, self._count, seed=self._seeds_from + _PREFIX_SEED)
        whole = f"{head} {tail}"
        return whole, head_tokens, self._count(whole) - head_tokens

    def _count(self, text: str) -> int:
        """Tokens of `text`; a share of one short sample's where counting means to compute, and to cache, a prompt."""
        if not self._target.tells_usage:
            return count_tokens(self._target, text)
        if self._tokens_per_word is None:
            short, long = (self._whole_tokens(n_words) for n_words in _SAMPLE_WORDS)
            if long <= short:
                message = f"the server at {self._target.url} does not say how many tokens a prompt has"
                raise BenchError(message, hint="update it: it must answer stream_options.include_usage")
            self._tokens_per_word = (long - short) / (_SAMPLE_WORDS[1] - _SAMPLE_WORDS[0])
        return round(self._tokens_per_word * len(text.split()))

    def _whole_tokens(self, n_words: int) -> int:
        """Tokens of a prompt of so many words; a template around it cancels out between two of them."""
        text, _ = prompts.words(n_words * 2, lambda words: len(words.split()) * 2, seed=_SAMPLE_SEED + n_words)
        return stream_completion(self._target, text, n_predict=1).whole_prompt_tokens or 0


def sample_of(done: Completion, *, depth_tokens: int, prompt_tokens: int) -> SpeedSample:
    """The speeds of one completion: the server's own where it tells them, by the client's clock elsewhere."""
    tpot_ms = done.tpot_ms or 0.0
    by_clock = prompt_tokens / (done.ttft_ms / 1000)
    return SpeedSample(
        prompt_tokens=prompt_tokens,
        output_tokens=done.output_tokens,
        ttft_ms=done.ttft_ms,
        prefill_tokens_per_s=done.prefill_tokens_per_s or by_clock,
        decode_tokens_per_s=done.decode_tokens_per_s or (1000 / tpot_ms if tpot_ms else 0.0),
        tpot_ms=tpot_ms,
        depth_tokens=depth_tokens,
        server_timed=done.prefill_tokens_per_s is not None,
    )


def sample_by_size(done: Completion, *, depth_tokens: int, prompt_tokens: int) -> SpeedSample:
    """The same where a server does not say what it had cached: `depth_tokens`, and the rest of what it counts."""
    whole = done.whole_prompt_tokens
    return sample_of(
        done, depth_tokens=depth_tokens, prompt_tokens=prompt_tokens if whole is None else whole - depth_tokens
    )


def refuse_short(done: Completion, wanted: int) -> None:
    """Prove that there is a decode speed in a completion.

    Raises:
        BenchError: there is none in a single token.
    """
    if done.tpot_ms is None:
        message = f"only {done.output_tokens} token came back of {wanted}: no decode speed"
        raise BenchError(message, hint="the model ended its text at once; ask for --output-tokens 2 or more")


def _refuse_uncached(depth: int, cached: int) -> None:
    if cached < depth * _CACHED_SHARE:
        message = f"the server kept {cached} of {depth} tokens in its cache: this is no measurement at that depth"
        raise BenchError(message, hint="nothing else may use the engine during a measurement")

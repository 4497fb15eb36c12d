"""Time cuts by turns (A B C A B C) within a budget: prefill and decode, shallow and deeper, as much as there is time.

A request extends the prompt an engine has in its cache already, so that reaching a depth is timed prefill too, and
what is decoded after it is decode at that depth.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from glmplan.errors import BenchError, EngineError
from glmplan.launchers import prompts
from glmplan.launchers.client import count_tokens
from glmplan.launchers.cpu_use import OthersBusy, is_disturbing
from glmplan.launchers.rehearse_pool import EnginePool, Seat
from glmplan.launchers.stream import Completion, Prompt, stream_completion
from glmplan.noun import noun
from glmplan.rehearsal import Cut, Phase, Timing

_WARM_UP_TOKENS: Final = 32
_WARM_UP_SEED, _DEEP_SEED, _FIRST_SEED = 1, 2, 3
# Longest single request: the clock is looked at between requests only.
_REQUEST_S: Final = 5.0
_LONGEST_STEP_TOKENS: Final = 1024
_FEWEST_PROMPT_TOKENS: Final = 32
# A time seen once may be this much longer the next time.
_SLACK: Final = 1.3
_DECODE_S: Final = 0.4
_MOST_OUTPUT, _LEAST_OUTPUT = 64, 8
_REPEATS: Final = 3
_MOST_TRIES: Final = 5
# Part of the budget that reaching depths may take; the rest is for repetitions.
_DEEP_SHARE: Final = 0.55
_FULL_ROUNDS: Final = 6


@noun
class RehearseSettings:
    """What to time.

    `depths` by cut name; prompts of `prompt_tokens` among the first `n_vocab` tokens. No request begins after
    `seconds`, and what still runs after `hard_seconds` is cut off.
    """

    depths: dict[str, tuple[int, ...]]
    prompt_tokens: int
    n_vocab: int
    seconds: float
    hard_seconds: float


class _OutOfTime(Exception):
    """The budget is spent."""


class Rehearser:
    """Runs one schedule over the engines of a pool."""

    def __init__(
        self,
        pool: EnginePool,
        cuts: Sequence[Cut],
        settings: RehearseSettings,
        *,
        on_timing: Callable[[Timing], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet; `clock` counts seconds."""
        self._pool = pool
        self._cuts = cuts
        self._settings = settings
        self._on_timing = on_timing
        self._clock = clock
        self._deadline = clock() + settings.seconds
        self._deep_until = clock() + _DEEP_SHARE * settings.seconds
        self._prompt_tokens = settings.prompt_tokens
        self._cost_ms: dict[tuple[str, Phase], float] = {}
        self._state: dict[str, tuple[int, int, int]] = {}  # process, seed and tokens an engine's cache holds
        self._timings: list[Timing] = []
        self._has_depths = False
        self.rounds = 0
        self.skipped_depths: dict[str, int] = {}

    def run(self) -> tuple[Timing, ...]:
        """All timings there was time for, in the order they were taken.

        Raises:
            EngineError: an engine refused or died; the error is its own.
        """
        watch = threading.Timer(self._settings.hard_seconds, self._pool.cut_off)
        watch.daemon = True
        watch.start()
        try:
            with suppress(_OutOfTime):
                self._probe()
                self._round()
                self._deeper()
                while self.rounds < _FULL_ROUNDS and self._fits(self._round_s()):
                    self._round()
        except EngineError as error:
            if not self._pool.was_cut_off:
                raise self._pool.explained(error) from error
        finally:
            watch.cancel()
        return tuple(self._timings)

    def _probe(self) -> None:
        """Warm up, and shorten prompts so that the slowest cut takes one in a few seconds."""
        slowest = 0.0
        for cut in self._cuts:
            seat = self._pool.seat(cut)
            self._ask(seat, _WARM_UP_SEED, _WARM_UP_TOKENS, 2)
            done = self._ask(seat, _WARM_UP_SEED, 2 * _WARM_UP_TOKENS, 2)
            slowest = max(slowest, _prefill_ms(done) or done.ttft_ms / _WARM_UP_TOKENS)
        affordable = int(_REQUEST_S * 1000 / max(slowest, 1e-3))
        self._prompt_tokens = max(_FEWEST_PROMPT_TOKENS, min(self._prompt_tokens, affordable))

    def _round(self) -> None:
        """Every cut once: a new prompt, and decoding after it."""
        for cut in self._cuts:
            seat = self._pool.seat(cut)
            self._time(seat, _FIRST_SEED + self.rounds, self._prompt_tokens)
            if self.rounds or not self._pool.all_together:  # the first answer is worth more than the second decimal
                self._repeat_decode(seat)
            if self.rounds == 0 and not self._pool.all_together:
                self._to_depths(cut, self._settings.depths[cut.name])
        self.rounds += 1

    def _deeper(self) -> None:
        """Take the cuts to their depths by turns, the shallow ones first."""
        if not self._pool.all_together:
            return
        longest = max(len(depths) for depths in self._settings.depths.values())
        for rung in range(longest):
            for cut in self._cuts:
                depths = self._settings.depths[cut.name]
                if rung < len(depths):
                    self._to_depths(cut, depths[rung : rung + 1])
                else:
                    self._repeat_decode(self._pool.seat(cut))

    def _to_depths(self, cut: Cut, depths: Sequence[int]) -> None:
        for depth in depths:
            seat = self._pool.seat(cut)
            if not self._reach(seat, depth):
                self.skipped_depths.setdefault(cut.name, depth)
                return
            self._repeat_decode(seat)

    def _reach(self, seat: Seat, depth: int) -> bool:
        """Fill an engine's cache up to a depth, step by step; whether there was time."""
        while (at := self._cached(seat, _DEEP_SEED)) < depth:
            token_ms = self._cost_ms.get((seat.cut.name, Phase.PREFILL), 0.0)
            step = min(_LONGEST_STEP_TOKENS, depth - at)
            # The whole way must fit, and each token costs more the deeper it is.
            until = self._deep_until if self._has_depths else self._deadline
            if self._clock() + _SLACK * (depth - at) * token_ms / 1000 > until:
                return False
            self._time(seat, _DEEP_SEED, at + step)
        self._has_depths = True
        return True

    def _repeat_decode(self, seat: Seat) -> None:
        """Decode again after the same prompt until enough undisturbed timings are there."""
        _, seed, tokens = self._state[seat.cut.name]
        good = 1 if self._timings and not self._timings[-1].disturbed else 0
        for _ in range(_MOST_TRIES):
            if good >= _REPEATS or not self._fits(2 * _DECODE_S):
                return
            self._time(seat, seed, tokens)
            good += not self._timings[-1].disturbed

    def _time(self, seat: Seat, seed: int, tokens: int) -> None:
        """One request of `tokens` of prompt, and the timings it gives."""
        cached = self._cached(seat, seed)
        busy = OthersBusy(self._pool.pids)
        done = self._ask(seat, seed, tokens, self._output_tokens(seat))
        cores = busy.cores()
        new = done.prompt_tokens if done.prompt_tokens is not None else max(1, tokens - cached)
        prefill = Timing(
            cut=seat.cut.name,
            phase=Phase.PREFILL,
            depth_tokens=tokens - new / 2,
            n_tokens=new,
            ms_per_token=_prefill_ms(done) or done.ttft_ms / new,
            others_busy=round(cores, 3),
            disturbed=is_disturbing(cores),
        )
        if new >= _FEWEST_PROMPT_TOKENS:
            self._keep(prefill)
        self._keep(
            replace(
                prefill,
                phase=Phase.DECODE,
                depth_tokens=tokens + done.output_tokens / 2,
                n_tokens=done.output_tokens,
                ms_per_token=_decode_ms(done),
            )
        )
        self._pool.watch()

    def _keep(self, timing: Timing) -> None:
        self._cost_ms[timing.cut, timing.phase] = timing.ms_per_token
        self._timings.append(timing)
        self._on_timing(timing)

    def _ask(self, seat: Seat, seed: int, tokens: int, n_predict: int) -> Completion:
        if self._clock() > self._deadline:
            raise _OutOfTime
        prompt, exact = self._prompt(seat, seed, tokens)
        done = stream_completion(seat.target, prompt, n_predict=n_predict, cache_prompt=True, ignore_eos=True)
        self._state[seat.cut.name] = (seat.process.pid, seed, exact)
        return done

    def _prompt(self, seat: Seat, seed: int, tokens: int) -> tuple[Prompt, int]:
        """The first `tokens` tokens of the prompt of a seed; longer ones begin with shorter ones."""
        if seat.target.timings:
            return prompts.token_ids(tokens, self._settings.n_vocab, seed=seed), tokens
        return prompts.words(tokens, lambda text: count_tokens(seat.target, text), seed=seed)

    def _cached(self, seat: Seat, seed: int) -> int:
        """Tokens of a seed's prompt that an engine holds."""
        pid, held, tokens = self._state.get(seat.cut.name, (0, 0, 0))
        return tokens if (pid, held) == (seat.process.pid, seed) else 0

    def _output_tokens(self, seat: Seat) -> int:
        token_ms = self._cost_ms.get((seat.cut.name, Phase.DECODE), _DECODE_S * 1000 / _MOST_OUTPUT)
        return max(_LEAST_OUTPUT, min(_MOST_OUTPUT, math.ceil(_DECODE_S * 1000 / token_ms)))

    def _round_s(self) -> float:
        return sum(self._visit_s(cut) for cut in self._cuts)

    def _visit_s(self, cut: Cut) -> float:
        prefill_s = self._prompt_tokens * self._cost_ms.get((cut.name, Phase.PREFILL), 0.0) / 1000
        load_s = 0.0 if self._pool.all_together else self._pool.load_ms.get(cut.name, 0.0) / 1000
        return load_s + prefill_s + _REPEATS * _DECODE_S

    def _fits(self, seconds: float) -> bool:
        return self._clock() + _SLACK * seconds <= self._deadline


def _prefill_ms(done: Completion) -> float | None:
    return 1000 / done.prefill_tokens_per_s if done.prefill_tokens_per_s else None


def _decode_ms(done: Completion) -> float:
    if done.decode_tokens_per_s:
        return 1000 / done.decode_tokens_per_s
    if done.tpot_ms is None:
        message = f"only {done.output_tokens} token came back: no decode speed"
        raise BenchError(message, hint="read the engine's log: glmplan logs")
    return done.tpot_ms


def ladder(first: int, deepest: int) -> Iterator[int]:
    """Depths to visit between a prompt and the deepest: every doubling, the deepest last."""
    depth = 2 * first
    while depth < deepest:
        yield depth
        depth *= 2
    if deepest > first:
        yield deepest

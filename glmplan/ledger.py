"""The shapes that every ledger row and every pair of speeds has, whoever made them."""

from typing import Protocol

from glmplan.estimate import Estimate


class LedgerRow(Protocol):
    """One device of a memory ledger, in bytes."""

    @property
    def id(self) -> str:
        """`gpu0`, `gpu1`, ... or `host`."""
        ...

    @property
    def usable_bytes(self) -> int:
        """What the plan may take."""
        ...

    @property
    def weights_bytes(self) -> int:
        """Weights."""
        ...

    @property
    def kv_cache_bytes(self) -> int:
        """KV cache."""
        ...

    @property
    def compute_bytes(self) -> int:
        """Compute buffers."""
        ...

    @property
    def overhead_bytes(self) -> int:
        """What the engine takes beside its own count."""
        ...


class Speeds(Protocol):
    """Speeds at a depth."""

    @property
    def depth_tokens(self) -> int:
        """Tokens already in the context."""
        ...

    @property
    def prefill_tokens_per_s(self) -> Estimate:
        """Prompt processing."""
        ...

    @property
    def decode_tokens_per_s(self) -> Estimate:
        """Token generation."""
        ...

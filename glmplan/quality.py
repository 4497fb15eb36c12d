"""What quantisation costs in answers: divergence of files and cache types from the unquantised model."""

from glmplan.estimate import Estimate
from glmplan.noun import noun


@noun
class Divergence:
    """Mean Kullback-Leibler divergence of the next token's distribution, nats per token.

    `estimate` is None where nothing was published; `rests_on` says what the figure is made of, or what is missing.
    """

    estimate: Estimate | None
    rests_on: str


@noun
class QualityTable:
    """Divergence by quantisation, and by KV cache type for a cache beside the same file with an f16 one.

    Names are in lower case; `floor` is what the measurement itself cannot tell from nothing.
    """

    files: dict[str, Divergence]
    caches: dict[str, Divergence]
    floor: float

    def of_file(self, quantization: str) -> Divergence | None:
        """The divergence of a file, None where nobody published one like it."""
        return self.files.get(quantization.lower())

    def of_cache(self, cache_type: str) -> Divergence | None:
        """The divergence of a cache type, None for those nobody looked at."""
        return self.caches.get(cache_type.lower())

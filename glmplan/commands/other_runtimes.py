"""`--runtime` and `--runtime-version`: an estimate for another engine, or for an older build."""

from typing import TYPE_CHECKING, Final

from glmplan.errors import InputError
from glmplan.estimate import MemoryEstimate
from glmplan.model import ModelProfile
from glmplan.noun import noun
from glmplan.placement import Placement
from glmplan.runtime_layout import RuntimeHistory, RuntimeLayout

if TYPE_CHECKING:  # the memory model is imported when it is asked
    from glmplan.planner.memory import MemoryModel

DEFAULT_RUNTIME: Final = "llama.cpp"


@noun
class RuntimeUsed:
    """Whose memory an estimate counts; `stores` and its bytes are per token in all layers."""

    name: str
    layout_since: str
    stores: str
    kv_bytes_per_token: int
    sources: tuple[str, ...]


class Era:
    """One version of a runtime."""

    def __init__(self, runtime: str, version: str | None) -> None:
        """Find the layout of `version`, the newest when None.

        Raises:
            InputError: no such runtime, not a version, or one before the model was supported.
        """
        from glmplan.planner.runtimes import layout_of
        from glmplan.profiles.runtime_layouts import runtime_history

        self._history: RuntimeHistory = runtime_history(runtime)
        self._layout: RuntimeLayout = layout_of(self._history, version)
        self.runtime = runtime

    def fitted(self, placement: Placement, *, has_gpus: bool, exact: bool) -> Placement:
        """`placement` as this version can run it.

        Raises:
            InputError: a cache type it does not have, or a dry run of an engine that is not here.
        """
        from glmplan.planner.runtimes import fitted_placement

        if exact and not (self._layout.is_llama_cpp and self._layout == self._history.layouts[-1]):
            message = f"--exact asks this machine's llama.cpp, which is not {self._history.title} {self._layout.since}"
            raise InputError(message, hint="leave --exact out, or --runtime and --runtime-version")
        return fitted_placement(placement, self._history, self._layout, has_gpus=has_gpus)

    def ledger(self, memory: "MemoryModel", placement: Placement) -> MemoryEstimate:
        """The memory of `placement` under this version."""
        from glmplan.planner.runtimes import ledger_of

        return ledger_of(memory, placement, self._layout)

    def differences(self, model: ModelProfile, placement: Placement) -> tuple[str, ...]:
        """What is other than in current llama.cpp."""
        from glmplan.planner.runtimes import differences

        return tuple(differences(model, placement, self._history, self._layout))

    def used(self, model: ModelProfile, placement: Placement) -> RuntimeUsed:
        """What is stored per token, and who says so."""
        from glmplan.ggml_types import cache_type
        from glmplan.planner.runtimes import stored_bytes_per_token

        return RuntimeUsed(
            name=self.runtime,
            layout_since=self._layout.since,
            stores=self._layout.stores.value if model.attention.kind == "mla" else "per_head",
            kv_bytes_per_token=stored_bytes_per_token(model, self._layout.stores, cache_type(placement.cache_type_k)),
            sources=self._layout.sources,
        )

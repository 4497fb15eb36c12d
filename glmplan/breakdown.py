"""What an engine says it would allocate, buffer type by buffer type, and what it was asked."""

from typing import Final

from glmplan.noun import noun


@noun
class DryRunRequest:
    """One configuration in the engine's own words (llama.cpp `llama_model_params` and `llama_context_params`).

    `n_gpu_layers` -1 means all; `overrides` are (regular expression, buffer type) pairs; `flash_attn` is
    -1 auto, 0 off, 1 on; `n_outputs_max` 0 means n_batch; `drafts`: the context that drafts with the MTP block instead.
    """

    model: str
    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    n_outputs_max: int
    type_k: int
    type_v: int
    flash_attn: int
    kv_unified: bool = True
    n_gpu_layers: int = -1
    tensor_split: tuple[float, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    offload_kqv: bool = True
    op_offload: bool = True
    use_extra_bufts: bool = True
    load_mtp: bool = False
    drafts: bool = False


@noun
class BufferType:
    """Bytes one ggml buffer type would take; `device` is the GPU's ordinal, None for host memory."""

    name: str
    device: int | None
    model_bytes: int
    context_bytes: int
    compute_bytes: int


# Seen of llama.cpp 0c1e570 on a CPU with AMX: ggml-backend.cpp:1294 GGML_ASSERT(*cur_backend_id != -1), because the
# AMX buffer type takes an operation only once its weights are allocated.
SIZED_UNPACKED: Final = "the engine aborts over rearranged weights on this processor; sized as they are in the file"


@noun
class Breakdown:
    """The engine's answer: its buffers, or `refusal`, the reason in its own words.

    `note` says where the answer is to a slightly different question.
    """

    buffers: tuple[BufferType, ...] = ()
    n_ctx: int | None = None
    refusal: str | None = None
    note: str | None = None

    def device_bytes(self, device: int | None) -> tuple[int, int, int]:
        """Weights, KV cache and compute bytes on one GPU, or in host memory (None)."""
        rows = [row for row in self.buffers if row.device == device]
        return (
            sum(row.model_bytes for row in rows),
            sum(row.context_bytes for row in rows),
            sum(row.compute_bytes for row in rows),
        )

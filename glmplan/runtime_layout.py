"""What a runtime stores per token of context, by version."""

from enum import StrEnum

from glmplan.noun import noun


class CacheContent(StrEnum):
    """What of a token is kept in every layer under multi-head latent attention.

    `latent_k`: the latent and its rope part, once; `latent_k_v`: the latent a second time as V; `per_head`: K and V of
    every head. Grouped-query attention knows only K and V of its heads.
    """

    LATENT_K = "latent_k"
    LATENT_K_V = "latent_k_v"
    PER_HEAD = "per_head"


@noun
class RuntimeLayout:
    """One era of a runtime, from version `since` on (`about`: not known to the build).

    `flash_attention`: whether it runs on a GPU, None where nobody said. The rest is about llama.cpp's compute buffers:
    f32 masks beside their f16 cast, logits for a whole prompt batch, a converted cache in CUDA's pool; and
    `pipeline_logits_stage`, bytes per token of a prompt batch where several GPUs copy their inputs.
    """

    since: str
    about: bool
    date: str
    stores: CacheContent
    flash_attention: bool | None
    is_llama_cpp: bool
    masks_f32: bool
    batch_logits: bool
    converted_in_pool: bool
    pipeline_logits_stage: int | None
    sources: tuple[str, ...]


@noun
class RuntimeHistory:
    """A runtime's layouts, oldest first, and the first version that runs the model."""

    runtime: str
    title: str
    floor: str
    floor_date: str
    floor_source: str
    cache_types: tuple[str, ...]
    layouts: tuple[RuntimeLayout, ...]

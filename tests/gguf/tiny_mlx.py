"""A folder of MLX weights, less than 1 MB, with the shape of GLM-4.7-Flash (glm4_moe_lite: MLA, experts).

For tests with the marker `runtimes`: needs mlx-lm. The weights are seeded noise, so the text is noise; the
tokenizer knows whole words, so that every token is a piece of text. No id means the end of a text: answers are as long
as they are asked to be.
"""

import importlib
import json
from pathlib import Path
from typing import Any, Final

from glmplan.launchers import prompts

N_CTX_TRAIN: Final = 8192
N_VOCAB: Final = 512
SHAPE: Final[dict[str, Any]] = {
    "model_type": "glm4_moe_lite", "vocab_size": N_VOCAB, "hidden_size": 64, "intermediate_size": 128,
    "moe_intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
    "n_shared_experts": 1, "n_routed_experts": 8, "kv_lora_rank": 64, "q_lora_rank": 32, "qk_rope_head_dim": 32,
    "qk_nope_head_dim": 32, "v_head_dim": 32, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "max_position_embeddings": N_CTX_TRAIN,
}  # fmt: skip
_TEMPLATE: Final = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} {% endfor %}<|assistant|>"


def write_tiny_mlx(folder: Path) -> None:
    """Write weights, configuration and tokenizer into `folder`."""
    mx: Any = importlib.import_module("mlx.core")
    architecture: Any = importlib.import_module("mlx_lm.models.glm4_moe_lite")
    flatten = importlib.import_module("mlx.utils").tree_flatten
    mx.random.seed(7)
    model = architecture.Model(architecture.ModelArgs.from_dict(SHAPE))
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(flatten(model.parameters())), metadata={"format": "mlx"}
    )
    config = {**SHAPE, "torch_dtype": "float32", "eos_token_id": N_VOCAB + 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    library: Any = importlib.import_module("tokenizers")
    words = ["<unk>", "<end>", "<|user|>", "<|assistant|>", *prompts.WORDS]
    words += [f"word{number}" for number in range(N_VOCAB - len(words))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "eos_token": "<end>",
        "chat_template": _TEMPLATE, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

"""From header to profile and inspection: every architecture as far as its keys say."""

import json
from pathlib import Path

import build_gguf as b
import pytest

from glmplan.errors import GgufError, UnsupportedModel
from glmplan.inspection import Inspection, TensorGroup, WarningLevel
from glmplan.jsonio import dumps
from glmplan.model import GqaAttention, MlaAttention, ModelProfile
from glmplan.profiles.gguf_bytes import BufferSource
from glmplan.profiles.gguf_groups import group_of
from glmplan.profiles.gguf_inspect import inspection_of
from glmplan.profiles.gguf_profile import profile_of
from glmplan.profiles.gguf_shards import GgufModel, read_shards

Keys = dict[str, b.Typed | b.Array | b.Value]
SMALL = [b.TensorSpec("token_embd.weight", b.F32, (8, 4))]


def model(keys: Keys, tensors: list[b.TensorSpec] | None = None) -> GgufModel:
    content = b.build(keys, SMALL if tensors is None else tensors, data=False)
    return read_shards("x.gguf", lambda path: BufferSource(content, name=path, size_bytes=2**45))


def profile(keys: Keys, tensors: list[b.TensorSpec] | None = None) -> ModelProfile:
    return profile_of(model(keys, tensors), file="x.gguf")


def inspection(keys: Keys, tensors: list[b.TensorSpec] | None = None, *, with_tensors: bool = False) -> Inspection:
    return inspection_of(model(keys, tensors), source="x.gguf", with_tensors=with_tensors)


def codes(found: Inspection, level: WarningLevel | None = None) -> set[str]:
    return {warning.code for warning in found.warnings if level in {None, warning.level}}


def llama_like(architecture: str, **facts: b.Typed | b.Array | b.Value) -> Keys:
    base: Keys = {"block_count": 4, "context_length": 4096, "embedding_length": 512, "attention.head_count": 8}
    keys = base | {name.replace("__", "."): value for name, value in facts.items()}
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def test_glm_is_mla_with_one_latent_row_per_layer() -> None:
    found = profile(b.glm_keys(), b.glm_tensors())
    assert found.attention == MlaAttention(
        n_head=20, kv_lora_rank=512, rope_dimensions=64, key_length_mla=256, value_length_mla=256, q_lora_rank=768
    )
    assert (found.n_layer, found.n_nextn_layers, found.n_layer_dense_lead, found.n_ctx_train) == (47, 0, 1, 202752)
    assert (found.n_expert, found.n_expert_used, found.n_ff_expert, found.n_ff) == (64, 4, 1536, 10240)
    assert found.expert_gating == "sigmoid"
    assert inspection(b.glm_keys(), b.glm_tensors()).kv_cache.bytes_per_token["f16"] == 54_144


def test_rope_of_a_latent_row_follows_from_its_length_when_it_is_not_stated() -> None:
    keys = b.glm_keys()
    del keys["deepseek2.rope.dimension_count"]
    attention = profile(keys, b.glm_tensors()).attention
    assert isinstance(attention, MlaAttention)
    assert attention.rope_dimensions == 64


def test_a_prediction_block_caches_nothing_and_is_its_own_group() -> None:
    keys = b.glm_keys(block_count=48) | {"deepseek2.nextn_predict_layers": 1}
    found = inspection(keys, b.glm_tensors(nextn_block=47))
    assert profile(keys, b.glm_tensors(nextn_block=47)).n_nextn_layers == 1
    assert found.kv_cache.n_layer == 47
    assert found.kv_cache.bytes_per_token["q8_0"] == 28_764
    assert "nextn-present" in codes(found)
    nextn = next(group for group in found.groups if group.group is TensorGroup.NEXTN)
    assert nextn.n_tensors == len(b.glm_tensors(nextn_block=47)) - len(b.glm_tensors())
    assert "nextn-missing" in codes(inspection(keys, b.glm_tensors()), WarningLevel.WARNING)
    assert "nextn-absent" in codes(inspection(b.glm_keys(), b.glm_tensors()))


def test_ollamas_own_architecture_writes_the_lengths_the_other_way_round() -> None:
    keys = b.glm_keys("glm4moelite", head_count_kv=20, key_length=256, value_length=256)
    keys |= {
        "glm4moelite.attention.key_length_mla": 576,
        "glm4moelite.attention.value_length_mla": 512,
    }
    found = profile(keys, b.glm_tensors())
    assert found.attention == profile(b.glm_keys(), b.glm_tensors()).attention
    assert found.expert_gating == "sigmoid"
    shown = inspection(keys, b.glm_tensors())
    assert shown.kv_cache.bytes_per_token["f16"] == 54_144
    assert "ollama-only" in codes(shown, WarningLevel.WARNING)
    assert "mla-not-absorbed" not in codes(shown)


@pytest.mark.parametrize("architecture", ["glm4moelite", "deepseek2"])
def test_latent_attention_that_was_not_absorbed_caches_every_head(architecture: str) -> None:
    keys = b.glm_keys(architecture, head_count_kv=20, key_length=256, value_length=256)
    del keys[f"{architecture}.attention.key_length_mla"], keys[f"{architecture}.attention.value_length_mla"]
    found = inspection(keys, b.glm_tensors(absorbed=False))
    assert found.kv_cache.bytes_per_token["f16"] == 962_560
    warning = next(warning for warning in found.warnings if warning.code == "mla-not-absorbed")
    assert warning.level is WarningLevel.WARNING
    assert "pull" in warning.hint


def test_softmax_gating_of_january_2026_is_named_with_both_ways_out() -> None:
    found = inspection(b.glm_keys(expert_gating_func=1), b.glm_tensors())
    warning = next(warning for warning in found.warnings if warning.code == "softmax-gating")
    assert warning.level is WarningLevel.WARNING
    assert "--override-kv deepseek2.expert_gating_func=int:2" in warning.hint
    assert "download" in warning.hint
    assert profile(b.glm_keys(expert_gating_func=1), b.glm_tensors()).expert_gating == "softmax"


@pytest.mark.parametrize(
    ("vocabulary", "blocks", "function"),
    [(154_880, 47, "sigmoid"), (154_880, 48, "sigmoid"), (154_880, 27, "softmax"), (102_400, 47, "softmax")],
)
def test_gating_that_is_not_stated_follows_the_loader(vocabulary: int, blocks: int, function: str) -> None:
    keys = b.glm_keys(vocab_size=vocabulary, block_count=blocks)
    del keys["deepseek2.expert_gating_func"]
    gating = inspection(keys, b.glm_tensors()).expert_gating
    assert gating is not None
    assert (gating.function, gating.stated) == (function, False)


def test_qwen3moe_is_gqa() -> None:
    keys = llama_like(
        "qwen3moe", block_count=48, embedding_length=2048, attention__head_count=32, attention__head_count_kv=4,
        attention__key_length=128, attention__value_length=128, expert_count=128, expert_used_count=8,
        expert_feed_forward_length=768,
    )  # fmt: skip
    found = profile(keys)
    assert found.attention == GqaAttention(n_head=32, n_head_kv=4, key_length=128, value_length=128)
    assert found.expert_gating == "softmax"
    assert inspection(keys).kv_cache.bytes_per_token["f16"] == 48 * 4 * 2 * 128 * 2


def test_heads_that_differ_by_layer_are_summed() -> None:
    keys = llama_like("deci", attention__head_count_kv=b.Array(b.UINT32, (4, 0, 2, 4)))
    attention = profile(keys).attention
    assert isinstance(attention, GqaAttention)
    assert (attention.n_head_kv, attention.n_head_kv_by_layer) == (4, (4, 0, 2, 4))
    cache = inspection(keys).kv_cache
    assert cache.n_layer == 3
    assert cache.bytes_per_token["f16"] == (4 + 2 + 4) * 64 * 2 * 2


def test_lengths_default_to_the_share_of_a_head() -> None:
    attention = profile(llama_like("llama")).attention
    assert attention == GqaAttention(n_head=8, n_head_kv=8, key_length=64, value_length=64)


def test_a_cache_type_whose_blocks_do_not_fit_a_head_is_left_out() -> None:
    cache = inspection(llama_like("phi2", embedding_length=640)).kv_cache
    assert cache.bytes_per_token["f16"] == 4 * 640 * 2 * 2
    assert "q8_0" not in cache.bytes_per_token


def test_windows_make_the_cache_an_upper_bound() -> None:
    cache = inspection(llama_like("gpt-oss", attention__sliding_window=128)).kv_cache
    assert cache.upper_bound
    assert "128" in cache.note


def test_hybrid_models_count_only_the_layers_that_are_known_to_cache() -> None:
    known = inspection(llama_like("qwen3next", ssm__state_size=128, full_attention_interval=4)).kv_cache
    assert known.n_layer == 1
    unknown = inspection(llama_like("jamba", ssm__state_size=128)).kv_cache
    assert (unknown.n_layer, unknown.bytes_per_token) == (None, {})
    assert "recurrent" in unknown.note


@pytest.mark.parametrize(
    "keys",
    [
        {"general.name": "nothing else"},
        {"general.architecture": "mamba", "mamba.block_count": 4, "mamba.ssm.state_size": 16},
        {"general.architecture": "clip", "general.type": "mmproj"},
        {"general.architecture": "llama", "general.type": "adapter"},
        {"general.architecture": "llama", "llama.attention.head_count": 8},
    ],
)
def test_what_no_planner_can_use_is_still_inspected(keys: Keys) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        profile(keys)
    assert "inspect" in caught.value.hint
    found = inspection(keys)
    assert found.n_tensors == 1
    assert json.loads(dumps(found))["schema"] == "glmplan/inspect/1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deepseek2.block_count", "47"),
        ("deepseek2.block_count", float("nan")),
        ("deepseek2.block_count", b.Typed(b.INT32, -1)),
        ("deepseek2.block_count", b.Typed(b.UINT64, 2**63)),
        ("deepseek2.block_count", True),
        ("deepseek2.attention.head_count", b.Array(b.UINT32, tuple(range(600)))),
        ("deepseek2.attention.head_count", b.Array(b.STRING, ("1", "2"))),
        ("general.architecture", 7),
        ("general.name", b.Array(b.UINT8, (1, 2))),
        ("tokenizer.chat_template", 3.5),
    ],
)
def test_a_key_of_the_wrong_type_is_refused_with_its_offset(key: str, value: b.Typed | b.Array | b.Value) -> None:
    with pytest.raises(GgufError) as caught:
        inspection(b.glm_keys() | {key: value}, b.glm_tensors())
    assert caught.value.facts["key"] == key
    assert isinstance(caught.value.facts["offset"], int)


def test_a_huge_block_count_costs_nothing() -> None:
    found = inspection(llama_like("llama", block_count=2**31 - 1))
    assert found.kv_cache.n_layer == 2**31 - 1


@pytest.mark.parametrize(
    ("file_type", "name", "stated"),
    [(15, "Q4_K_M", True), (7, "Q8_0", True), (32, "BF16", True), (0, "F32", True), (38, "MXFP4_MOE", True),
     (1024 + 15, "Q4_K_M", False), (999, "Q4_K_M", False), (None, "Q4_K_M", False)],
)  # fmt: skip
def test_quantisation_is_named_as_llama_cpp_does(file_type: int | None, name: str, stated: bool) -> None:
    keys = b.glm_keys() | ({} if file_type is None else {"general.file_type": file_type})
    found = inspection(keys, b.glm_tensors())
    assert (found.quantization, found.quantization_stated) == (name, stated)


def test_vocabulary_comes_from_key_token_list_or_embedding() -> None:
    keys = llama_like("llama")
    assert profile(keys).n_vocab == 4
    assert profile(keys | {"tokenizer.ggml.tokens": b.Array(b.STRING, ("a", "b", "c"))}).n_vocab == 3
    assert profile(keys | {"llama.vocab_size": 9}).n_vocab == 9


def test_groups_and_types_add_up_to_the_whole() -> None:
    found = inspection(b.glm_keys(), b.glm_tensors(), with_tensors=True)
    assert sum(group.bytes for group in found.groups) == found.tensor_bytes
    assert sum(group.n_parameters for group in found.groups) == found.n_parameters
    assert sum(kind.bytes for kind in found.types) == found.tensor_bytes
    assert found.tensors is not None
    assert sum(tensor.bytes for tensor in found.tensors) == found.tensor_bytes
    assert found.tensors[0].offset == found.shards[0].data_offset
    assert inspection(b.glm_keys()).tensors is None


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("token_embd.weight", TensorGroup.EMBEDDING),
        ("output.weight", TensorGroup.OUTPUT),
        ("output_norm.weight", TensorGroup.NORMS),
        ("blk.0.attn_q_a_norm.weight", TensorGroup.NORMS),
        ("blk.3.attn_k_b.weight", TensorGroup.ATTENTION),
        ("blk.3.ffn_gate_inp.weight", TensorGroup.ROUTER),
        ("blk.3.exp_probs_b.bias", TensorGroup.ROUTER),
        ("blk.3.ffn_down_exps.weight", TensorGroup.ROUTED_EXPERTS),
        ("blk.3.ffn_gate_up_exps.weight", TensorGroup.ROUTED_EXPERTS),
        ("blk.3.ffn_gate.7.weight", TensorGroup.ROUTED_EXPERTS),
        ("blk.3.ffn_up_shexp.weight", TensorGroup.SHARED_EXPERT),
        ("blk.0.ffn_down.weight", TensorGroup.DENSE_FFN),
        ("blk.3.ffn_norm.weight", TensorGroup.NORMS),
        ("blk.3.ssm_conv1d.weight", TensorGroup.RECURRENT),
        ("blk.47.attn_k_b.weight", TensorGroup.NEXTN),
        ("blk.46.nextn.enorm.weight", TensorGroup.NEXTN),
        ("v.patch_embd.weight", TensorGroup.OTHER),
    ],
)
def test_tensors_are_grouped_by_what_they_are_for(name: str, group: TensorGroup) -> None:
    assert group_of(name, 47) is group


GLM_TEMPLATE = Path(__file__).parents[2] / "profiles" / "models" / "glm-4.7-flash.jinja"


def test_template_capabilities_are_read_off_the_text() -> None:
    keys = b.glm_keys() | {
        "tokenizer.chat_template": GLM_TEMPLATE.read_text("utf-8"),
        "tokenizer.chat_template.rag": "{{ messages }}",
    }
    template = inspection(keys, b.glm_tensors()).chat_template
    assert template is not None
    assert (template.tools, template.thinking) == (True, True)
    assert template.switches == ("enable_thinking", "clear_thinking")
    assert (template.enable_thinking, template.clear_thinking) == (True, True)
    assert template.variants == ("rag",)


def test_a_template_with_a_switch_and_no_mark_thinks() -> None:
    text = "{% if enable_thinking is defined %}x{% endif %}"
    template = inspection(b.glm_keys() | {"tokenizer.chat_template": text}, b.glm_tensors()).chat_template
    assert template is not None
    assert (template.thinking, template.enable_thinking, template.clear_thinking) == (True, True, False)


def test_words_outside_of_tags_are_no_capabilities() -> None:
    text = "You have tools and enable_thinking. {{ messages[0].tools }} {% if 'tools' %}x{% endif %}"
    template = inspection(b.glm_keys() | {"tokenizer.chat_template": text}, b.glm_tensors()).chat_template
    assert template is not None
    assert (template.tools, template.enable_thinking, template.thinking) == (False, False, False)
    assert "no-tools" in codes(inspection(b.glm_keys() | {"tokenizer.chat_template": text}, b.glm_tensors()))
    assert "no-chat-template" in codes(inspection(b.glm_keys(), b.glm_tensors()))


def test_a_template_of_nothing_but_braces_is_read_in_linear_time() -> None:
    keys = b.glm_keys() | {"tokenizer.chat_template": "{%" * 500_000}
    assert inspection(keys, b.glm_tensors()).chat_template is not None


def test_equal_cache_types_are_noted_for_mla_only() -> None:
    assert "equal-kv-types" in codes(inspection(b.glm_keys(), b.glm_tensors()))
    assert "equal-kv-types" not in codes(inspection(llama_like("llama")))


def test_not_a_number_in_the_metadata_does_not_reach_the_json() -> None:
    found = inspection(b.glm_keys() | {"deepseek2.rope.freq_base": float("nan")}, b.glm_tensors())
    assert "NaN" not in dumps(found)


def test_a_synthetic_file_says_so() -> None:
    assert profile(b.glm_keys() | {"glmplan.synthetic": True}, b.glm_tensors()).synthetic
    assert not profile(b.glm_keys(), b.glm_tensors()).synthetic

"""MPT (https://www.databricks.com/blog/mpt-7b): BLOOM without biases."""

from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.families.bloom import BloomCausalLM
from nextword.models.family import Relative
from nextword.models.formats.decoder_tables import LayerNames, query_key_value
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

_LAYERS = {
    "token_embedding": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "self_attention_norm": "transformer.blocks.{i}.norm_1",
    "self_attention/attention_output": "transformer.blocks.{i}.attn.out_proj",
    "feed_forward_norm": "transformer.blocks.{i}.norm_2",
    "feed_forward/intermediate": "transformer.blocks.{i}.ffn.up_proj",
    "feed_forward/feed_forward_output": "transformer.blocks.{i}.ffn.down_proj",
}


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    hidden_dim = config.integer("d_model")
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("n_layers"),
        "num_heads": config.integer("n_heads"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": 4 * hidden_dim,
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
        "use_embedding_norm": False,
        "use_bias": False,
        "activation": "gelu",
        "max_sequence_length": config.integer("max_seq_len", 2048),
    }
    attention = config.section("attn_config") or ConfigReader({}, name="attn_config")
    arguments["attention_scale"] = attention.number("softmax_scale", None)
    attention.expect(alibi=True, alibi_bias_max=8, attn_type="multihead_attention")
    attention.expect(prefix_lm=False, qk_ln=False, attn_uses_sequence_id=False)
    # Another way to the same, dropout, and what transformers writes of every configuration.
    attention.skip("attn_impl", "attn_pdrop", "model_type", "chunk_size_feed_forward", "id2label")
    attention.skip("label2id", "is_encoder_decoder", "output_attentions", "output_hidden_states")
    attention.skip("return_dict")
    attention.check_all_read()
    # transformers computes with this expansion, whatever is set.
    config.expect(expansion_ratio=4, no_bias=True, tie_word_embeddings=True)
    # Of training and of the original code, which transformers does not look at either.
    config.skip("emb_pdrop", "embedding_fraction", "init_config", "init_device", "learned_pos_emb")
    config.skip("norm_type", "resid_pdrop", "tokenizer_name", "verbose")
    return arguments


def _names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    return {**_LAYERS, **query_key_value(config, "transformer.blocks.{i}.attn.Wqkv")}


FAMILY = Relative(
    task=BloomCausalLM,
    formats={
        "transformers": transformers_format(
            {"mpt": "MptForCausalLM"},
            _arguments,
            _names,
            prefix="transformer.",
            ignored=(r"lm_head\.weight",),
        )
    },
)

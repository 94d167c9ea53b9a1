"""The docstrings of backbones: what the arguments that families share mean, said once."""

import inspect
import re
import textwrap
from collections.abc import Mapping

ARGUMENTS: Mapping[str, str] = {
    "vocabulary_size": "number of token ids.",
    "num_layers": "number of transformer layers.",
    "num_heads": "number of attention heads.",
    "num_query_heads": "number of attention heads.",
    "num_attention_heads": "number of attention heads.",
    "num_key_value_heads": "number of key/value heads.",
    "hidden_dim": "width of the residual stream.",
    "intermediate_dim": "width inside the feed-forward network.",
    "moe_intermediate_dim": "width inside an expert.",
    "head_dim": "width of a head; `hidden_dim` divided by the number of heads by default.",
    "activation": "name of the feed-forward network's activation.",
    "rope_max_wavelength": "base of the rotary wavelengths.",
    "rope_scaling_factor": "divides positions (linear interpolation).",
    "rope_scaling": "how the wavelengths are scaled, see `nextword.layers.rotary_scaling`.",
    "partial_rotary_factor": "the part of a head that is rotated.",
    "layer_norm_epsilon": "epsilon of the normalization.",
    "attention_bias": "whether the attention's projections have biases.",
    "feed_forward_bias": "whether the feed-forward's projections have biases.",
    "use_bias": "whether the projections have biases.",
    "parallel_residual": "whether attention and feed-forward both read the layer's input.",
    "sliding_window": "number of tokens, itself included, that a token sees in layers with a "
    "sliding window; None for all.",
    "sliding_window_size": "number of tokens, itself included, that a token sees in layers with a "
    "sliding window.",
    "sliding_layers": "for each layer whether it has the sliding window; all by default.",
    "use_sliding_window_attention": "whether tokens see a sliding window only.",
    "use_query_key_norm": "whether the query and key of each head are normalized.",
    "query_head_dim_normalize": "whether dot products are divided by the root of `head_dim`, or by "
    "that of `hidden_dim / num_query_heads`.",
    "query_pre_attention_scalar": "what dot products are divided by the root of instead.",
    "use_post_ffw_norm": "whether the feed-forward network has a norm behind it, too.",
    "use_post_attention_norm": "whether attention has a norm behind it, too; both or none.",
    "final_logit_soft_cap": "bound of the logits, or None.",
    "attention_logit_soft_cap": "bound of the scaled dot products, or None.",
    "num_experts": "number of experts in each layer that has some.",
    "top_k": "number of experts that compute each token.",
    "norm_top_k_prob": "whether the weights of a token's experts add up to 1.",
    "decoder_sparse_step": "every how many layers there are experts.",
    "mlp_only_layers": "indices of layers without experts.",
    "output_router_logits": "must be False: there is no loss that balances the experts.",
    "router_aux_loss_coefficient": "of no effect: there is no loss that balances the experts.",
    "tie_word_embeddings": "whether the head is the token embedding.",
    "dropout": "dropout rate.",
    "max_sequence_length": "the most positions the model was made for.",
    "context_length": "the most positions the model was made for, or None for no declared limit.",
}
"""What an argument means wherever a family does not say otherwise in its docstring."""

_EXAMPLE_VALUES = {
    "vocabulary_size": 100,
    "num_layers": 2,
    "num_heads": 4,
    "num_query_heads": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "moe_intermediate_dim": 16,
    "shared_expert_intermediate_dim": 16,
    "head_dim": 8,
    "num_experts": 4,
    "top_k": 2,
}
_WIDTH = 96
_ENTRY = re.compile(r"^    (\w+): (.*(?:\n     +.*)*)", re.MULTILINE)


def backbone_docstring(name: str, docstring: str, signature: inspect.Signature) -> str:
    """Return a backbone's docstring, completed.

    Args:
        name: name of the class.
        docstring: what the class says itself. Its `Args:`, if it has any, are those that no other
            family has or that mean something else here.
        signature: what the class takes.

    Returns:
        The docstring with every argument in its `Args:`, and an example.
    """
    text = inspect.cleandoc(docstring)
    introduction, _, rest = text.partition("\n\nArgs:\n")
    own, _, example = rest.partition("\n\n")
    meanings = {**ARGUMENTS, **dict(_ENTRY.findall(own))}
    entries = [
        _wrapped(f"{argument}: {meanings[argument]}")
        for argument in signature.parameters
        if argument in meanings
    ]
    entries.append(_wrapped("**kwargs: `dtype`, `name` and `trainable`, see `Backbone`."))
    return "\n".join(
        [introduction, "", "Args:", *entries, "", example or _example(name, signature)]
    )


def _wrapped(entry: str) -> str:
    return textwrap.fill(
        " ".join(entry.split()),
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="        ",
        break_on_hyphens=False,
    )


def _example(name: str, signature: inspect.Signature) -> str:
    arguments = ", ".join(
        f"{argument}={_EXAMPLE_VALUES[argument]}"
        for argument, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and argument in _EXAMPLE_VALUES
    )
    indent = "    "
    arguments = textwrap.fill(arguments, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(
        [
            "Example:",
            "```python",
            f"backbone = {name}(",
            arguments,
            ")",
            "token_ids = np.array([[1, 2, 3]])",
            'inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}',
            "hidden_states = backbone(inputs)",
            "```",
        ]
    )

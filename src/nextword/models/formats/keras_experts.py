"""How KerasHub stores the experts of the families that have all of them in one bank."""

from nextword.layers import DecoderConfig
from nextword.models.formats.decoder_tables import LayerNames, gate_and_intermediate
from nextword.models.formats.keras_layers import ATTENTION_PATHS
from nextword.presets.weight_layouts import Transposed


def network_names(decoder: str) -> dict[str, str]:
    """Return what KerasHub calls the feed-forward network of a layer, with and without experts.

    Args:
        decoder: what the file calls a transformer layer: its class's name in snake case.

    Example:
    >>> network_names("qwen_moe_transformer_decoder")["feed_forward/gate"]
    'layers/qwen_moe_transformer_decoder_{i}/mlp/_feedforward_gate_dense'
    """
    network = f"layers/{decoder}_{{i}}/mlp"
    bank, shared = f"{network}/expert_bank", f"{network}/shared_expert"
    return {
        "feed_forward/intermediate": f"{network}/_feedforward_intermediate_dense",
        "feed_forward/gate": f"{network}/_feedforward_gate_dense",
        "feed_forward/feed_forward_output": f"{network}/_feedforward_output_dense",
        "feed_forward/router": f"{network}/_sparse_feedforward_gate_dense",
        "feed_forward/expert_gate": f"{bank}/vars/0",
        "feed_forward/expert_intermediate": f"{bank}/vars/0",
        "feed_forward/expert_output": f"{bank}/vars/1",
        "feed_forward/shared/intermediate": f"{shared}_dense/_feedforward_intermediate_dense",
        "feed_forward/shared/gate": f"{shared}_dense/_feedforward_gate_dense",
        "feed_forward/shared/feed_forward_output": f"{shared}_dense/_feedforward_output_dense",
        "feed_forward/shared_gate": f"{shared}_gate_dense",
    }


def bank_layouts(config: DecoderConfig, decoder: str) -> LayerNames:
    """Return the names of the gates and of what they gate, which are stored as one.

    Args:
        config: the decoder's description.
        decoder: see `network_names`.
    """
    bank = network_names(decoder)["feed_forward/expert_gate"]
    return gate_and_intermediate(config, bank, Transposed(), of="expert_")


def network_paths(block: str, network: str) -> dict[str, str]:
    """Return what KerasHub calls the layers, see `LAYER_PATHS`.

    Args:
        block: what it calls the experts of a layer: their class's name in snake case.
        network: the same of the feed-forward network of a layer without experts.
    """
    # Numbers go on through all models of a process. To Keras, paths may be patterns.
    sparse = rf"transformer_layer_{{i}}/{block}(_\d+)?"
    dense = rf"transformer_layer_{{i}}/{network}(_\d+)?"
    parts = {"gate": "gate", "intermediate": "intermediate", "feed_forward_output": "output"}
    return {
        **ATTENTION_PATHS,
        "feed_forward/router": f"{sparse}/sparse_feedforward_gate_dense",
        "feed_forward/shared_gate": f"{sparse}/shared_expert_gate_dense",
        **{
            f"feed_forward/{within}{ours}": f"{place}/feedforward_{theirs}_dense"
            for within, place in (("", dense), ("shared/", f"{sparse}/shared_expert_dense"))
            for ours, theirs in parts.items()
        },
    }

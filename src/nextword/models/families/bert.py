"""BERT (https://arxiv.org/abs/1810.04805): an encoder of text, for classifying it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.family import Family, StoredHead
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import (
    GGUF_NAMES,
    gguf_format,
    has_tensor,
    layer_norm_arguments,
)
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import layer_paths
from nextword.models.formats.keras_names import attention_names, feed_forward_names
from nextword.models.formats.transformers import activation, transformers_format
from nextword.models.formats.transformers_head import ClassifierHead
from nextword.models.shared_arguments import decoder_fields
from nextword.models.task import Task
from nextword.models.text_classifier import TextClassifier
from nextword.models.text_classifier_preprocessor import TextClassifierPreprocessor
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_table import CheckpointWeights, Stored, linear
from nextword.tokenizers import WordPieceTokenizer


class BertBackbone(Backbone):
    """The BERT encoder: every token sees all, and each layer is normalized behind its sum.

    It returns a dict of `sequence_output`, of shape `[batch, length, hidden_dim]`, and
    `pooled_output`, of shape `[batch, hidden_dim]`, made from the first token.

    Args:
        max_sequence_length: number of learned positions.
        num_segments: number of parts that a text can have.
        pooler: whether there is a `pooled_output`. Without it the backbone returns
            `sequence_output` alone, no dict, and makes no classifier.

    Example:
    ```python
    backbone = BertBackbone(
        vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=128
    )
    token_ids = np.array([[1, 2, 3]])
    inputs = {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": np.ones_like(token_ids),
    }
    pooled_output = backbone(inputs)["pooled_output"]
    ```
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.1,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        *,
        activation: Literal["gelu_tanh", "gelu", "relu", "silu"] = "gelu_tanh",
        layer_norm_epsilon: float = 1e-12,
        pooler: bool = True,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            position_embedding="learned",
            embedding_norm=True,
            causal=False,
            norm="layer",
            norm_placement="post",
            query_key_value_bias=True,
            attention_output_bias=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            tie_word_embeddings=True,
        )


class BertTokenizer(WordPieceTokenizer):
    """BERT's WordPiece tokenizer, whose vocabulary has `[CLS]`, `[SEP]`, `[PAD]` and `[MASK]`.

    Args:
        vocabulary: see `WordPieceTokenizer`.
        lowercase: whether letters are made small.
        **kwargs: the further arguments of `WordPieceTokenizer`.
    """

    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }

    def __init__(
        self, vocabulary: Iterable[str] | str | Path, lowercase: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(vocabulary, lowercase=lowercase, **kwargs)


class BertTextClassifierPreprocessor(TextClassifierPreprocessor):
    """Turns text into the inputs of a `BertTextClassifier`; see `TextClassifierPreprocessor`."""


class BertTextClassifier(TextClassifier):
    """A BERT model that classifies text; see `TextClassifier`."""

    backbone_cls = BertBackbone
    preprocessor_cls = BertTextClassifierPreprocessor


TRANSFORMERS_NAMES = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "segment_embedding": "bert.embeddings.token_type_embeddings",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "self_attention/query": "bert.encoder.layer.{i}.attention.self.query",
    "self_attention/key": "bert.encoder.layer.{i}.attention.self.key",
    "self_attention/value": "bert.encoder.layer.{i}.attention.self.value",
    "self_attention/attention_output": "bert.encoder.layer.{i}.attention.output.dense",
    "self_attention_norm": "bert.encoder.layer.{i}.attention.output.LayerNorm",
    "feed_forward/intermediate": "bert.encoder.layer.{i}.intermediate.dense",
    "feed_forward/feed_forward_output": "bert.encoder.layer.{i}.output.dense",
    "feed_forward_norm": "bert.encoder.layer.{i}.output.LayerNorm",
    "pooled_dense": "bert.pooler.dense",
}

_KERAS_LAYER = "layers/transformer_encoder_{i}"
KERAS_NAMES = {
    "token_embedding": "layers/reversible_embedding",
    "position_embedding": "layers/position_embedding",
    "segment_embedding": "layers/embedding",
    "embedding_norm": "layers/layer_normalization",
    **attention_names(f"{_KERAS_LAYER}/_self_attention_layer"),
    "self_attention_norm": f"{_KERAS_LAYER}/_self_attention_layer_norm",
    "feed_forward_norm": f"{_KERAS_LAYER}/_feedforward_layer_norm",
    **feed_forward_names(_KERAS_LAYER),
    "pooled_dense": "layers/dense",
}
_KERAS_PATHS = {
    **layer_paths("self_attention_layer"),
    "segment_embedding": "segment_embedding",
    "pooled_dense": "pooled_dense",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("num_hidden_layers"),
        "num_heads": config.integer("num_attention_heads"),
        "hidden_dim": config.integer("hidden_size"),
        "intermediate_dim": config.integer("intermediate_size"),
        "dropout": config.fraction("hidden_dropout_prob", 0.1),
        "max_sequence_length": config.integer("max_position_embeddings", 512),
        "num_segments": config.integer("type_vocab_size", 2),
        "activation": activation(config, "hidden_act", "gelu"),
        "layer_norm_epsilon": config.number("layer_norm_eps", 1e-12),
    }
    config.expect(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    # Another dropout rate, the other tasks' heads, what a class is called and how it is trained,
    # and what BERT's own code wrote.
    config.skip("attention_probs_dropout_prob", "classifier_dropout", "tie_word_embeddings")
    config.skip("id2label", "label2id", "num_labels", "problem_type", "finetuning_task")
    config.skip("chunk_size_feed_forward", "directionality", "pooler_fc_size", "pooler_type")
    config.skip("pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head")
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    if not any(name.endswith("LayerNorm.gamma") for name in checkpoint.tensor_names()):
        return TRANSFORMERS_NAMES
    # Checkpoints that were converted from TensorFlow, BERT's own among them.
    norms = {path: name for path, name in TRANSFORMERS_NAMES.items() if path.endswith("_norm")}
    scales = {f"{path}/scale": Stored(f"{name}.gamma") for path, name in norms.items()}
    biases = {f"{path}/bias": Stored(f"{name}.beta") for path, name in norms.items()}
    others = {path: name for path, name in TRANSFORMERS_NAMES.items() if path not in norms}
    return {**others, **scales, **biases}


_GGUF_NAMES = {
    **{path: name for path, name in GGUF_NAMES.items() if not path.endswith("_norm")},
    "embedding_norm": "token_embd_norm",
    "segment_embedding": "token_types",
    "self_attention_norm": "blk.{i}.attn_output_norm",
    "feed_forward_norm": "blk.{i}.layer_output_norm",
    "pooled_dense": "cls",
}
_GGUF_HEAD = linear("logits", "cls.output", bias=True)


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    config.choice("attention.causal", [False])
    # How llama.cpp makes one vector of a text, and what it calls the classes.
    config.skip("pooling_type", "classifier.output_labels")
    return layer_norm_arguments(config, checkpoint) | {
        "max_sequence_length": config.integer("context_length"),
        "num_segments": checkpoint.shape("token_types.weight")[0],
        # That of the models that are converted; llama.cpp comes close to it, with tanh.
        "activation": "gelu",
        "pooler": has_tensor(checkpoint, "cls.weight"),
    }


def _gguf_head(checkpoint: Checkpoint, task: type[Task]) -> StoredHead | None:
    """Return the head of a classifier, None for a model without one."""
    if not has_tensor(checkpoint, "cls.output.weight"):
        return None
    return StoredHead(
        arguments={"num_classes": checkpoint.shape("cls.output.weight")[0]},
        weights=lambda: CheckpointWeights(
            checkpoint, _GGUF_HEAD, ignored=(r"(?!cls\.output\.).*",)
        ),
    )


FAMILY = Family(
    task=BertTextClassifier,
    formats={
        "transformers": transformers_format(
            {"bert": "BertModel"},
            _transformers_arguments,
            _transformers_names,
            prefix="bert.",
            # The numbers 0, 1, 2, …, and the heads for predicting words and sentences, for
            # classifying and for finding answers.
            ignored=(
                r"(bert\.)?embeddings\.position_ids",
                r"cls\..*",
                r"(classifier|qa_outputs)\.(weight|bias)",
            ),
            head=ClassifierHead(class_name="BertForSequenceClassification", prefix="bert."),
        ),
        "gguf": gguf_format(
            ("bert",),
            _gguf_arguments,
            _GGUF_NAMES,
            ignored=(r"cls\.output\..*",),
            head=_gguf_head,
        ),
        "keras": keras_format(
            BertBackbone,
            KERAS_NAMES,
            KerasClasses(prefix="Bert", module="bert", tokenizer_cls=BertTokenizer),
            paths=_KERAS_PATHS,
            head={"logits": "layers/dense"},
        ),
    },
)

"""Tokens with a role, and those that end a turn."""

import re
from collections.abc import Iterable, Mapping

# The roles that checkpoints give to tokens, in transformers' words; chat templates use them as
# variables.
ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)

# Tokens that end a turn, a message to a tool, or a text. An instruct model ends its answers with
# one of them, which often is not the end token that its files declare: that one is left over from
# the base model. Without them it would go on and write the user's next turn.
_END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
)
# Where these exist, `<|end|>` only ends one of the messages that an answer is made of.
_ENDS_BESIDE_MESSAGES = {"<|return|>", "<|call|>"}
# How tokens that begin turns and the like are written, in vocabularies that do not mark them.
_SPECIAL = re.compile(r"<\|[^\s|<>]+\|>|<\uff5c[^\s<>]+\uff5c>|<start_of_turn>")


def looks_special(token: str) -> bool:
    """Return whether a token carries structure by its looks, for vocabularies that do not say.

    Example:
    >>> looks_special("<|im_start|>"), looks_special("<b>")
    (True, False)
    """
    return token in _END_TOKENS or _SPECIAL.fullmatch(token) is not None


def end_token_ids(added_tokens: Mapping[str, int], declared: Iterable[int]) -> tuple[int, ...]:
    """Return the ids of all tokens that end a turn or a text.

    Args:
        added_tokens: the special and other added tokens of the vocabulary, token -> id. A token
            counts only if it is one of these: as ordinary text, `<|end|>` ends nothing.
        declared: the ids that the checkpoint itself declares.

    Returns:
        The ids, declared ones first, each once.

    Example:
    >>> end_token_ids({"<|im_start|>": 1, "<|im_end|>": 2, "<|endoftext|>": 0}, [2])
    (2, 0)
    """
    known = [token for token in _END_TOKENS if token in added_tokens]
    if _ENDS_BESIDE_MESSAGES.issubset(known):
        known = [token for token in known if token != "<|end|>"]
    return tuple(dict.fromkeys([*declared, *(added_tokens[token] for token in known)]))

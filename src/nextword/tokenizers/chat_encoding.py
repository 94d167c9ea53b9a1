"""Conversations become token ids, and only the template can put special tokens among them."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nextword.tokenizers.chat_template import ChatTemplate, check_messages, check_variables

if TYPE_CHECKING:
    from nextword.tokenizers.tokenizer import Tokenizer

# Private-use characters (planes 15 and 16): no text gives them a meaning of their own.
_PRIVATE_USE = range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)


def encode_chat(
    tokenizer: "Tokenizer",
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    roles: Mapping[str, str],
    variables: Mapping[str, Any],
) -> list[int]:
    """Return the ids of a conversation; `Tokenizer.encode_chat` describes it.

    A rendered text no longer shows which characters came from a message. So where a message holds
    the text of a special token, one character of it is replaced before rendering by a private-use
    character that occurs nowhere else. In the rendered text, the special tokens that are still
    whole are the template's; between them, the characters are put back and encoded as plain text.

    Args:
        tokenizer: of the model.
        template: of the model.
        messages: see `Tokenizer.encode_chat`.
        add_generation_prompt: see `Tokenizer.encode_chat`.
        roles: special tokens that the template may name, by role.
        variables: further variables of the template.

    Returns:
        The ids.
    """
    messages, variables = check_messages(messages), check_variables(variables)
    strings = [template.source, *_strings(messages), *_strings(variables)]
    disguise = _Disguise(tokenizer, strings)
    text = template.render(
        disguise.cover_parts(disguise.cover(messages)),
        add_generation_prompt=add_generation_prompt,
        special_tokens=roles,
        **disguise.cover(variables),
    )
    if not disguise.is_used:
        return tokenizer.encode([text], parse_special=True)[0]
    return _encode_disguised(tokenizer, text, disguise)


def _encode_disguised(tokenizer: "Tokenizer", text: str, disguise: "_Disguise") -> list[int]:
    special, plain, end_of_last = [], [], 0
    for id, start, end in tokenizer.special_spans(text):
        plain.append(disguise.uncover(text[end_of_last:start]))
        special.append([id])
        end_of_last = end
    plain.append(disguise.uncover(text[end_of_last:]))
    rows = [*tokenizer.encode(plain[:1]), *tokenizer.encode(plain[1:], inside=True)]
    return [id for row, token in zip(rows, [*special, []], strict=True) for id in [*row, *token]]


class _Disguise:
    """Replaces characters of special tokens by stand-ins, and puts them back.

    Args:
        tokenizer: knows what a special token is.
        strings: texts whose characters cannot be stand-ins.
    """

    def __init__(self, tokenizer: "Tokenizer", strings: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._strings = strings
        self._free: Iterator[str] | None = None
        self._stand_ins: dict[str, str] = {}

    @property
    def is_used(self) -> bool:
        """Whether anything was replaced."""
        return bool(self._stand_ins)

    def cover(self, value: Any) -> Any:
        """Return a copy of plain data in which no string holds a special token."""
        return _map_strings(value, self._cover_text)

    def cover_parts(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages whose parts do not hold a special token when they are joined either."""
        return [
            {**message, "content": self._cover_joined(message["content"])}
            if isinstance(message.get("content"), list)
            else message
            for message in messages
        ]

    def _cover_joined(self, parts: list[Any]) -> Any:
        joined = self._cover_text("".join(_strings_of_parts(parts)))
        position = 0

        def next_piece(text: str) -> str:
            nonlocal position
            position += len(text)
            return joined[position - len(text) : position]

        return [
            {**part, "text": next_piece(part["text"])} if _is_text_part(part) else part
            for part in parts
        ]

    def _cover_text(self, text: str) -> str:
        # Without the first token of a text, there may be another that overlapped it.
        while spans := self._tokenizer.special_spans(text):
            characters = list(text)
            for _, start, end in spans:
                # The span may begin with white space that belongs to the text around the token.
                first = next((i for i in range(start, end) if not text[i].isspace()), start)
                characters[first] = self._stand_in(text[first])
            text = "".join(characters)
        return text

    def _stand_in(self, character: str) -> str:
        if character not in self._stand_ins:
            if self._free is None:
                tokens = map(self._tokenizer.id_to_token, self._tokenizer.special_token_ids)
                taken = set().union(*self._strings, *tokens)
                codes = itertools.chain(*_PRIVATE_USE)
                self._free = (chr(code) for code in codes if chr(code) not in taken)
            self._stand_ins[character] = next(self._free)
        return self._stand_ins[character]

    def uncover(self, text: str) -> str:
        """Return a text with the replaced characters put back."""
        return text.translate({ord(s): character for character, s in self._stand_ins.items()})


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _strings_of_parts(parts: list[Any]) -> list[str]:
    return [part["text"] for part in parts if _is_text_part(part)]


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in plain data that is not a key."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    """Return a copy of plain data with `function` applied to every string that is not a key."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, dict):
        return {key: _map_strings(item, function) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, function) for item in value]
    return value

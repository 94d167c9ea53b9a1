"""Chat templates: how a conversation becomes the text that a model was trained to continue."""

import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from nextword.errors import PresetError
from nextword.tokenizers.special_tokens import ROLES
from nextword.tokenizers.template_budget import MAX_TEXT, new_budget
from nextword.tokenizers.template_sandbox import TemplateEnvironment, TemplateRefusal
from nextword.tokenizers.text_checks import check_unicode

_MAX_SOURCE = 1 << 17  # the longest templates of known models have some 30,000 characters
_MAX_DEPTH = 64

# What the template is given by name, and what other libraries take beside it: a variable of the
# same name would change the former, or be taken for the latter.
_RESERVED = frozenset(
    [
        *ROLES,
        "messages",
        "conversation",
        "chat_template",
        "continue_final_message",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "special_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "truncation",
    ]
)


class ChatTemplate:
    """A chat template in Jinja, as checkpoints carry it.

    Templates come with a checkpoint, from anybody. They run in a sandbox, on a copy of the
    messages, and within limits of time and memory.

    Args:
        source: the template, up to 128 Ki characters. It is compiled on first use.

    Raises:
        PresetError: the source is not a string or too long.

    Example:
    >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    >>> template.render([{"role": "user", "content": "Hello"}])
    '<user>Hello'
    """

    def __init__(self, source: str) -> None:
        if not isinstance(source, str) or len(source) > _MAX_SOURCE:
            size = f"{len(source)} characters" if isinstance(source, str) else type(source).__name__
            raise PresetError(
                f"A chat template must be a string of at most {_MAX_SOURCE} characters. "
                f"Received: {size}."
            )
        self.source = source
        self._compiled: Template | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ChatTemplate({self.source!r})"

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        special_tokens: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: the turns, in order; each has at least a `"role"`, and a `"content"` unless it
                has `"tool_calls"`. Values are what JSON can hold. Keys whose value is `None` are
                left out, which is how templates expect them.
            add_generation_prompt: whether the text ends where the model's answer begins.
            special_tokens: the tokens that the template may name, by role (`"bos_token"`, ...).
            **variables: further variables of the template, for example `tools`.

        Returns:
            The text.

        Raises:
            ValueError: the messages or variables are not of this form, or the template refuses
                them.
            PresetError: the template is broken, or takes too much time or memory.
        """
        variables = {
            "tools": None,
            "documents": None,
            **check_variables(variables),
            **(special_tokens or {}),
            "messages": check_messages(messages),
            "add_generation_prompt": bool(add_generation_prompt),
        }
        with new_budget():
            template = self._template()
            try:
                return _bounded_text(template, variables)
            except TemplateRefusal as error:
                raise ValueError(
                    f"The model's chat template refuses these messages: {_reason(error)}."
                ) from None
            except Exception as error:
                raise PresetError(
                    f"The model's chat template failed on these messages: {_reason(error)}."
                ) from error

    def _template(self) -> Template:
        with self._lock:
            if self._compiled is None:
                self._compiled = _compile(self.source)
            return self._compiled


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Return a copy of the messages made of plain values, without keys whose value is `None`.

    Args:
        messages: see `ChatTemplate.render`.

    Raises:
        ValueError: they are not of that form.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(
            "messages must be a list of at least one message such as "
            f"{{'role': 'user', 'content': 'Hello'}}. Received: messages={messages!r:.80}."
        )
    checked = []
    for position, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(
                f"messages[{position}] must be a dict such as "
                f"{{'role': 'user', 'content': 'Hello'}}. Received: {message!r:.80}."
            )
        plain = _plain(message, f"messages[{position}]")
        kept = {key: value for key, value in plain.items() if value is not None}
        _check_message(kept, position)
        checked.append(kept)
    return checked


def check_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a template's variables made of plain values.

    Args:
        variables: see `ChatTemplate.render`.

    Raises:
        ValueError: one has a name that is not free, or is no plain value.
    """
    for name in variables:
        if name in _RESERVED or name.startswith("_") or name in _environment().globals:
            raise ValueError(
                f"{name!r} is not free to be a variable of the chat template. Received: "
                f"{name}={variables[name]!r:.80}."
            )
    return {name: _plain(value, name) for name, value in variables.items()}


def _check_message(message: dict[str, Any], position: int) -> None:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise ValueError(
            f"messages[{position}] must have a 'role', for example 'user'. Received: role={role!r}."
        )
    if not isinstance(content, str | list) and not (content is None and "tool_calls" in message):
        raise ValueError(
            f"messages[{position}] must have a 'content', a string or a list of parts. Received: "
            f"content={content!r:.80}."
        )


def _plain(value: Any, name: str, depth: int = _MAX_DEPTH) -> Any:
    """Return a copy of `value` in plain types: other objects may have methods that do harm."""
    if value is None or type(value) in (int, float, bool):
        return value
    if isinstance(value, str):
        check_unicode(value)
        return str.__str__(value)
    if isinstance(value, Mapping | list | tuple) and depth:
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {str(k): _plain(v, f"{name}[{k!r}]", depth - 1) for k, v in value.items()}
        if not isinstance(value, Mapping):
            return [_plain(v, f"{name}[{i}]", depth - 1) for i, v in enumerate(value)]
    raise ValueError(
        f"{name[:200]} must be a value that JSON can hold, nested at most {_MAX_DEPTH} deep. "
        f"Received: a value of type {type(value).__name__}."
    )


@cache
def _environment() -> TemplateEnvironment:
    return TemplateEnvironment()


def _compile(source: str) -> Template:
    try:
        return _environment().bounded_template(source)
    except TemplateSyntaxError as error:
        reason = f"line {error.lineno}: {_reason(error)}"
    except (RecursionError, MemoryError):
        reason = "it is nested too deeply"
    except Exception as error:
        reason = _reason(error)
    raise PresetError(f"The model's chat template is broken: {reason}.")


def _bounded_text(template: Template, variables: Mapping[str, Any]) -> str:
    pieces, length = [], 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > MAX_TEXT:
            raise ValueError(f"its text is longer than {MAX_TEXT} characters")
        pieces.append(piece)
    return "".join(pieces)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    text = " ".join(str(error).split())[:300].rstrip(".")
    return text or type(error).__name__

"""Where chat templates run: Jinja without files, without Python's insides, and with a budget.

A chat template is a program from a stranger. Jinja's sandbox keeps it from objects it must not
touch; it does not keep it from taking all time and memory. So every loop round, call, filter and
operation is charged to a budget by the size of what it reads and makes, and whatever can make much
out of little (`"a" * 10**9`, a padding filter, a number format) is charged, or refused, beforehand.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from nextword.tokenizers.template_budget import STEP, charge, charge_contents, charge_size

_MAX_INTEGER_BITS = 4096
_MAX_WIDTH = 1000
_MAX_INDENT = 16
_MAX_DEPTH = 64

# Widths and precisions in formats of four digits; `*` and nested fields take them from a variable.
_PERCENT_FORMAT_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)")
_FORMAT_WIDTH = re.compile(r":[^{}]*(?:\d{4}|\{)")
_TIME_FORMAT_WIDTH = re.compile(r"%[^a-zA-Z%]*\d{3}")
_TOO_WIDE = "a format in it asks for too much padding"

# Methods and filters that pad or repeat, and that no chat template needs.
_REFUSED_METHODS = frozenset(
    ["center", "encode", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"]
)
_REFUSED_FILTERS = frozenset(
    ["batch", "center", "filesizeformat", "pprint", "random", "slice", "urlize", "wordwrap"]
)
# Filters that take a list as it is; all others may compare its items or write it as text, however
# long that gets.
_SHALLOW_FILTERS = frozenset(
    [
        *("attr", "count", "d", "default", "first", "items", "last", "length", "list", "map"),
        *("reject", "rejectattr", "reverse", "select", "selectattr"),
    ]
)
_COMPARING_TESTS = frozenset(
    [
        *("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge"),
        *("<", "lt", "lessthan", "<=", "le", "in", "sameas"),
    ]
)
# Filters of ours, under names that no template can write.
_LOOP, _SIZE, _OPERAND, _CONCATENATION = (
    *("charged loop", "charged size", "charged operand", "charged concatenation"),
)


class TemplateRefusal(Exception):
    """The template itself refuses the messages, through `raise_exception`."""


class GenerationBlocks(Extension):
    """`{% generation %} ... {% endgeneration %}`, which marks what the model wrote: plain text."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it, with every operation charged to the budget."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationBlocks, loopcontrols],
            finalize=_charged_output,
            optimized=False,
            cache_size=0,
        )
        del self.globals["lipsum"]
        self.globals |= {
            "dict": _make_dict,
            "namespace": TemplateNamespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.filters |= {
            "format": _format(self.filters["format"]),
            "indent": _indent(self.filters["indent"]),
            "join": _join(self.filters["join"]),
            "replace": _replace(self.filters["replace"]),
            "tojson": _tojson,
        }
        self.filters = {
            name: _charged_function(
                function, charge_size if name in _SHALLOW_FILTERS else charge_contents
            )
            for name, function in self.filters.items()
            if name not in _REFUSED_FILTERS
        }
        self.filters |= {
            _LOOP: _charged_loop,
            _SIZE: _charged_size,
            _OPERAND: _charged_operand,
            _CONCATENATION: _charged_concatenation,
        }
        self.tests |= {
            name: _charged_function(self.tests[name], charge_contents) for name in _COMPARING_TESTS
        }

    def bounded_template(self, source: str) -> Any:
        """Return the compiled template, with charges where Jinja has no hook for them."""
        return self.from_string(_Charges().visit(self.parse(source)))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str | bytes) and attr in _REFUSED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        charge(STEP)
        charge_size(*args, *kwargs.values())
        _charge_method(__obj, args)
        result = super().call(__context, __obj, *args, **kwargs)
        charge_size(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        charge(_result_size(operator, left, right))
        if operator == "%" and isinstance(left, str):
            charge_contents(right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapper = super().wrap_str_format(value)
        if wrapper is None:
            return None
        text: str = value.__self__

        def charged(*args: Any, **kwargs: Any) -> str:
            if _FORMAT_WIDTH.search(text):
                raise SecurityError(_TOO_WIDE)
            characters, items = charge_contents(*args, *kwargs.values())
            longest = characters + items * STEP
            charge(len(text) + text.count("{") * (longest + _MAX_WIDTH))
            return wrapper(*args, **kwargs)

        return charged


class TemplateNamespace(Namespace):
    """`namespace()`, without attributes that Python itself would look at."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        Namespace.__init__(self)
        for name, value in dict(*rest, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"it sets the attribute {str(name)[:80]!r} of a namespace")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # what is in it may be long


class _Charges(NodeTransformer):
    """Puts charges around loops, slices, comparisons and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        if node.recursive:
            raise SecurityError("recursive loops are not supported")
        literal = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        items: Any = node.iter  # declared as any node, but it is an expression
        node.iter = _filter(items, _LOOP, nodes.Const(STEP + literal))
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(node, _SIZE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Operand:
        self.generic_visit(node)
        node.expr = _filter(node.expr, _OPERAND, nodes.Const(node.op in ("in", "notin")))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATION)


def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _charged_loop(items: Iterable[Any], cost: int) -> Iterator[Any]:
    for item in items:
        charge(cost)
        yield item


def _charged_size(value: Any) -> Any:
    charge_size(value)
    return value


def _charged_operand(value: Any, is_searched: bool) -> Any:
    # Two lists may be small in memory, and yet take forever to compare.
    if is_searched and isinstance(value, dict):
        charge_size(value)
    else:
        charge_contents(value)
    return value


def _charged_concatenation(values: list[Any]) -> str:
    charge_contents(values)
    return "".join(map(str, values))


@pass_context  # keeps Jinja from evaluating constants while it compiles
def _charged_output(context: Context, value: Any) -> Any:
    charge_contents(value)
    return value


def _charged_function(function: Any, charge_arguments: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        charge(STEP)
        charge_arguments(*args, *kwargs.values())
        result = function(*args, **kwargs)
        charge_size(result)
        return result

    return charged


def _charge_method(method: Any, args: tuple[Any, ...]) -> None:
    """Charge what a method of a string makes, where it can be longer than what it is given."""
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if isinstance(text, str) and name == "replace" and len(args) > 1:
        charge(_replaced_size(text, *args[:2]))
    elif isinstance(text, str) and name == "join" and args:
        charge(_joined_size(text, args[0]))


def _result_size(operator: str, left: Any, right: Any) -> int:
    """Return a bound of the length of what a binary operation makes."""
    if operator == "%" and isinstance(left, str):
        return _percent_format_size(left)
    if operator == "+":
        return _length(left) + _length(right)
    if operator == "*" and isinstance(left, int) != isinstance(right, int):
        count, sequence = (left, right) if isinstance(left, int) else (right, left)
        return max(count, 0) * _length(sequence)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (max(right, 1) if operator == "**" else 1)
        if max(bits, right.bit_length()) > _MAX_INTEGER_BITS:
            raise SecurityError("it calculates with numbers that are too large")
    return STEP


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else STEP


def _percent_format_size(text: str) -> int:
    if _PERCENT_FORMAT_WIDTH.search(text):
        raise SecurityError(_TOO_WIDE)
    return len(text) + text.count("%") * _MAX_WIDTH


def _replaced_size(text: str, old: Any, new: Any) -> int:
    return len(text) + text.count(str(old)) * len(str(new)) + (0 if old else len(str(new)))


def _joined_size(separator: str, values: Any) -> int:
    if not isinstance(values, str | list | tuple | dict):
        raise SecurityError("it joins what is not a list")
    characters, items = charge_contents(*values)
    return characters + items * len(separator)


def _replace(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def replace(eval_ctx: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
        charge(_replaced_size(str(s), old, new))
        return function(eval_ctx, s, old, new, count)

    return replace


def _join(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def join(eval_ctx: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
        values = list(value)
        charge(_joined_size(str(d), values))
        return function(eval_ctx, values, d, attribute)

    return join


def _format(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def format(value: Any, *args: Any, **kwargs: Any) -> str:
        charge(_percent_format_size(str(value)))
        return function(value, *args, **kwargs)

    return format


def _indent(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def indent(s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        charge(_indent_size(width) * (str(s).count("\n") + 1))
        return function(s, width, first, blank)

    return indent


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return `value` as JSON, without the HTML escapes of Jinja's own filter."""
    _check_depth(value)
    # Every item may begin a line of its own.
    _, items = charge_contents(value)
    charge(items * _MAX_DEPTH * _indent_size(indent))
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _indent_size(indent: int | str | None) -> int:
    size = len(indent) if isinstance(indent, str) else int(indent or 0)
    if size > _MAX_INDENT:
        raise SecurityError("it asks for too much indentation")
    return max(size, 0)


def _check_depth(value: Any, left: int = _MAX_DEPTH) -> None:
    if isinstance(value, Mapping | list | tuple):
        if not left:
            raise SecurityError("it nests data too deeply")
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_depth(item, left - 1)


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: Any) -> None:
    charge_contents(message)
    raise TemplateRefusal(str(message))


def _strftime_now(format: str) -> str:
    if len(format) > _MAX_WIDTH or _TIME_FORMAT_WIDTH.search(format):
        raise SecurityError(_TOO_WIDE)
    return datetime.now().astimezone().strftime(format)

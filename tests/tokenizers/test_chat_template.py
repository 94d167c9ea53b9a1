"""`ChatTemplate` against transformers, and with templates that attack."""

import copy
import json
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from nextword.errors import PresetError
from nextword.tokenizers import ChatTemplate
from trained_tokenizers import CHAT_ML

USER = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be <b>brief</b>. "},
    {"role": "user", "content": "  What is 'x' & \"y\"?\n"},
    {"role": "assistant", "content": "Nothing.", "tool_calls": None},
    {"role": "user", "content": "你好 👩‍👩‍👧‍👦"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "It's <sunny> & warm — é",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
HEADERS = """{%- if tools %}
    {{- '<|system|>' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n" + tool | tojson }}
    {%- endfor %}
{%- endif %}
{% set ns = namespace(turn=0, last=none) %}
{% for message in messages %}
    {%- set content = message.content | trim %}
    {%- if message.role == 'system' and loop.first %}
        {%- set ns.last = content %}
        {%- continue %}
    {%- endif %}
    {%- if loop.index0 > 10 %}{% break %}{% endif %}
    {%- set ns.turn = ns.turn + 1 %}
    {{- bos_token if loop.first }}<{{ message['role'] | upper }}:{{ ns.turn }}/{{ loop.length }}>
{{ content.split("'")[0] ~ '|' ~ (content[1:] | replace('o', '0')) }}
    {% if not loop.last %}{{ loop.nextitem.role }}{% endif %}
{% endfor %}
{{ ns.last or 'none' }}{{ undefined_thing }}{{ "%s-%03d" % (ns.turn, 7) }}{{ 2 ** 5 * 3 % 7 }}
"""
MACROS = """{%- macro turn(message, name="x") -%}
<{{ name }}>{{ message.content }}{{ caller() if caller }}</{{ name }}>
{%- endmacro -%}
{% for message in messages | selectattr('role', 'ne', 'system') | list %}
{% generation %}{% set inner = 'kept inside' %}
{{ turn(message, name=message.role) }}{% endgeneration %}
{% endfor %}
{{ inner }}|{{ messages | map(attribute='role') | unique | join(', ') }}|{{ messages | length }}
{{ dict(a=1, b='é') | tojson }}{{ ["<", "&"] | tojson }}{{ 'a,b'.split(',') | join('-') }}
{{ "{} {:>5}".format("a", "b") }}{{ 'abc' | indent(2, first=true) }}{{ messages[0] | tojson }}
{% filter upper %}loud{% endfilter %}{{ messages[::-1][0].role }}{{ messages[-1]['content'] }}
"""


@pytest.mark.parametrize("source", [CHAT_ML, HEADERS, MACROS])
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_text_equals_that_of_transformers(source, prompt, tools):
    messages = [{k: v for k, v in message.items() if v is not None} for message in TALK]
    expected, _ = render_jinja_template(
        [messages],
        chat_template=source,
        tools=tools,
        add_generation_prompt=prompt,
        bos_token="<s>",
    )
    text = ChatTemplate(source).render(
        TALK, tools=tools, add_generation_prompt=prompt, special_tokens={"bos_token": "<s>"}
    )
    assert text == expected[0]


def test_the_date_is_todays():
    template = ChatTemplate("{{ strftime_now('%Y-%m-%d %%') }}")
    assert template.render(USER) == time.strftime("%Y-%m-%d %%")


def test_variables_reach_the_template():
    template = ChatTemplate("{{ enable_thinking }} {{ documents }} {{ words | tojson }}")
    assert template.render(USER, enable_thinking=False, words=("a", "b")) == (
        'False None ["a", "b"]'
    )


def test_the_messages_are_copied():
    messages = copy.deepcopy(TALK)
    source = "{% for m in messages %}{% set m = dict(m, content='x') %}{% endfor %}"
    ChatTemplate(source).render(messages)
    assert messages == TALK


def test_one_template_in_many_threads():
    template = ChatTemplate(HEADERS)
    expected = template.render(TALK)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ChatTemplate(HEADERS).render(TALK), range(4)))
        results += pool.map(lambda _: template.render(TALK), range(16))
    assert set(results) == {expected}


LONG = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "yes"}] * 1000


def test_a_long_conversation_is_within_the_budget():
    source = (
        "{% set ns = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}{% endif %}"
        "{% if loop.last or messages | length > loop.index0 %}{{ m['role'] ~ m['content'] }}"
        "{% endif %}{% endfor %}"
    )
    text = ChatTemplate(source).render(LONG)
    assert text == "".join(m["role"] + m["content"] for m in LONG)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "messages must be a list of at least one message"),
        ([], "messages must be a list of at least one message"),
        ("Hello", "messages must be a list"),
        ({"role": "user", "content": "x"}, "messages must be a list"),
        (["Hello"], r"messages\[0\] must be a dict"),
        ([*USER, None], r"messages\[1\] must be a dict"),
        ([*USER, {"content": "x"}], r"messages\[1\] must have a 'role'"),
        ([{"role": 3, "content": "x"}], "must have a 'role'.*role=3"),
        ([{"role": "", "content": "x"}], "must have a 'role'"),
        ([{"role": "user"}], r"messages\[0\] must have a 'content'.*content=None"),
        ([{"role": "user", "content": 3}], "must have a 'content'.*content=3"),
        ([{"role": "user", "content": b"x"}], "a value of type bytes"),
        ([{"role": "user", "content": "x", "image": object()}], r"\['image'\] must be a value"),
        ([{"role": "user", "content": "x", 3: "x"}], "a value of type dict"),
        ([{"role": "user", "content": ["x", {"y": print}]}], r"\['content'\]\[1\]\['y'\]"),
    ],
)
def test_messages_of_another_form_are_refused(messages, message):
    with pytest.raises(ValueError, match=message) as caught:
        ChatTemplate(CHAT_ML).render(messages)
    assert not isinstance(caught.value, PresetError)


def test_messages_without_end_are_refused():
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested at most 64 deep"):
        ChatTemplate(CHAT_ML).render([{"role": "user", "content": endless}])


def test_a_call_of_a_tool_needs_no_content():
    messages = [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    template = ChatTemplate("{{ messages[0].tool_calls[0].name }}{{ 'content' in messages[0] }}")
    assert template.render(messages) == "fFalse"


@pytest.mark.parametrize(
    "name",
    ["tokenize", "bos_token", "conversation", "range", "raise_exception", "_private", "namespace"],
)
def test_names_that_are_not_free_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is not free to be a variable.*{name}=1"):
        ChatTemplate(CHAT_ML).render(USER, **{name: 1})


def test_the_template_may_refuse_messages():
    template = ChatTemplate("{{ raise_exception('Roles must\nalternate.') }}")
    with pytest.raises(
        ValueError, match=r"refuses these messages: Roles must alternate\."
    ) as caught:
        template.render(USER)
    assert not isinstance(caught.value, PresetError)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ messages",
        "{% endif %}",
        "{{ x | nosuchfilter }}",
        "{% generation %}",
        "{% include 'other' %}{% nosuchtag %}",
        "{{ " + "(" * 5_000 + ")" * 5_000 + " }}",
        "{{ " + "a." * 50_000 + "b }}",
        "{{ " + "a+" * 50_000 + "b }}",
        "{% if x %}" * 2_000 + "{% endif %}" * 2_000,
    ],
)
def test_broken_templates_are_refused(source):
    with pytest.raises(PresetError, match="chat template is broken: ") as caught:
        ChatTemplate(source).render(USER)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("source", [None, 3, b"x", ["x"], "x" * (1 << 17) + "x"])
def test_sources_that_are_no_template_are_refused(source):
    with pytest.raises(PresetError, match="must be a string of at most"):
        ChatTemplate(source)


UNDEFINED = [
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ ('{0.__class__.__init__}'|attr('format'))('') }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ (['x']|map(attribute='__class__')|first).__mro__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum(5) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.__subclasses__() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__class__}'.format_map({'0': ''}) }}",
    "{{ ['{0.__class__}']|map('attr', 'format')|first }}{{ ''.__class__() }}",
    "{{ messages.append('x') }}",
    "{{ messages[0].update(role='system') }}",
    "{{ messages[0].pop('role') }}",
    "{% set messages[0].role = 'x' %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 'x' %}",
    "{% set ns = namespace(__class__='x') %}{{ ns }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{% do 1 %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_leads_out_of_the_sandbox(source):
    messages = copy.deepcopy(USER)
    with pytest.raises(PresetError, match=r"^The model's chat template "):
        ChatTemplate(source).render(messages)
    assert messages == USER


@pytest.mark.parametrize("source", UNDEFINED)
def test_what_is_not_allowed_is_undefined(source):
    assert ChatTemplate(source).render(USER) == ""


BOMBS = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "loop over a filter": "{% for i in range(99999)|map('string') %}"
    "{% for j in range(99999)|list %}{% endfor %}{% endfor %}",
    "long body": "{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}",
    "long body in a block": "{% set x %}{% for i in range(99999) %}" + "x" * 10_000 + "{% endfor %}"
    "{% endset %}",
    "string times": "{{ 'a' * 10**9 }}",
    "times string": "{{ 10**9 * 'a' }}",
    "list times": "{{ ([0] * 10**9)|length }}",
    "constants": "{% set x = 'a' * 10**9 %}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "power of a variable": "{% set ns = namespace(x=9) %}{% for i in range(40) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubling with +": "{% set ns = namespace(x='a') %}{% for i in range(50) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling with ~": "{% set ns = namespace(x='a') %}{% for i in range(50) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling a list": "{% set ns = namespace(x=[1]) %}{% for i in range(50) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling in a block": "{% set ns = namespace(x='a') %}{% for i in range(50) %}"
    "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
    "doubling by replace": "{% set ns = namespace(x='a') %}{% for i in range(50) %}"
    "{% set ns.x = ns.x|replace('a', 'aa') %}{% endfor %}",
    "replace": "{{ ('a' * 100000)|replace('a', 'a' * 100000) }}",
    "replace nothing": "{{ ('a' * 100000)|replace('', 'a' * 100000) }}",
    "replace method": "{{ ('a' * 100000).replace('a', 'a' * 100000) }}",
    "join": "{{ range(99999)|join('a' * 1000000) }}",
    "join method": "{{ ('a' * 1000000).join(['b'] * 99999) }}",
    "join large items": "{{ (['a' * 1000000] * 99999)|join }}",
    "join large items by method": "{{ ''.join(['a' * 1000000] * 99999) }}",
    "list of lists": "{% set ns = namespace(x='ha') %}{% for i in range(12) %}"
    "{% set ns.x = [ns.x] * 10 %}{% endfor %}{{ ns.x }}",
    "list of lists as JSON": "{% set ns = namespace(x='ha') %}{% for i in range(12) %}"
    "{% set ns.x = [ns.x] * 10 %}{% endfor %}{{ ns.x|tojson }}",
    "list of lists as a string": "{% set ns = namespace(x='ha') %}{% for i in range(12) %}"
    "{% set ns.x = [ns.x] * 10 %}{% endfor %}{% if ns.x|string %}{% endif %}",
    "list of lists in %": "{% set ns = namespace(x='ha') %}{% for i in range(12) %}"
    "{% set ns.x = [ns.x] * 10 %}{% endfor %}{% if '%s' % ns.x %}{% endif %}",
    "list of lists in format": "{% set ns = namespace(x='ha') %}{% for i in range(12) %}"
    "{% set ns.x = [ns.x] * 10 %}{% endfor %}{% if '{}'.format(ns.x) %}{% endif %}",
    "dict of dicts": "{% set ns = namespace(x='ha') %}{% for i in range(24) %}"
    "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x }}",
    "% width": "{{ '%1000000000d' % 1 }}",
    "% width of a variable": "{{ '%*d' % (10**9, 1) }}",
    "% precision": "{{ '%.1000000000f' % 1.5 }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "format width": "{{ '{:1000000000}'.format(1) }}",
    "format width of a variable": "{{ '{:{}}'.format(1, 10**9) }}",
    "format many": "{{ ('{0}' * 100000).format('a' * 1000000) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "indent with text": "{{ ('a\n' * 100000)|indent('x' * 100000) }}",
    "tojson indent": "{{ [[1]]|tojson(indent=10**9) }}",
    "wordwrap": "{{ ('a ' * 100000)|wordwrap(1, wrapstring='x' * 100000) }}",
    "batch": "{{ [1]|batch(10**9, 0)|list|length }}",
    "slice": "{{ [1]|slice(10**9)|list|length }}",
    "strftime": "{{ strftime_now('%1000000000Y') }}",
    "slices": "{% set x = 'a' * 10000000 %}{% set ns = namespace(x=[]) %}"
    "{% for i in range(99999) %}{% set ns.x = ns.x + [x[1:]] %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "doubling recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "recursion of blocks": "{% block a %}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% for x in [[[]]] recursive %}{{ loop(x) }}{% endfor %}",
    "searching": "{% set x = 'a' * 10000000 %}{% for i in range(99999) %}{% if 'b' in x %}"
    "{% endif %}{% endfor %}",
    "comparing": "{% set ns = namespace(x='ha', y='ha') %}{% for i in range(30) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "comparing in a test": "{% set ns = namespace(x='ha', y='ha') %}{% for i in range(30) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x is eq(ns.y) }}",
    "sorting": "{% set ns = namespace(x='ha', y='ha') %}{% for i in range(30) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
    "{{ [ns.x, ns.y]|sort }}",
    "items of dicts": "{% set ns = namespace(x='ha') %}{% for i in range(24) %}"
    "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x.items() }}",
    "sum of lists": "{{ ([[0] * 10000] * 99999)|sum(start=[])|length }}",
    "output": "{% for i in range(300) %}{{ 'a' * 100000 }}{% endfor %}",
    "digits": "{{ ('9' * 1000000)|int }}{{ 10 ** 4000 }}",
}


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS)
def test_time_and_memory_are_bounded(source):
    start = time.thread_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PresetError, match=r"^The model's chat template "):
        ChatTemplate(source).render(USER)
    assert time.thread_time() - start < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000


def test_a_budget_is_for_one_rendering():
    template = ChatTemplate("{% for i in range(20000) %}{{ 'a' * 100 }}{% endfor %}")
    assert [len(template.render(USER)) for _ in range(4)] == [2_000_000] * 4


def test_json_that_a_template_writes_is_json():
    text = ChatTemplate("{{ x | tojson }}").render(USER, x={"a": [1, None, "<é>"]})
    assert text == '{"a": [1, null, "<é>"]}'
    assert json.loads(text) == {"a": [1, None, "<é>"]}

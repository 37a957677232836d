"""Chat templates: what they render, and what they may not do."""

from __future__ import annotations

import contextlib
import resource
import time

import numpy as np
import pytest

from quickbrown.text import sandbox
from quickbrown.text.template import OUTPUT, SECONDS, SOURCE, ChatTemplate, TemplateError, plain

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b> & 'you'"}]


def render(source: str, messages=HELLO, **options) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **options)


def test_a_usual_template():
    source = (
        "{{ bos_token }}\n"
        "{% for message in messages %}\n"
        "    {% if loop.first and message['role'] != 'system' %}\n"
        "{{ 'none' }}\n"
        "    {% endif %}\n"
        "{{ '<|' + message.role + '|>' ~ message.content | trim }}{{ eos_token if not loop.last }}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}\n"
        "<|assistant|>\n"
        "{%- endif %}\n"
    )
    text = "<s>\n<|system|>Be brief.</s>\n<|user|>Hi <b> & 'you'\n"
    assert render(source) == text + "<|assistant|>"
    assert render(source, add_generation_prompt=False) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[1:] | tojson }}", '[{"role": "user", "content": "Hi <b> & \'you\'"}]'),
        ("{{ {'a': ['é']} | tojson(indent=2) }}", '{\n  "a": [\n    "é"\n  ]\n}'),
        ("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ loop.length }}{% endfor %}", "2"),
        ("{% for m in messages %}{{ loop.revindex }}{{ loop.last }}{{ loop.nextitem is defined }};{% endfor %}",
         "2FalseTrue;1TrueFalse;"),
        ("{% for m in [] %}x{% else %}none{% endfor %}{% for x in missing %}x{% endfor %}", "none"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
        ("{% for m in messages if m.role == 'user' recursive %}{{ m.role }}{% endfor %}", "user"),
        ("{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "10"),
        ("{{ 'a-b'.replace('-', '+') }}{{ 'aXbX' | replace('X', '') }}", "a+bab"),
        ("{{ 'x,y'.split(',') | join(';') }}{{ '-'.join('ab') }}", "x;ya-b"),
        ("{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(1, true) }}", "a\n  b\n\n  c| a\n b"),
        ("{% set x %}[{{ bos_token }}]{% endset %}{{ x ~ 1 ~ none }}{{ 7 % 4 }}{{ 2 ** 3 }}{{ 'ab' * 2 }}",
         "[<s>]1None38abab"),
        ("{% set x | upper %}ab{% endset %}{{ x }}{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}", "AB12"),
        ("{{ strftime_now('%Y') | length }}{{ tools is none }}{{ undefined_thing is defined }}", "4TrueFalse"),
        ("{{ messages[0]['content'][:2] }}{{ messages[-1].role }}{{ messages | length }}", "Beuser2"),
        ("{% generation %}", None),
    ],
)  # fmt: skip
def test_the_language(source, text):
    if text is None:
        with pytest.raises(TemplateError, match="line 1"):
            render(source)
    else:
        assert render(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['datetime'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ messages[0].pop('role') }}",
        "{{ messages.__class__.__base__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{0.__class__}'.format_map({}) }}",
        "{{ (messages | map('attr', '__class__') | list)[0].x }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ ''.mro }}{{ messages.sort() }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ messages | selectattr('__class__') | list }}",
        "{{ messages | groupby('__class__') }}",
        "{{ messages | sort(attribute='__class__') }}",
        "{{ [''] | sum(attribute='__class__') }}",
        "{{ '' | attr('__cl' ~ 'ass__') }}",
        "{{ '' | attr('__class\\x5f_') }}",
        "{{ ''['__cl' + 'ass__'] }}",
        "{{ 1 .__class__ }}",
        "{{ none.__class__.__bases__ }}",
        "{{ nothing.__class__.__init__ }}",
        "{{ [].__reduce_ex__(2) }}",
        "{{ range.__self__ }}{{ dict.mro() }}",
        "{{ dict.fromkeys.__self__ }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ ''.join.__self__ }}",
        "{{ (messages | map('upper')).gi_frame }}",
        "{{ (messages | map('upper')).throw(1) }}",
        "{{ {}.keys().mapping }}",
        "{% for m in messages %}{{ loop.__init__.__globals__ }}{% endfor %}",
        "{% for m in messages %}{{ loop._iterable.append(1) }}{% endfor %}",
        "{% macro f() %}{{ caller._func.__globals__ }}{% endmacro %}{% call f() %}{% endcall %}",
        "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
        "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
        "{{ ('{0.__class__}' | escape).format(1) }}",
        "{{ ('%(a)s' | safe) % {'a': 1} }}",
        "{{ messages | map('attr', 'update') | list }}{{ (messages[0] | attr('clear'))() }}",
        "{% set messages[0].role = 'x' %}",
        "{% set ns = namespace(a=1) %}{{ ns._Namespace__attrs.x }}{{ ns.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ cycler(1)._Cycler__x.y }}",
        "{{ 'a'.encode().decode() }}",
        "{% from 'x' import y %}",
    ],
)
def test_escapes_are_refused(source):
    with pytest.raises(TemplateError):
        render(source)
    assert HELLO[0] == {"role": "system", "content": "Be brief."}


DOUBLE = "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}BODY{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10000000) %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 1000000000 * 'a' }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.center(10000000000) }}",
        "{{ 'a'.zfill(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{{ 'a\nb' | indent(1000000000) }}",
        "{% set a = 'a' * 1000000 %}{{ a | replace('a', a) }}",
        "{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}",
        "{% set a = 'a' * 1000000 %}{{ a.join(range(100000)) }}",
        "{% set a = 'a' * 1000000 %}{{ range(100000) | join(a) }}",
        "{% set a = 'a' * 1000000 %}{% for i in range(10) %}{{ a }}{% endfor %}",
        DOUBLE.replace("BODY", "{% set ns.x = ns.x ~ ns.x %}"),
        DOUBLE.replace("BODY", "{% set ns.x = ns.x + ns.x %}"),
        DOUBLE.replace("BODY", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{{ '(' * 3 }}{{" + "(" * 20000,
        "x" * (SOURCE + 1),
        "{{ lipsum(100) }}",
    ],
)
def test_what_would_not_end_or_fit_is_refused_at_once(source):
    start = time.monotonic()
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert time.monotonic() - start < 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ],
)
def test_time(source, monkeypatch):
    monkeypatch.setattr("quickbrown.text.template.SECONDS", 0.2)
    with pytest.raises(TemplateError, match="takes longer than"):
        render(source)


def test_output_has_a_limit():
    long = [{"role": "user", "content": "x" * OUTPUT}]
    assert len(render("{{ messages[0].content }}", long)) == OUTPUT
    with pytest.raises(TemplateError, match="writes more than"):
        render("{{ messages[0].content }}!", long)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{{ raise_exception('roles must alternate!') }}", "refuses these messages: roles must alternate!"),
        ("a\n{% if x %}", "line 2 of the chat template is wrong"),
        ("{{ 1 / 0 }}", "fails: ZeroDivisionError"),
        ("{{ x.y.z }}", "fails: 'x' is undefined"),
        ("{{ 'a' | nothing }}", "No filter named 'nothing'"),
        ("{{ ''.__class__ }}", "not allowed"),
    ],
)
def test_sentences(source, sentence):
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ("hi", "messages must be a list of dicts with role and content, not str"),
        ({"role": "user", "content": "x"}, "must be a list"),
        (None, "not NoneType"),
        ([], "at least one"),
        (["hi"], "message 0 must be a dict"),
        ([{"role": "user"}], "message 0 has no content"),
        ([HELLO[0], {"content": "x"}], "message 1 has no role"),
        ([{"role": "user", "content": [{"type": "text"}]}], "content of message 0 must be a str, not list"),
        ([{"role": "user", "content": None}], "must be a str, not NoneType"),
        ([{"role": "tool", "content": "x"}], "role of message 0 is 'tool'; the roles are system, user, assistant"),
        ([{"role": "user", "content": "x", "name": "y"}], "message 0 has 'name'"),
    ],
)
def test_messages_are_checked(messages, sentence):
    with pytest.raises(ValueError, match="message") as caught:
        ChatTemplate("{{ messages }}").render(messages)
    assert sentence in str(caught.value)
    assert not isinstance(caught.value, TemplateError)


def test_the_time_is_not_left_behind():
    """Each render sets its own deadline, and a failed one takes it away too."""
    for source in ("x", "{{ 1 / 0 }}"):
        with contextlib.suppress(TemplateError):
            render(source)
        with pytest.raises(LookupError):
            sandbox.deadline.get()


def fill(source: str, **variables):
    return ChatTemplate(source).fill(variables)


def test_any_variable_can_be_filled_in():
    text, _ = fill(
        "{{ tools | tojson }}{{ documents is none }}{{ mood }}{{ bos_token }}", tools=[{"a": (1, None)}], mood=2.5
    )
    assert text == '[{"a": [1, null]}]True2.5'
    assert ChatTemplate("{% set a = b %}{{ a ~ c.d }}{{ raise_exception }}").mentions >= {"b", "c"}


def test_json_as_asked():
    assert fill("{{ x | tojson(separators=(',', ':'), sort_keys=true) }}", x={"b": 1, "a": "é"})[0] == '{"a":"é","b":1}'
    assert fill("{{ x | tojson(ensure_ascii=true) }}{{ x | tojson(true) }}", x="é")[0] == '"\\u00e9"' * 2


@pytest.mark.parametrize(
    ("source", "marked"),
    [
        ("{% for m in x %}<{% generation %}{{ m }}{% endgeneration %}>{% endfor %}", ["ab", "cd"]),
        ("{% generation %}{% endgeneration %}", [""]),
        ("é{%- generation -%} x {%- endgeneration -%} y", ["x"]),
        ("{% for m in x %}{% if loop.last %}{% generation %}{{ m }}{{ m }}{% endgeneration %}{% endif %}{% endfor %}",
         ["cdcd"]),
    ],
)  # fmt: skip
def test_generation_blocks_are_marked(source, marked):
    text, spans = fill(source, x=["ab", "cd"])
    assert [text[start:end] for start, end in spans] == marked


class Loud(str):
    def upper(self):
        raise AssertionError("a template must not reach this")


def test_what_a_template_touches_is_plain():
    """Subclasses have methods that nobody has checked: `write` of an open file, `tofile` of an array."""
    value = plain({"a": Loud("x"), "b": (True, 1, 2.5, None), "c": np.float32(0.5), "d": np.int64(3)}, "x")
    assert value == {"a": "x", "b": [True, 1, 2.5, None], "c": 0.5, "d": 3}
    assert type(value["a"]) is str
    assert fill("{{ x.upper() }}", x=Loud("ab"))[0] == "AB"
    endless: list = []
    endless.append(endless)
    for wrong, sentence in (
        (object(), "x holds a value of type object"),
        ([b"x"], "bytes"),
        (np.zeros(2), "ndarray"),
        (endless, "nested more than 64 deep"),
        (Loud, "type"),
    ):
        with pytest.raises(ValueError, match=sentence):
            fill("x", x=wrong)


TWICE = "{% set ns = namespace(x=['aaaaaaaa']) %}{% for i in range(60) %}{% set ns.x = BODY %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        TWICE.replace("BODY", "[ns.x, ns.x]") + "{{ ns.x }}",
        TWICE.replace("BODY", "(ns.x, ns.x)") + "{{ ns.x | string | length }}",
        TWICE.replace("BODY", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}",
        TWICE.replace("BODY", "[ns.x] * 2") + "{{ ns.x }}",
        TWICE.replace("BODY", "[ns.x] + [ns.x]"),
        TWICE.replace("BODY", "dict(a=ns.x, b=ns.x)"),
        "{% set a = 'a' * 4000000 %}{{ [a] * 4000000 }}",
        "{% set a = 'a' * 4000000 %}{{ [a] * 100 | join(a) }}",
        "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ [1] | slice(1000000000) | list }}",
        "{{ [1, 2] | tojson(separators=('a' * 1000, 'b')) }}",
    ],
)
def test_values_that_grow_in_few_steps_are_refused_at_once(source):
    """Lists of one list are small in memory and huge when they are written, and so is what they are compared with."""
    start = time.monotonic()
    with pytest.raises(TemplateError):
        render(source)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(__call__=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% set ns = namespace({'_x': 1}) %}",
    ],
)
def test_namespaces_take_no_names_of_pythons(source):
    with pytest.raises(TemplateError, match="a namespace cannot have"):
        render(source)


A = "{% set a = 'a' * 4000000 %}"  # nearly all that a value may have
LISTS = "{% set l = [[1]] * 300000 %}"


@pytest.mark.parametrize(
    "source",
    [
        A + "{{ 'x' ~ a" + " ~ a" * 30000 + " }}",  # 120 GB at once
        A + "{% set x %}" + "{{ a }}" * 30000 + "{% endset %}",
        A + "{% macro f() %}" + "{{ a }}" * 30000 + "{% endmacro %}{{ f() }}",
        A + "{% macro f() %}{% for i in range(100000) %}{{ a }}{% endfor %}{% endmacro %}{{ f() }}",
        A + "{% filter upper %}{% for i in range(100000) %}{{ a }}{% endfor %}{% endfilter %}",
        A + "".join(f"{{% set a{i} = a | upper %}}" for i in range(9000)),  # 36 GB in variables
        A + "".join(f"{{% set a{i} = a[1:] %}}" for i in range(9000)),
        A + "{% set ns = namespace(x=0) %}{% for i in range(100000) %}"
        "{% set ns.x = namespace(before=ns.x, a=a ~ i) %}{% endfor %}",
        A + "{% macro f(n) %}{% set b = a ~ n %}{% set c = b | upper %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        A + "{{ [0] * 900000 | map('default', a, true) | list }}",
        A + "{{ range(100000) | map('replace', '0', a) | join }}",
        A + "{{ ('a' * 100000).translate({97: a}) }}",
        A + "{{ 'a'.encode().ljust(10000000000) }}",
        "{{ (5).to_bytes(10000000000, 'big') }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ 5.5 | round(1000000000, 'floor') }}",
        "{{ [2 ** 64 - 1] * 900000 }}",
        "{% set n = (2 ** 64) ** 1 %}{% set m = n * n * n * n * n * n * n * n %}{{ [m] * 900000 }}",
        "{{ strftime_now('%Y' * 1000000) }}",
        "{% for c in [cycler(*range(100000))] %}{% for i in range(100000) %}{{ c.items ~ i }}{% endfor %}{% endfor %}",
        "{{ joiner('a' * 10 ** 10) }}",
    ],
)  # fmt: skip
def test_memory_is_bounded_over_all_values(source):
    """Each of these makes tens of gigabytes of values that are small enough one by one, or makes one in one step."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(TemplateError):
        render(source)
    assert time.process_time() - start < SECONDS + 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB: 1 GiB


@pytest.mark.parametrize(
    "source",
    [
        LISTS + "{{ l | sum(start=[]) }}",  # the square of 300000
        A + "{{ (a ~ 'x').rfind('a' * 1000000 ~ 'b' ~ 'a' * 1000000) }}",
        A + "{{ a.rsplit('a' * 1000000 ~ 'b' ~ 'a' * 1000000) }}",
        A + "{{ ('b' * 4000000).strip(a[1:] ~ 'b') }}",
        A + "{{ ('b' * 4000000) | trim(a[1:] ~ 'b') }}",
        "{{ '<!---->' * 500000 | striptags }}{{ ('<!---->' * 500000) | striptags }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [[i * (2 ** 61 - 1), 1]] %}"
        "{% endfor %}{{ dict(ns.l) }}",  # all keys have one hash
        A + "{% set b = a[1:] ~ 'b' %}{% set c = a[1:] ~ 'c' %}" + "{% if b == c %}{% endif %}" * 9000,
        A + "{{ a is lower }}" * 15000,
        A + "{{ a | lower | length }}" * 9000,
        "{% set l = range(100000) | list %}" + "{{ l[1:] | length }}" * 12000,
        "{% for a in range(100000) if a % 100001 > 100001 %}{% endfor %}" * 4000,
        "{{ range(100000) | select('even')" + " | select('even')" * 300 + " | list }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% block x %}{{ self.x() }}{{ self.x() }}{% endblock %}",
        "{% macro f() %}" + "{{ caller() }}" * 2 + "{% endmacro %}" + "{% call f() %}" * 40 + "{% endcall %}" * 40,
        "{% set ns = namespace() %}{% set ns.x = ns %}{% macro f(n) %}{{ f(n.x) }}{% endmacro %}{{ f(ns) }}",
        "{% set ns = namespace(g=[1] | map('abs')) %}{% for i in range(100000) %}{% set ns.g = ns.g | map('abs') %}"
        "{% endfor %}{{ ns.g | list }}",  # 100000 iterators, each of which reads the one before
        "{{ " + "not " * 60000 + "1 }}",
        "{{ 1" + " + 1" * 60000 + " }}",
        "{{ x" + "[0]" * 60000 + " }}",
        "{{ 'a' " + "| upper " * 25000 + " }}",
        "{% if 1 %}" * 12000,
        "{{ " + "1" * 200000 + " }}",
        "{{ 0x" + "f" * 200000 + " }}",
        "{% for x in [1] %}" * 60 + "{% endfor %}" * 60,
    ],
)  # fmt: skip
def test_time_is_bounded_where_no_loop_is_seen(source, monkeypatch):
    """Work that grows faster than what it is done on, or that is written out instead of looped.

    Those that are written out take 5.5 s of a slow processor to be parsed and compiled; without bounds, minutes.
    """
    monkeypatch.setattr("quickbrown.text.template.SECONDS", 0.5)
    start = time.process_time()
    with pytest.raises(TemplateError):
        render(source)
    assert time.process_time() - start < 12


def test_what_real_templates_do_with_long_conversations_is_within_the_bounds():
    """200 messages of 500 characters, put together as slowly as templates do it."""
    long = [{"role": ("user", "assistant")[i % 2], "content": f"{i} " + "x" * 495} for i in range(200)]
    source = (
        "{% set ns = namespace(t='', l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}"
        "{% set ns.t = ns.t ~ (m.content | trim).split('</think>')[-1].lstrip('\\n') %}"
        "{% if messages[loop.index0:] | length and m.content.rfind('0') >= 0 %}.{% endif %}{% endfor %}"
        "{{ ns.t | length }}"
    )
    assert render(source, long).strip(".") == str(sum(len(m["content"]) for m in long))


def test_numbers_are_rounded_and_added_and_texts_trimmed_as_ever():
    source = (
        "{{ 2.567 | round(2) }} {{ 1234 | round(-2, 'floor') }} {{ [1, 2.5] | sum }} {{ [{'a': 3}] | sum('a', 1) }}"
    )
    assert render(source) == "2.57 1200.0 3.5 4"
    assert (
        render("{{ ' a ' | trim }}{{ 'xax' | trim('x') }}{{ dict({'a': 1}, b=2).b }}{{ [1, 2, 3][1:] }}") == "aa2[2, 3]"
    )

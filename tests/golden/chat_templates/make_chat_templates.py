"""Writes expected.json: what transformers renders the templates of this folder to, and what its Jinja makes of small snippets.

pip install transformers==5.24.0 jinja2==3.1.6; python make_chat_templates.py

The templates are those of the packages trl 1.16.0 (llama3, llama3_1, llama3_2, qwen2_5, qwen2_5_training, qwen3, qwen3_training, gemma2,
gemma3, phi3, phi3_training), axolotl 0.19.0 (chatml, mistral_v1, mistral_v3, phi4_reasoning, gemma_roles, falcon_h1), unsloth 2026.10.9
(zephyr, llama2, mistral, phi4; chat_templates.py) and of the model SmolLM2-135M-Instruct (smollm2), all under the Apache License 2.0.
"""
import datetime, glob, json, os
from transformers.utils import chat_template_utils as transformers_templates

here = os.path.dirname(os.path.abspath(__file__))
now = 1753600000  # 2025-07-27 07:06:40 UTC


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(now, datetime.timezone.utc)


transformers_templates.datetime = FixedTime


def merged(text, ranges):
    """Ranges of characters as ranges of UTF-8 bytes, those that touch as one, without empty ones."""
    result = []
    for first, last in ((len(text[:first].encode()), len(text[:last].encode())) for first, last in ranges if first < last):
        if result and result[-1][1] == first:
            result[-1][1] = last
        else:
            result.append([first, last])
    return result


def render(template, variables):
    """The text and the ranges of generation blocks, or None where Jinja raises."""
    try:
        compiled = transformers_templates._cached_compile_jinja_template(template)
        blocks, ranges = [], []
        with compiled.environment.activate_tracker(blocks, ranges):
            for block in compiled.generate(**variables):
                blocks.append(block)
        return "".join(blocks), merged("".join(blocks), ranges)
    except Exception:
        return None


user = lambda text: {"role": "user", "content": text}
assistant = lambda text: {"role": "assistant", "content": text}
system = lambda text: {"role": "system", "content": text}
weather = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a \"city\" <now>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "such as Zürich"}, "days": {"type": "integer"}},
    "required": ["city"]}}}
call = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "x": [1.5, None, True, -0.0001, 1e22]}}}]}
answer = {"role": "tool", "content": "{\"temperature\": 21}", "name": "get_weather", "tool_call_id": "call00001"}
conversations = [
    {"messages": [user("Hello there")], "add_generation_prompt": True, "variables": {}},
    {"messages": [system("Be brief."), user("Hi"), assistant("Hello! "), user(" What is 2 < 3?\n")], "add_generation_prompt": True, "variables": {}},
    {"messages": [user("Hi"), assistant("Hello!"), user("日本語 ünï 🙂 \t x"), assistant("  spaced  \n\n")], "add_generation_prompt": False,
     "variables": {"enable_thinking": False, "date_string": "1 Jan 2025"}},
    {"messages": [user("Weather?"), call, answer, assistant("<think>\nhm\n</think>\n\n21 degrees")], "add_generation_prompt": False,
     "variables": {"tools": [weather]}},
    {"messages": [system("Tools!"), user("Weather?")], "add_generation_prompt": True, "variables": {"tools": [weather], "enable_thinking": True}},
    {"messages": [user("one"), user("two")], "add_generation_prompt": True, "variables": {}},
]
snippets = r"""
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 1.5e3 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** -1 }} {{ 1 / 3 }} {{ 10 // 3.0 }} {{ true + true }} {{ 1_000 }} {{ 100000000000000000000.0 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == 1.0 == true }} {{ none == none }} {{ 'x' != 1 }}
{{ 'a' 'b' "c" }} {{ 'a' ~ 1 ~ none ~ true ~ x }} {{ 'ab' * 3 }} {{ [1] * 2 + [2] }} {{ (1,) + (2, 3) }} {{ () }} {{ (1) }}
{{ not x is defined }} {{ x is not defined }} {{ 1 + 1 is odd }} {{ (1 + 1) is even }} {{ 3 is divisibleby 3 }} {{ 'a' in 'abc' }} {{ 1 not in [1] }}
{{ 'a' if false }}|{{ 'a' if true else 'b' }}|{{ 'a' if x else 'b' if y else 'c' }}|{{ x or 'd' }}|{{ 1 and 0 or 2 }}
{{ {'a': 1, 'b': [1, 'x', none, true, 2.0], 3: {}} }} {{ {'a': 1}['a'] }} {{ {'a': 1}.a }} {{ {1: 2}[1] }} {{ {'a': 1, 'a': 2} }}
{{ [1, 2, 3][0] }} {{ [1, 2, 3][-1] }} {{ [1, 2, 3][5] }}|{{ [1, 2, 3][1:] }} {{ [1, 2, 3][::-1] }} {{ [1, 2, 3][-2:5:1] }} {{ 'hello'[1:3] }} {{ 'héllo'[1] }} {{ 'hello'[::-2] }}
{{ [1,2,3,4,5][3:0:-1] }} {{ [1,2,3][10:] }} {{ [1,2,3][:-10] }} {{ [1,2,3][-10:2] }} {{ [1,2,3][-10::-1] }} {{ 'abc'[5:1:-1] }} {{ (1,2,3)[:2] }}
{{ "q'q" ~ ['q\'q', 'd"d', 'b\\s', 'n\nt\t', 'é', '\x07', '\u00e9\U0001F642', "a'b\"c"] }}
{{ 'a\d\'\"' }} {{ "tab\there" }}
{{ x }}|{{ x.y }}
{{ x['y'] }}
{{ none.y }}|{{ 'abc'.y }}|{{ 3.y }}
{{ none.y.z }}
{{ 'abc'['upper']() }} {{ {'items': 1}.items is callable }} {{ {'a': 1}['items'] is callable }} {{ ' a b  c '.split(none, 1) }}
{{ {'items': 1}['items'] }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}['get']('a') }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'héy' %}[{{ c }}]{% endfor %}
{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for i in [1, 2, 3, 4] if i is even %}{{ i }}{{ loop.length }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{{ loop.cycle('a', 'b') }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for i in none %}{% endfor %}
{% for i in x %}{% else %}undefined is empty{% endfor %}{{ x | length }}{{ x is iterable }}{{ x is sequence }}{{ x | list }}{{ 'a' in x }}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(a=1, b=[]) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.c is defined }}{{ ns['a'] }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set c = [] %}{% set c = c + [1] %}{{ c }}
{% set a, b = [1, 2, 3] %}
{% set block %}  in {{ 1 }} {% endset %}[{{ block }}]{% set trimmed | trim | upper %} in {% endset %}[{{ trimmed }}]{% filter upper | replace('A', 'b') %}abc{% endfilter %}
{% macro f(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(c=1, a=5) }} {{ f() }}|{{ f(1) | length }}
{% macro f(a) %}{% if a > 0 %}{{ a }}{{ f(a - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{% macro g() %}{{ y }}{% endmacro %}{% set y = 4 %}{{ g() }}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{% endmacro %}{{ f(b=2) }}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}
{{ '  a b '|trim }}|{{ 'xaxx'|trim('x') }}|{{ 5|trim }}|{{ none|trim }}|{{ x|trim }}|{{ '\u00a0\u3000a\u2003'|trim }}
{{ 'hello World'|upper }} {{ 'Hello'|lower }} {{ 'hello world-foo (bar)'|title }} {{ 'hELLO'|capitalize }} {{ 'it\'s a b'.title() }} {{ 'abc dEF'.capitalize() }}
{{ 'aXbXc'|replace('X', '-') }} {{ 'aXbXc'|replace('X', '-', 1) }} {{ 'abc'.replace('', '-') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 5|replace(5, 6) }}
{{ [1, 'a', none]|join(', ') }} {{ [1, 2]|join }} {{ [{'a': 1}, {'a': 2}]|join('+', attribute='a') }} {{ '-'.join(['a', 'b']) }} {{ {'a': 1}|join }}
{{ [1, 2]|first }} {{ [1, 2]|last }} {{ []|first }} {{ 'abc'|first }} {{ 'abc'|last }} {{ 'abc'|list }} {{ {'a': 1}|list }} {{ {'b': 1}|first }}
{{ 'abc'|reverse }} {{ [1, 2]|reverse|list }} {{ [3, 1, 2]|sort }} {{ ['b', 'A']|sort }} {{ ['b', 'A']|sort(case_sensitive=true) }} {{ [3, 1]|sort(reverse=true) }} {{ ['a', 'A', 'b']|unique|list }}
{{ [1, 5, 2]|max }} {{ [1, 5, 2]|min }} {{ [1, 2]|sum }} {{ [{'a': 2}]|sum(attribute='a') }} {{ -3|abs }} {{ (-3)|abs }} {{ 2.5|round }} {{ 3.7|int }} {{ '12'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ ' 4.6 '|int }} {{ '1.5'|float }} {{ 3|float }} {{ 2|round }} {{ 2.2|round(method='ceil') }}
{{ [{'a': {'b': 1}}, {'a': {'b': 2}}]|map(attribute='a.b')|list }} {{ ['a', 'b']|map('upper')|join }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ [0, 1]|select|list }} {{ [{}, {'a': 1}]|map(attribute='a', default=7)|list }}
{{ [{'r': 'u', 'c': 1}, {'r': 's'}]|selectattr('r', 'equalto', 'u')|list }} {{ [{'r': 'u'}, {'r': 's'}]|rejectattr('r', 'eq', 'u')|map(attribute='r')|list }} {{ [{'a': 1}, {}]|selectattr('a', 'defined')|list|length }} {{ [{'a': 0}]|selectattr('a')|list }}
{% if []|select %}true{% endif %}{% set g = [1, 2]|map('string') %}{{ g|join }}{{ g|join }}|
{{ {'b': 2, 'a': 1}|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(by='value', reverse=true) }} {{ {'a': 1}|items|list }} {{ x|items|list }}
{{ 'a\nb\n\nc'|indent }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent(1, blank=true) }} {{ 'a\nb'|indent('> ') }}
{{ x|default('d') }} {{ none|default('d') }} {{ ''|default('d', true) }} {{ ''|d('d', boolean=true) }} {{ x|default }}|{{ none|string }} {{ 1.0|string }} {{ true|string }}
{{ {'a': 'é"\\/\n\u2028<>&', 'b': [1, 2.5, none, true], 'c': {}, 'd': []}|tojson }} {{ {'a': [1, {}], 'b': {}}|tojson(indent=2) }} {{ 'é🙂'|tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4}|tojson }} {{ (1, 2)|tojson(indent='--') }} {{ 1e100|tojson }} {{ '\x7f\x01\b\f'|tojson }}
{{ x|tojson }}
{{ '{"a": 1}'|safe }} {{ ({'a': 1}|tojson|safe) ~ '<b>' }} {{ '<'|safe is string }} {{ '<'|safe|string }}
{{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b '.split() }} {{ 'a b c'.split(maxsplit=1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ 'a</t>b'.split('</t>')[-1] }}
{{ ' a '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\n\na\n'.lstrip('\n').rstrip('\n') }}|{{ 'abcba'.strip('ab') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcab'.find('b') }} {{ 'abcab'.rfind('b') }} {{ 'abc'.find('z') }} {{ 'ababa'.count('ab') }} {{ 'abc'.removeprefix('a').removesuffix('c') }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'a1'.isalpha() }} {{ ' '.isspace() }} {{ 'éa'.find('a') }}
{{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.0 is float }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ {} is iterable }} {{ 1 is iterable }} {{ none is none }} {{ true is true }} {{ 1 is true }} {{ false is boolean }} {{ range is callable }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is in [1] }} {{ 1 is eq 1 }} {{ 2 is gt 1 }} {{ none is sameas none }} {{ 'trim' is filter }} {{ 'odd' is test }} {{ 1 is not none }} {{ [] is not mapping }}
{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=3) }} {{ range(0)|list }}
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %B %Y, %A %b %a %H:%M:%S %j %%') }}
{{ raise_exception('no') }}
{{ 1 + 'a' }}
{{ 'a' + none }}
{{ 'a' + x }}
{{ [1]|length + 1 }}{{ 1|length }}
{{ 1 / 0 }}
{{ x() }}
{{ 'a'() }}
{{ 1 < 'a' }}
{{ 'a' in 1 }}
{{ [].append(1) }}
{{ {}.update({'a': 1}) }}
{% set a.b = 1 %}
{{ 'a' | nosuchfilter }}
{{ 'a' is nosuchtest }}
{{ range(1000000) }}
{% nosuchtag %}
{% if true %}
{{ 1
{{ }}
{{ 1 2 }}
{{ [1, }}
{{ 'abc }}
{% endif %}
{% for in x %}{% endfor %}
{{ a b }}
{# open
{% raw %}{{ x }}{% endraw %} {%- raw -%}  {% y %} {%- endraw +%}
{{ "}}" }}{{ {'a': {'b': 1}}}}{{ '%}' }}
a {#- gone -#} b {# gone #}
{%- set x = 1 -%} x {%+ if true %} y {% endif +%}
{{- 1 -}}  {{ 2 }}
{% generation %}abc{% endgeneration %}d{% if true %}{% generation %}é{{ 1 }}{% endgeneration %}{% endif %}
{{ true }} {{ True }} {{ none }} {{ None }} {{ false }} {{ 1.0 }} {{ -0.0 }} {{ 1e300 * 1e10 }} {{ 123456789.123456789 }} {{ 5e-324 }} {{ 1.0e15 }} {{ 123456789012345680.0 }}
{{ [1, 2, 3] == [1, 2, 3] }} {{ {'a': 1} == {'a': 1.0} }} {{ (1,) == [1] }} {{ x == y }} {{ x == none }} {{ 'a' == "a" }}
{{ x is undefined and y is undefined }} {{ not not 1 }} {{ not 1 == 2 }} {{ 1 if 0 else 2 if 0 else 3 }} {{ 'a' ~ 'b' in 'abc' }} {{ 1 ~ 2 * 3 ~ 4 }} {{ -1 ~ 2 }} {{ 'ab'[0] ~ 'c'|upper }}
{{ 'x' 'y'|upper }} {{ [1, 2, 3]|length - 1 }} {{ (1, 2)|length }} {{ [[1, 2], [3]]|map('length')|list }} {{ {'a': [1]}.a[0] }} {{ 'a.b'.split('.')|last|upper }}
{{ {'a': 1}.items()|list }} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ [1, 2].index(2) }} {{ [1, 1].count(1) }} {{ 'a' in {'a': 1} }} {{ {} | length }}
""".strip("\n").split("\n")
# Blanks and line ends, which the list above cannot hold one a line.
snippets += [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "  {{ 1 }}\n\n  {# c #}\nd\n\n", "x {% if true %} y {% endif %} z\n\n", "\r\na\r\n{% if 1 %}\r\nb\r\n{% endif %}\r\n",
    "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n", "{% for i in [1, 2] -%}\n  {{ i }}\n{%- endfor %}\n", "  {%+ if true %}x{% endif %}\n  y", "a {{- 1 }} \n {{ 2 -}} \n b",
    "{% if true +%}\nx{% endif %}", "  {#- c -#}\n  x", "{% raw %}\n a {% b %}\n  {% endraw %}\nc", "\n\n{% set x = 1 %}\n\n{{ x }}\n", "{{ 'line\\\njoined' }}|", "{% if true %}{{ 'a\nb' }}{% endif %}",
    "a\n\t{%- if true %}\n\tb\n\t{%- endif %}\n", "{{ 1 }}  {% if true %}\n  {% endif %}x", "{{ 1 }}\n  {% if true %}{% endif %}  {% if true %}\n{% endif %}x", ""]

expected = {"now": now, "conversations": conversations, "templates": {}, "snippets": []}
for path in sorted(glob.glob(os.path.join(here, "*.jinja"))):
    source = open(path, encoding="utf-8", newline="").read()
    rendered = [render(source, {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None, "messages": c["messages"],
                                "add_generation_prompt": c["add_generation_prompt"], **c["variables"]}) for c in conversations]
    expected["templates"][os.path.basename(path)[: -len(".jinja")]] = [r and {"text": r[0], "generated": r[1]} for r in rendered]
for snippet in snippets:
    rendered = render(snippet, {})
    expected["snippets"].append({"template": snippet, "text": rendered and rendered[0]})
with open(os.path.join(here, "expected.json"), "w", encoding="utf-8") as out:
    json.dump(expected, out, ensure_ascii=False, indent=1)

"""What Jinja makes of templates, set up as transformers does for chat templates.

    python test/golden/jinja_templates.py > test/golden/jinja_templates.json        transformers 5.24, jinja2 3.1.6

Prints {fields, cases: [{template, text}]}; text is null where Jinja refuses the template or fails.
"""

import json
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

FIELDS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  What is 1 + 2?\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n3", "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": [1.5, None, True, "é\"'"]}}]},
    ],
    "add_generation_prompt": True, "text": "Hello, wOrld! it's", "empty": "", "n": 7, "x": 2.5, "none": None, "yes": True, "no": False,
    "words": ["b", "a", "C", "a"], "numbers": [3, 1, 2], "map": {"b": 1, "a": {"k": "v"}}, "nothing": [], "html": "<a href=\"x\">'&</a>",
    "people": [{"name": "Ann", "age": 3, "on": True}, {"name": "bob", "age": 1, "on": False}, {"name": "Cy", "age": 2, "on": True}],
    "lines": "one\n\n  two\nthree\n", "nested": [[1, 2], [3]], "special": "a\tb\\c\x00\x7f\u200bé🤖'",
}
EXPRESSIONS = """
yes|no|none|[yes, none, "x"]|(1, 2)|(1,)|{"a": none, 2: "b"}|1.0|1e20|1e-7|0.1 + 0.2|-7 // 2|-7 % 3|7 % -3|7 / 2|2 ** 3|2 ** -1|1 == 1.0|1 == yes
"a" ~ 1 ~ none ~ yes|"a" + "b"|"a" * 3|"%s is %d" % ("a", 3)|"%05.2f" % x|[1] + [2]|"a" < "b"|[1, 2] == [1, 2]|{"a": 1} == {"a": 1}|1 < 2 < 3|not yes|yes and "x"|no or none
"a" in "abc"|"a" in words|"a" in map|none in [none]|[1, 2] in nested|3 not in numbers|"x" if no|"x" if no else "y"|undefined_thing|undefined_thing is defined|missing.x
words[0]|words[-1]|words[1:]|words[::-1]|words[:2]|text[1:4]|text[-1]|map["b"]|map.b|map["zz"]|map.a.k|map.get("q")|map.get("q", 3)|map.items()|map.keys()|map.values()|messages[0].role|messages[-1]["content"]
text.upper()|text.lower()|text.title()|text.capitalize()|text.split()|text.split(",")|text.split("o", 1)|text.rsplit("o", 1)|text.strip("H!s'")|text.lstrip("Hel")|text.rstrip("s")|text.startswith("Hel")|text.endswith(("s", "x"))
text.replace("o", "0")|text.replace("o", "0", 1)|text.find("w")|text.count("l")|text.index("w")|", ".join(words)|text.removeprefix("Hello")|text.removesuffix("s")|"7".zfill(3)|"ab".center(6)|"ab".ljust(4) ~ "|"|"a\nb\n".splitlines()
"12".isdigit()|"ab".isalpha()|" ".isspace()|"AB".isupper()|"ab".islower()|"{} and {b}".format(1, b=2)|"a-b-c".partition("-")|"a-b-c".rpartition("-")|"aXb".swapcase()|words.index("C")|words.count("a")
words.append("x")|map.update({"z": 1})|text.__class__|map.__len__()|messages.pop()
""".replace("\n", "|").split("|")
FILTERS = """
text|upper;text|lower;text|title;text|capitalize;"  a b  "|trim;"xxaxx"|trim("x");text|length;words|length;map|length;text|count;text|wordcount;text|reverse;words|reverse|list;words|first;words|last;nothing|first;text|first
words|join;words|join(", ");people|join(", ", attribute="name");numbers|join("-");[1, none, yes]|join(",");words|sort;words|sort(case_sensitive=true);words|sort(reverse=true);people|sort(attribute="age")|map(attribute="name")|list
words|unique|list;words|unique(case_sensitive=true)|list;numbers|sum;people|sum(attribute="age");numbers|min;numbers|max;words|min;words|list;text|list;map|list;map|items|list;map|dictsort;map|dictsort(reverse=true)
text|replace("o", "0");text|replace("o", "0", 1);html|e;html|escape;html|forceescape;html|safe;html|striptags;html|urlencode;text|format;"%s-%s"|format(1, "b");"%(a)s"|format(a=3);text|default("d");undefined_thing|default("d");undefined_thing|d("d");empty|default("d", true);none|default("d");none|default("d", boolean=true)
lines|indent;lines|indent(2);lines|indent(2, true);lines|indent(2, first=true, blank=true);lines|indent("> ");text|truncate(9);text|truncate(9, true);text|truncate(9, true, "-", 0);"aaa bbb ccc"|wordwrap(4);"ab"|center(6)
"12"|int;"x"|int;"x"|int(5);"3.7"|float;3.7|int;-3.7|int;"0x1A"|int(0, 16);"x"|float(1.5);yes|int;2.567|round;2.567|round(1);2.5|round;2.3|round(0, "ceil");2.7|round(method="floor");-3|abs;1.5|string;none|string;yes|string;words|string;map|string
words|tojson;map|tojson;map|tojson(indent=2);special|tojson;special|tojson(ensure_ascii=true);messages[2].tool_calls|tojson;none|tojson;yes|tojson;1.0|tojson;map|tojson(sort_keys=true);map|tojson(separators=(",", ":"));html|tojson;nothing|tojson(indent=2)
people|map(attribute="name")|list;people|map(attribute="zz", default="q")|list;words|map("upper")|list;words|map("replace", "a", "z")|join;people|selectattr("on")|map(attribute="name")|list;people|rejectattr("on")|map(attribute="name")|list;people|selectattr("age", "gt", 1)|map(attribute="name")|list
people|selectattr("name", "equalto", "Ann")|list|length;people|selectattr("name", "in", ["Ann", "Cy"])|list|length;numbers|select("odd")|list;numbers|reject("odd")|list;numbers|select("divisibleby", 3)|list;[none, 1, ""]|select|list;[none, 1]|reject("none")|list
numbers|batch(2)|list;numbers|batch(2, "-")|list;people|groupby("on")|length;map|attr("x");{"a": 1}|attr("a");text|attr("upper");numbers|slice(2)|list;map|xmlattr;text|nosuchfilter;x|pprint;"a"|filesizeformat;numbers|random_thing
""".replace("\n", ";").split(";")
TESTS = """
n is odd|n is even|n is divisibleby 7|n is divisibleby(2)|n is eq 7|n is equalto(7)|n is ne 3|n is gt 3|n is ge(7)|n is lt 3|n is le 7|n is greaterthan 3|n is lessthan(9)|n is number|n is integer|x is float|n is float|yes is integer|yes is boolean|text is string|n is string
words is sequence|words is iterable|map is mapping|words is mapping|n is iterable|text is sequence|none is none|n is not none|undefined_thing is defined|undefined_thing is undefined|text is undefined|yes is true|yes is false|no is not true|n is sameas 7|none is sameas none
"a" is in words|n is in [7, 8]|n is not in (1, 2)|"ab" is lower|"AB" is upper|text is lower|text.upper is callable|n is callable|"upper" is filter|"odd" is test|html is escaped|n is nosuchtest|n is divisibleby(0)|n is eq 7 and yes|n is eq 7 or no|words|length is eq 4|not n is odd|text is string and text is not none
messages[0].role is eq "system"|messages[0].content is startingwith "B"
""".replace("\n", "|")
TESTS = TESTS.replace("words|length", "words\0length").split("|")
WHOLE = [
    "{% raw %}{{ x }}{% endraw %}", "a\n{% raw %}\n  {{ x }}\n{% endraw %}\nb", "a {%- raw -%} {{ x }} {%- endraw -%} b", "{% raw %}{% if %}{% endraw %}", "{{ '{% raw %}' }}", "a\n  {% raw %} q {% endraw %}  \nb",
    "{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "{% for i in range(5) %}{% if i is odd %}{% continue %}{% endif %}{{ i }}{% endfor %}",
    "{% for w in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}", "{% for w in words %}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in map %}{{ k }}{% endfor %}", "{% for x in nothing %}a{% else %}none{% endfor %}", "{% for c in text %}{{ c }}.{% endfor %}", "{% for m in messages if m.role != 'system' %}{{ m.role }}{{ loop.index }}{% endfor %}",
    "{% for p in people|sort(attribute='age') %}{{ p.name }}{% endfor %}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}", "{% for i in range(3) recursive %}{{ i }}{% endfor %}", "{% for w in words %}{{ loop.changed(w) }}{% endfor %}",
    "{% set a = 1 %}{% for i in range(3) %}{% set a = i %}{% endfor %}{{ a }}", "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set t %}x{{ n }}y{% endset %}{{ t|upper }}", "{% set t | upper %}abc{% endset %}{{ t }}",
    "{% macro f(a, b=2, *args, **kwargs) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}", "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}in{% endcall %}", "{% filter upper %}abc{% endfilter %}", "{% with a = 1 %}{{ a }}{% endwith %}", "{% if no %}a{% elif yes %}b{% else %}c{% endif %}",
    "a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}  \n  b\n  {% endif %}  \nc", "a\n  {%- if yes -%}\n b \n{%- endif %}\nc", "{{- 'a' -}}  b", "  {#- c -#}  x {# y #}\nz", "a\n  {# c #}\nb", "x\n", "x\n\n", "{{ 'x' }}\n", "{%+ if yes %}a{% endif %}", "  {%+ if yes %}a{% endif %}",
    "{% generation %}x{{ n }}{% endgeneration %}", "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}", "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first | trim }}", "{{ raise_exception('no') }}", "{{ strftime_now('%%') }}", "{{ range(3) }}", "{{ range(3)|list }}", "{{ dict(a=1) }}",
    "{{ messages[2].content.split('</think>')[-1].lstrip('\\n') }}", "{{ messages[2].content.split('</think>')|last|trim }}", "{{ (messages|length - 1) }}", "{{ loop }}", "{{ namespace(a=1).a }}", "{{ joiner }}", "{% set j = joiner(',') %}{{ j() }}a{{ j() }}b", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}", "{{ lipsum }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% block a %}x{% endblock %}",
    "{{ 'a' 'b' }}", "{{ \"it's\" }} {{ 'q\"' }} {{ 'n\\n' }} {{ '\\u00e9\\x41' }}", "{{ [1, 'a', \"it's\", none, 2.0, true] }}", "{{ {'a': [1, {'b': none}]} }}", "{{ ('a',) }}", "{{ 1_000 }}", "{{ 0x10 }}", "{{ 1e3 }}", "{{ -n|abs }}", "{{ n.real }}", "{{ (1, 2)[0] }}", "{{ 'abc'[1] }}", "{{ text[100] }}", "{{ words[9] }}", "{{ none.x }}", "{{ undefined_thing.x }}", "{{ undefined_thing + 'a' }}", "{{ none + 'a' }}", "{{ 'a' + 1 }}", "{{ 'a' ~ undefined_thing }}", "{{ words + 'a' }}", "{{ undefined_thing() }}", "{{ n() }}",
    "{% for x in undefined_thing %}a{% endfor %}", "{% for x in none %}a{% endfor %}", "{% if undefined_thing %}a{% else %}b{% endif %}", "{{ undefined_thing|length }}", "{{ none|length }}", "{{ undefined_thing|upper }}", "{{ n|upper }}", "{{ none|upper }}|{{ none|trim }}", "{{ special }}", "{{ [special] }}", "{{ '%' }}", "{{ '{{' }}", "{% if n > 3 and (x < 3 or no) %}ok{% endif %}", "{{ n if n is defined and n is not none else 'd' }}", "{{ 'yes' if 'x' is in 'xyz' }}", "{{ messages[1:] | length }}", "{{ messages[:-1][-1].role }}",
]
NONE = """
none|default("d");{"a": none}.a;{"a": none}["a"];{"a": none}.get("a", 3);{"a": none}.b is defined;{"a": none}.a is defined;[none]|first;[none, none]|last;"x"|int(none);undefined_thing|default(none);"x"|float(none);none|join;[none]|join("-");[none][0]
none == undefined_thing;none|list;none|int;none|float;none|e;[none]|tojson;{"a": none}.items();{none: 1};none in {"a": none}.values();[none]|map("default", "d")|list;(none or "x");(none and "x");"%s" % none;"{}".format(none);none|length;not none
people|map(attribute="none_such")|list|length;{"a": {"b": none}}|tojson;messages|map(attribute="tool_calls")|list|length;text.split(none);text.replace("l", "L", -1);"aaa".replace("", "-");"aaa".replace("", "-", 2);"aXbXc".replace("X", "-", 1);"abc"|replace("", "-", 1)
""".strip().replace("\n", ";").split(";")
WHOLE += [
    "{% set a = none %}{{ a }}{% if a is none %}n{% endif %}", "{% macro f(a=1) %}{{ a }}{% endmacro %}{{ f(none) }}{{ f() }}", "{% for x in [none, 1] %}{{ x }}{{ loop.previtem }}{{ loop.cycle(none, 2) }}{% endfor %}", "{% set ns = namespace(a=none) %}{{ ns.a }}{{ ns.b }}", "{% with a = none %}{{ a }}{% endwith %}",
    "{% set a = 1 %}{% with a = none %}{{ a }}{% endwith %}{{ a }}", "{% for a in [none] %}{{ a }}{% else %}e{% endfor %}", "{% if messages[1].tool_calls %}a{% else %}b{% endif %}", "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for t in m.tool_calls %}{{ t.name }}{{ t.arguments | tojson }}{% endfor %}{% else %}{{ m.content | trim }}{% endif %}|{% endfor %}",
    "{% for i in range(3) %}a{% if i == 1 %}b{% continue %}{% endif %}c{% endfor %}", "{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}", "{% set x = [] %}{% for w in words %}{% set x = x + [w] %}{% endfor %}{{ x }}", "{% if yes %}{% set q = 3 %}{% endif %}{{ q }}",
    "{% set m = messages | selectattr('role', 'equalto', 'user') %}{{ m | list | length }}{{ m | list | length }}", "{% if messages | selectattr('role', 'equalto', 'nobody') %}always{% endif %}", "{{ (messages | map(attribute='role') | list)[1] }}", "{{ messages | map(attribute='role') | join(',') | upper }}", "{{ 'a\tb' | e }}", "{{ '\\n' }}", "{{ \"\\d\" }}",
]
ESCAPED = """
html|safe|e;html|e|e;html|escape|escape|e;html|e|forceescape;html|forceescape|e;html|safe|upper|e;html|safe|trim|escape;html|e is escaped;html|safe is escaped;html|upper is escaped;(html|e) + "<";"<" + (html|e);"<" + (html|safe) + html;(html|e) ~ "<"
html|safe|replace("a","<")|e;html|tojson|safe;html|tojson|e;html|safe|length;html|safe|lower|title|e;(html|safe)[0:5]|e;(html|safe)[0]|e;html|safe|string|e;((html|safe) * 2)|e;html|safe|indent|e;html|safe|default("x")|e;html|safe|truncate(5)|e;html|safe|capitalize|e
html|safe|center(60)|e;html|safe|reverse|e;html|safe|list|e;html|safe|first|e
""".strip().replace("\n", ";").split(";")
cases = [f"{{{{ {text.strip()} }}}}" for text in EXPRESSIONS + [f.replace("\0", "|") for f in FILTERS + TESTS + NONE + ESCAPED] if text.strip()] + WHOLE


def render(template):
    try:
        return _compile_jinja_template(template).render(**FIELDS)
    except Exception:
        return None


found = [{"template": template, "text": render(template)} for template in cases]
# Addresses of objects are another one each time.
json.dump({"fields": FIELDS, "cases": [case for case in found if " at 0x" not in (case["text"] or "")]}, sys.stdout, indent=0)
print()

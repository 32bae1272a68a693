/**
 * Templates from elsewhere: what they print is what jinja2 prints as transformers sets it up
 * (test/golden/jinja_templates.py), or they are refused; and none of them holds up or ends the process.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { Template } from '../../src/config/template.js';
import { golden } from '../cli/troupe.js';

const source = { where: 'model', name: 'the chat template' };
const { fields, cases } = JSON.parse(readFileSync(golden('jinja_templates.json'), 'utf8')) as {
  fields: Record<string, unknown>;
  /** text is null where Jinja fails. */
  cases: { template: string; text: string | null }[];
};

function outcome(template: string): string | TroupeError {
  try {
    return new Template(template, source).render(fields);
  } catch (error) {
    if (error instanceof TroupeError) return error;
    throw error;
  }
}

describe("of jinja2's templates", () => {
  const outcomes = cases.map(({ template, text }) => ({ template, text, found: outcome(template) }));

  it('none prints anything else', () => {
    const other = outcomes.filter(({ text, found }) => typeof found === 'string' && found !== text);
    expect(other).toEqual([]);
  });

  it('those that are not read here are few, and named', () => {
    const refused = outcomes.filter(({ text, found }) => text !== null && typeof found !== 'string');
    const expected = [
      '__class__',
      'striptags',
      'urlencode',
      'wordwrap',
      'groupby',
      'slice',
      'xmlattr',
      'pprint',
    ];
    expected.push('recursive', 'joiner', 'joiner', 'cycler', 'block');
    expect(refused.map(({ found }) => (found as TroupeError).message)).toEqual(
      expected.map((named) => expect.stringContaining(named)),
    );
  });

  it('most are printed', () => {
    expect(outcomes.filter(({ found }) => typeof found === 'string').length).toBeGreaterThan(300);
  });
});

describe('a template', () => {
  it('knows the day', () => {
    const text = new Template('{{ strftime_now("%Y-%m-%d") }}', source).render({});
    const now = new Date();
    const padded = (value: number) => String(value).padStart(2, '0');
    expect(text).toBe(`${now.getFullYear()}-${padded(now.getMonth() + 1)}-${padded(now.getDate())}`);
  });

  it('says what it raises', () => {
    const template = new Template('{{ raise_exception("No system messages.") }}', source);
    expect(() => template.render({})).toThrow(/^model: the chat template failed: No system messages\.$/);
  });

  it('says that it is none', () => {
    expect(() => new Template('{% for %}', source)).toThrow(/^model: the chat template is not Jinja: .*\.$/);
    expect(() => new Template(`{{ ${'('.repeat(50_000)} }}`, source)).toThrow(TroupeError);
    for (const text of [
      '{{',
      '{% if x %}',
      '{{ x ',
      "{{ 'x }}",
      '{% endif %}',
      '{{ x | }}',
      '{% raw %}',
      '{#',
      '{{ x is }}',
      '{{ ) }}',
    ])
      expect(() => new Template(text, source), text).toThrow(TroupeError);
  });

  it('is refused for a filter or a test that is not here, used or not', () => {
    expect(() => new Template('{% if no %}{{ x | nosuch }}{% endif %}', source)).toThrow(
      /no filter "nosuch"/,
    );
    expect(() => new Template('{{ x is nosuch }}', source)).toThrow(/no test "nosuch"/);
  });

  it('groups and counts as Jinja does, in time', () => {
    const written = (text: string) => new Template(text, source).render({});
    expect(written('{{ range(3) | batch(0) | list }}{{ range(3) | batch(-1) | list }}')).toBe(
      '[[], [0, 1, 2]][[0, 1, 2]]',
    );
    expect(written('{{ range(3) | batch(2, "x") | list }}')).toBe("[[0, 1], [2, 'x']]");
    expect(written('{{ [1, 1.0, true, "a", "A", [1], [1]] | unique | list }}')).toBe("[1, 'a', [1]]");
    expect(written('{{ range(65536) | unique | list | length }}')).toBe('65536');
  });

  it.each([
    [
      'loops',
      '{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}',
      /without end|steps/,
    ],
    ['counts', '{% for i in range(1000000000) %}{% endfor %}', /longest/],
    ['calls itself', '{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}', /too deeply/],
    [
      'doubles a text',
      '{% set n = namespace(s="ab") %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}',
      /without end|string length/,
    ],
    [
      'doubles a list',
      '{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}',
      /without end/,
    ],
    [
      'holds the one before twice, and is written as JSON',
      '{% set n = namespace(s={}) %}{% for i in range(60) %}{% set n.s = {"a": n.s, "b": n.s} %}{% endfor %}{{ n.s | tojson }}',
      /without end/,
    ],
    [
      'holds the one before twice, and is printed or compared',
      '{% set n = namespace(s=[]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s == n.s }}{{ n.s }}',
      /without end/,
    ],
    [
      'compares again and again',
      '{% set n = namespace(s=[]) %}{% for i in range(16) %}{% set n.s = [n.s, n.s] %}{% endfor %}{% for i in range(30000) %}{{ n.s == n.s }}{% endfor %}',
      /without end/,
    ],
    ['has half a thousand million digits', '{{ "%.500000000d" % 1 }}', /500000000 digits/],
    ['repeats a text', '{{ "ab" * 1000000000 }}', /without end/],
    ['pads a text', '{{ "%1000000000d" | format(1) }}{{ "a".ljust(1000000000) }}', /width of 1000000000/],
    ['indents', '{{ "a\\nb" | indent(1000000000, true) }}', /not an int of at most/],
    ['holds itself', '{% set n = namespace() %}{% set n.n = n %}{{ n }}', /has no text/],
  ])('that %s ends in a sentence', (_, text, reason) => {
    const template = new Template(text, source);
    expect(() => template.render({})).toThrow(reason);
    expect(() => template.render({})).toThrow(TroupeError);
  });
});

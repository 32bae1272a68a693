/** Templates from elsewhere: what they may do, and that none of them holds up or ends the process. */
import { Template as Jinja } from '@huggingface/jinja';
import { describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { Template } from '../../src/config/template.js';

const source = { where: 'model', name: 'the chat template' };
const messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: '1 + 2?' },
];

describe('a template', () => {
  it.each([
    '{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}{% if add %}<assistant>{% endif %}',
    '{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}',
    '{% macro bold(x) %}**{{ x }}**{% endmacro %}{{ bold(messages[0].role) }}{{ messages | length }}',
    '{% set n = namespace(last=none) %}{% for m in messages %}{% set n.last = m %}{% endfor %}{{ n.last.content }}',
    '{{ none is none }}{{ True }}{{ false or "x" }}{{ messages | tojson }}',
  ])('renders as the library does: %s', (text) => {
    const fields = { messages, add: true };
    expect(new Template(text, source).render(fields)).toBe(new Jinja(text).render(fields));
  });

  it('knows the day', () => {
    const text = new Template('{{ strftime_now("%Y-%m-%d") }}', source).render({});
    expect(text).toBe(new Jinja('{{ strftime_now("%Y-%m-%d") }}').render({}));
  });

  it('says what it raises', () => {
    const template = new Template('{{ raise_exception("No system messages.") }}', source);
    expect(() => template.render({})).toThrow(/^model: the chat template failed: No system messages\.$/);
  });

  it('says that it is none', () => {
    expect(() => new Template('{% for %}', source)).toThrow(/^model: the chat template is not Jinja: .*\.$/);
    expect(() => new Template(`{{ ${'('.repeat(50_000)} }}`, source)).toThrow(TroupeError);
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
  ])('that %s ends in a sentence', (_, text, reason) => {
    const template = new Template(text, source);
    expect(() => template.render({})).toThrow(reason);
    expect(() => template.render({})).toThrow(TroupeError);
  });
});

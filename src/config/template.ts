/**
 * Jinja templates that somebody else wrote: a model's chat template, a user's prompts. Rendered as transformers renders
 * chat templates (jinja/, compared with jinja2 by test/golden/jinja_templates.py), and bounded, so that a template that
 * loops, multiplies or fails ends in a sentence.
 */
import { reasonOf, TroupeError } from './errors.js';
import { Interpreter } from './jinja/interpreter.js';
import { parse } from './jinja/parser.js';
import type { Statement } from './jinja/syntax.js';
import { Callable, List, templateValue, text, type Value } from './jinja/values.js';

/** Numbers that `range` gives at most. */
const LONGEST_RANGE = 2 ** 16;

export interface TemplateSource {
  /** File or folder that it is from. */
  where: string;
  /** What it is called in errors: "the chat template". */
  name: string;
}

export class Template {
  readonly #parsed: Statement[];
  readonly #source: TemplateSource;

  /** Throws a TroupeError if the text is not Jinja. */
  constructor(source: string, from: TemplateSource) {
    this.#source = from;
    this.#parsed = this.#attempt('is not Jinja', () => parse(source));
  }

  /** Throws a TroupeError if the template fails, refuses the fields, or does not come to its end. */
  render(fields: Readonly<Record<string, unknown>>): string {
    return this.#attempt('failed', () => {
      const given = Object.entries(fields).map(([name, value]) => [name, templateValue(value)] as const);
      return new Interpreter([...GLOBALS, ...given]).run(this.#parsed);
    });
  }

  #attempt<T>(what: string, action: () => T): T {
    try {
      return action();
    } catch (cause) {
      const { where, name } = this.#source;
      // Templates that call themselves, and brackets without end, come to the end of the stack.
      const deep = cause instanceof RangeError && /call stack/.test(cause.message);
      const reason = deep ? 'it nests too deeply' : reasonOf(cause);
      throw new TroupeError(`${name} ${what}: ${reason}.`, { where, cause });
    }
  }
}

/** As Jinja has them, and as transformers adds them. */
const GLOBALS: [string, Value][] = [
  ['range', new Callable((args) => range(args))],
  [
    'raise_exception',
    new Callable(([message = null]) => {
      throw new Error(text(message));
    }),
  ],
  ['strftime_now', new Callable(([format = '']) => strftime_now(text(format)))],
];

function range(args: readonly Value[]): List {
  if (args.length < 1 || args.length > 3 || !args.every((one) => typeof one === 'number')) {
    throw new Error('range takes one to three whole numbers');
  }
  const [first = 0, end, step = 1] = args as number[];
  const [from, to] = end === undefined ? [0, first] : [first, end];
  if (step === 0) throw new Error('range takes a step other than 0');
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (length > LONGEST_RANGE) throw new Error(`a range of ${length}; the longest is ${LONGEST_RANGE}`);
  const label = `range(${from}, ${to}${step === 1 ? '' : `, ${step}`})`;
  return new List(
    Array.from({ length }, (_, i) => from + i * step),
    'range',
    label,
  );
}

/** Today, in the format that chat templates ask for: "%d %b %Y". */
function strftime_now(format: string): string {
  const now = new Date();
  const padded = (value: number) => String(value).padStart(2, '0');
  const month = (style: 'short' | 'long') => now.toLocaleString('en', { month: style });
  const parts: Record<string, string> = {
    '%Y': String(now.getFullYear()),
    '%m': padded(now.getMonth() + 1),
    '%d': padded(now.getDate()),
    '%b': month('short'),
    '%B': month('long'),
    '%H': padded(now.getHours()),
    '%M': padded(now.getMinutes()),
    '%%': '%',
  };
  return format.replace(/%[YmdbBHM%]/g, (part) => parts[part] as string);
}

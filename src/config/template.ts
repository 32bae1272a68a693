/**
 * Jinja templates that somebody else wrote: a model's chat template, a user's prompts. The work is done by
 * @huggingface/jinja; this file bounds it, so that a template that loops, multiplies or fails ends in a sentence.
 */
import { Environment, Interpreter, Template as Jinja } from '@huggingface/jinja';
import { reasonOf, TroupeError } from './errors.js';

/** Nodes that one rendering may visit; a conversation of a hundred messages takes some thousands. */
const MOST_STEPS = 2 ** 19;
/** Characters and list elements that the values of all those nodes may have together. */
const MOST_CHARACTERS = 2 ** 29;
const MOST_ELEMENTS = 2 ** 18;
const LONGEST_RANGE = 2 ** 16;

export interface TemplateSource {
  /** File or folder that it is from. */
  where: string;
  /** What it is called in errors: "the chat template". */
  name: string;
}

export class Template {
  readonly #parsed: Jinja['parsed'];
  readonly #source: TemplateSource;

  /** Throws a TroupeError if the text is not Jinja. */
  constructor(text: string, source: TemplateSource) {
    this.#source = source;
    this.#parsed = this.#attempt('is not Jinja', () => new Jinja(text).parsed);
  }

  /** Throws a TroupeError if the template fails, refuses the fields, or does not come to its end. */
  render(fields: Readonly<Record<string, unknown>>): string {
    return this.#attempt('failed', () => {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ ...GLOBALS, ...fields })) environment.set(name, value);
      return String(new BoundedInterpreter(environment).run(this.#parsed).value);
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
const GLOBALS = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  range,
  raise_exception(message: unknown) {
    throw new Error(String(message));
  },
  strftime_now,
};

function range(first: number, end?: number, step = 1): number[] {
  const [from, to] = end === undefined ? [0, first] : [first, end];
  const length = Math.ceil((to - from) / step);
  if (!Number.isInteger(from) || !Number.isInteger(to) || !Number.isInteger(step) || step === 0) {
    throw new Error('range takes whole numbers, and a step other than 0');
  }
  if (length > LONGEST_RANGE) throw new Error(`a range of ${length}; the longest is ${LONGEST_RANGE}`);
  return Array.from({ length: Math.max(0, length) }, (_, i) => from + i * step);
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

interface Value {
  value: unknown;
}

/** The library's declarations do not resolve here. */
const Unbounded = Interpreter as unknown as new (
  environment: object,
) => {
  run(program: unknown): Value;
  evaluate(statement: unknown, environment: unknown): Value;
};

class BoundedInterpreter extends Unbounded {
  #steps = 0;
  #characters = 0;
  #elements = 0;

  override evaluate(statement: unknown, environment: unknown): Value {
    if (++this.#steps > MOST_STEPS) throw new Error(`it takes more than ${MOST_STEPS} steps`);
    const result = super.evaluate(statement, environment);
    const { value } = result;
    if (typeof value === 'string') this.#characters += value.length;
    else if (Array.isArray(value)) this.#elements += value.length;
    else if (value instanceof Map) this.#elements += value.size;
    if (this.#characters > MOST_CHARACTERS || this.#elements > MOST_ELEMENTS) {
      throw new Error('it makes texts or lists without end');
    }
    return result;
  }
}

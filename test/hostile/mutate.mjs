/** Damage and malice for files, drawn from a seed: the same seed makes the same file. */

/** Numbers that readers get wrong, as they stand in binary files. */
const NUMBERS = [
  0n,
  1n,
  -1n,
  127n,
  255n,
  65535n,
  2n ** 31n - 1n,
  -(2n ** 31n),
  2n ** 32n,
  2n ** 53n,
  2n ** 63n - 1n,
];
const BYTES = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x7b, 0x5b];

const DEEPEST = '@deepest';
const deep = (levels) => JSON.parse('['.repeat(levels) + ']'.repeat(levels));

/** Values that a reader of JSON does not expect; functions, since some are large. */
const VALUES = [
  () => null,
  () => true,
  () => -1,
  () => 0,
  () => 0.5,
  () => 1e308,
  () => 2 ** 31,
  () => 1e15,
  () => '',
  () => 'x'.repeat(100_000),
  () => '\u0000\ud800<|im_end|>',
  () => [],
  () => [[], null, {}],
  () => ({}),
  () => JSON.parse('{"__proto__": {"length": -1}, "constructor": 1, "toString": 1, "valueOf": 1}'),
  () => Array.from({ length: 3000 }, (_, i) => i),
  () => Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`k${i}`, i])),
  () => deep(200),
  // Stands for more brackets than JSON.stringify writes.
  () => DEEPEST,
];

/** Lines that a YAML file does not expect. */
const LINES = [
  ...[
    'a: &a [x, x, x, x, x, x, x, x, x]',
    'b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]',
    'c: &c [*b, *b, *b, *b]',
  ],
  ...[
    'steps: *a',
    'model: &m { path: *m }',
    '<<: *a',
    '? [a, b]\n: c',
    '- a',
    '\t- b',
    'steps: !!binary AAAA',
  ],
  ...[
    'seed: !!timestamp 2001-01-01',
    '{',
    '"',
    'extends: [default, default]',
    'extends: .',
    '%YAML 9.9',
    '---',
    '...',
  ],
  ...[
    '__proto__: { steps: 1 }',
    'steps: 1e999',
    'steps: .nan',
    'seed: -0',
    'task: null',
    `x: ${'['.repeat(5000)}`,
  ],
  ...['axes: { seed: [1, 1, 1] }', 'axes: { a: {}, b: {} }', 'extends: /dev/zero', 'extends: /'],
  `l: &l [${'x,'.repeat(99)}]\nm: &m [${'*l,'.repeat(99)}]\nn: &n [${'*m,'.repeat(99)}]\no: [${'*n,'.repeat(99)}]`,
];

/** What a chat template can do to whoever renders it. */
const SNIPPETS = [
  '{%- for i in range(1000000000) %}{%- endfor %}',
  '{%- for i in range(0, 1, 0) %}{%- endfor %}',
  '{%- set n = namespace(s="xxxxxxxxxxxxxxxx") %}{%- for i in range(64) %}{%- set n.s = n.s + n.s %}{%- endfor %}{{ n.s }}',
  '{%- set n = namespace(a=[1, 2, 3]) %}{%- for i in range(64) %}{%- set n.a = n.a + n.a %}{%- endfor %}',
  '{%- macro f() %}{{ f() }}{%- endmacro %}{{ f() }}',
  '{%- macro f(n) %}{{ f(n) }}{{ f(n) }}{%- endmacro %}{{ f(1) }}',
  '{%- for a in range(9999) %}{%- for b in range(9999) %}{%- for c in range(9999) %}x{%- endfor %}{%- endfor %}{%- endfor %}',
  '{{ raise_exception("no") }}',
  '{{ messages | tojson | tojson | tojson }}',
  '{{ messages[0].content.constructor.constructor("return process")() }}',
  '{{ [1, 2, 3] | map("x") | join }}',
  '{{ "x" | indent(1000000000) }}',
  '{{ "abc" | replace("", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy") }}',
  '{% if %}',
  '{{ nothing.of.this }}',
  '{{ strftime_now("%Y") }}',
  `{{ ${'('.repeat(20_000)}1${')'.repeat(20_000)} }}`,
  '{{ 1 / 0 }}{{ 10 ** 400 }}',
];

export class Random {
  #state;
  constructor(text) {
    // FNV-1a of the text, then Mulberry32.
    this.#state = [...text].reduce(
      (hash, c) => Math.imul(hash ^ c.charCodeAt(0), 0x01000193) >>> 0,
      0x811c9dc5,
    );
  }
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(count) {
    return Math.floor(this.next() * count);
  }
  one(list) {
    return list[this.below(list.length)];
  }
}

/** The file damaged, or made hostile as its kind is read. */
export function mutate(name, contents, random) {
  const structured = random.next() < 0.6;
  if (structured && /\.jsonl?$/.test(name)) return mutateJsonText(name, contents, random);
  if (structured && /\.yaml$/.test(name)) return mutateLines(contents, random, LINES, '\n');
  if (structured && /\.jinja$/.test(name)) return mutateLines(contents, random, SNIPPETS, '\n');
  return mutateBytes(contents, random);
}

function mutateBytes(contents, random) {
  let bytes = Buffer.from(contents);
  for (let times = 1 + random.below(random.next() < 0.5 ? 1 : 8); times > 0; times--) {
    bytes = mutateOnce(bytes, random);
  }
  return bytes;
}

function mutateOnce(bytes, random) {
  if (bytes.length === 0) return Buffer.from([random.below(256)]);
  // Headers decide more than what follows them.
  const most = random.next() < 0.5 ? Math.min(bytes.length, 4096) : bytes.length;
  const at = random.below(most);
  const end = Math.min(bytes.length, at + 1 + random.below(random.next() < 0.5 ? 8 : 2000));
  switch (random.below(8)) {
    case 0:
      bytes[at] ^= 1 << random.below(8);
      return bytes;
    case 1:
      bytes[at] = random.one(BYTES);
      return bytes;
    case 2:
    case 3: {
      const size = random.one([4, 8]);
      const value = Buffer.alloc(8);
      value.writeBigInt64LE(random.one(NUMBERS));
      const aligned = random.next() < 0.8 ? at - (at % 4) : at;
      value.copy(bytes, aligned, 0, Math.min(size, bytes.length - aligned));
      return bytes;
    }
    case 4:
      return bytes.subarray(0, at);
    case 5:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 6:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    default:
      return bytes.fill(random.one(BYTES), at, end);
  }
}

function mutateJsonText(name, contents, random) {
  const text = contents.toString('utf8');
  if (!name.endsWith('.jsonl')) return Buffer.from(textOf(mutateJson(JSON.parse(text), random)));
  const lines = text.split('\n');
  const at = random.below(lines.length);
  if (lines[at] !== '') lines[at] = textOf(mutateJson(JSON.parse(lines[at]), random));
  return Buffer.from(lines.join('\n'));
}

function textOf(json) {
  return JSON.stringify(json).replaceAll(`"${DEEPEST}"`, '['.repeat(20_000) + ']'.repeat(20_000));
}

function mutateJson(json, random) {
  let value = json;
  for (let times = 1 + random.below(3); times > 0; times--) value = replaced(value, random);
  return value;
}

/** One place of a value replaced, left out or added to. Some of the time the whole of it. */
function replaced(value, random) {
  const inside = typeof value === 'object' && value !== null && Object.keys(value).length > 0;
  if (!inside || random.next() < 0.15) return random.one(VALUES)();
  const copy = Array.isArray(value) ? [...value] : { ...value };
  const key = random.one(Object.keys(copy));
  const kind = random.next();
  if (kind < 0.1) delete copy[key];
  else if (kind < 0.2) {
    // Assigning to __proto__ would change the prototype, and write nothing.
    const added = random.one(['x', '__proto__', 'model', 'type', '0', '-1']);
    Object.defineProperty(copy, added, {
      value: random.one(VALUES)(),
      configurable: true,
      enumerable: true,
      writable: true,
    });
  } else copy[key] = replaced(copy[key], random);
  return copy;
}

function mutateLines(contents, random, hostile, separator) {
  const lines = contents.toString('utf8').split(separator);
  for (let times = 1 + random.below(3); times > 0; times--) {
    const at = random.below(lines.length + 1);
    switch (random.below(5)) {
      case 0:
        lines.splice(at, 1);
        break;
      case 1:
        lines[at] = `${' '.repeat(random.below(6))}${(lines[at] ?? '').trim()}`;
        break;
      case 2:
        lines[at] = (lines[at] ?? '').replace(/\S+$/, () => textOf(random.one(VALUES)()));
        break;
      default:
        lines.splice(at, 0, random.one(hostile));
    }
  }
  return Buffer.from(lines.join(separator));
}

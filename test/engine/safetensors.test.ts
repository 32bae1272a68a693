/** safetensors files: what is written comes back, and a damaged file is an error that names it, never a crash. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { native } from '../../src/engine/native.js';
import { scope } from '../../src/engine/scope.js';
import { liveTensors, Tensor } from '../../src/engine/tensor.js';

const addon = native();
const folder = mkdtempSync(join(tmpdir(), 'troupe-safetensors-'));
const path = join(folder, 'model.safetensors');
let before = 0;
beforeAll(() => {
  before = liveTensors();
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  expect(liveTensors()).toBe(before);
});
const check = (name: string, body: () => void) => it(name, () => scope(body));

type Header = Record<string, unknown>;

/** A file with this header and as many bytes of data. */
function file(header: Header | string, bytes: number, length?: number): string {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(length ?? text.length));
  writeFileSync(path, Buffer.concat([size, text, Buffer.alloc(bytes, 1)]));
  return path;
}

const entry = (begin: number, end: number, shape: number[] = [2], dtype = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

function save(tensors: Record<string, Tensor>, metadata: Record<string, string> = {}): void {
  const handles = Object.entries(tensors).map(([name, tensor]) => [name, tensor.native] as const);
  addon.saveSafetensors(path, Object.fromEntries(handles), metadata);
}

describe('writing and reading', () => {
  check('every dtype, odd sizes, empty and scalar tensors, metadata and names with quotes', () => {
    const tensors: Record<string, Tensor> = {
      double: Tensor.from(Float64Array.of(1, Number.NaN, -0)),
      float: Tensor.from([1.5, -2], [1, 2]),
      bf16: Tensor.from([1, 2, 3], [3], { dtype: 'bfloat16' }),
      f16: Tensor.from([0.5], [1], { dtype: 'float16' }),
      long: Tensor.from(BigInt64Array.of(-1n, 2n ** 53n)),
      int: Tensor.from(Int32Array.of(7)),
      byte: Tensor.from(Uint8Array.of(1, 2, 255)),
      flag: Tensor.from([1, 0, 1], [3], { dtype: 'bool' }),
      empty: Tensor.zeros([0, 4]),
      scalar: Tensor.scalar(3),
      'a "quoted" \\ näme\n': Tensor.from([1, 2, 3, 4], [2, 2]).transpose(0, 1),
    };
    save(tensors, { format: 'pt', 'ключ "x"': 'α\tβ' });
    const opened = addon.openSafetensors(path);
    expect([...opened.names].sort()).toEqual(Object.keys(tensors).sort());
    expect(opened.metadata).toEqual({ format: 'pt', 'ключ "x"': 'α\tβ' });
    for (const [name, tensor] of Object.entries(tensors)) {
      expect(opened.info(name)).toEqual({ dtype: tensor.dtype, shape: tensor.shape });
      const read = Tensor.wrap(opened.tensor(name));
      expect([read.dtype, read.shape, read.data()]).toEqual([tensor.dtype, tensor.shape, tensor.data()]);
    }
    opened.dispose();
  });

  check('tensors without elements: alone, last, and before another dtype', () => {
    const empty = (dtype: 'float32' | 'bfloat16') => Tensor.zeros([0, 4], { dtype });
    const files: Record<string, Tensor>[] = [
      { alone: empty('float32') },
      { first: Tensor.from([1]), last: empty('float32') },
      {
        before: empty('float32'),
        narrow: Tensor.from([1], [1], { dtype: 'bfloat16' }),
        last: empty('bfloat16'),
      },
    ];
    for (const tensors of files) {
      save(tensors);
      const opened = addon.openSafetensors(path);
      for (const [name, tensor] of Object.entries(tensors))
        expect(Tensor.wrap(opened.tensor(name)).data()).toEqual(tensor.data());
      opened.dispose();
    }
  });

  check('a tensor outlives its file, and writing to it leaves the file alone', () => {
    save({ x: Tensor.from([1, 2]) });
    const bytes = readFileSync(path);
    const opened = addon.openSafetensors(path);
    const x = Tensor.wrap(opened.tensor('x'));
    opened.dispose();
    rmSync(path);
    expect(x.fill_(5).toArray()).toEqual([5, 5]);
    writeFileSync(path, bytes);
    const again = addon.openSafetensors(path);
    expect(Tensor.wrap(again.tensor('x')).toArray()).toEqual([1, 2]);
    again.dispose();
  });

  check('headers with spaces, escapes and data that is not aligned', () => {
    const opened = addon.openSafetensors(
      file('{ "b\\u00e9\\ud83d\\ude00\\n" : {"shape" : [ 2 ], "dtype":"F32", "data_offsets":[0,8]} }  ', 8),
    );
    const tensor = Tensor.wrap(opened.tensor('bé😀\n'));
    expect(tensor.data()).toEqual(new Float32Array(new Uint8Array(8).fill(1).buffer));
    opened.dispose();
  });

  it('an empty file of tensors', () => {
    const opened = addon.openSafetensors(file({}, 0));
    expect([opened.names, opened.metadata]).toEqual([[], {}]);
    opened.dispose();
  });
});

describe('damage', () => {
  const open = () => addon.openSafetensors(path).dispose();
  const cases: [string, () => void, RegExp][] = [
    ['a missing file', () => addon.openSafetensors(join(folder, 'no')), /cannot open .*no: No such file/],
    ['a folder', () => addon.openSafetensors(folder), /not a file/],
    [
      'an empty file',
      () => {
        writeFileSync(path, '');
        open();
      },
      /model\.safetensors.*0 bytes/,
    ],
    [
      'a header beyond the end',
      () => {
        file({}, 0, 1000);
        open();
      },
      /1000 bytes but the file only 2: it is truncated/,
    ],
    [
      'a header of absurd length',
      () => {
        file({}, 0, 2 ** 52);
        open();
      },
      /is no safetensors file/,
    ],
    [
      'text instead of a file',
      () => {
        writeFileSync(path, 'version https://git-lfs');
        open();
      },
      /is no safetensors file/,
    ],
    [
      'a header that is not JSON',
      () => {
        file('{"a": nonsense}', 0);
        open();
      },
      /bad safetensors header.*byte 6/,
    ],
    [
      'a header cut off',
      () => {
        file('{"a', 0);
        open();
      },
      /bad safetensors header: a string does not end/,
    ],
    [
      'half of a surrogate pair',
      () => {
        file('{"a\\ud83d":1}', 0);
        open();
      },
      /half of a surrogate pair/,
    ],
    [
      'two first halves of surrogate pairs',
      () => {
        file('{"a\\ud83d\\ud83d":1}', 0);
        open();
      },
      /half of a surrogate pair/,
    ],
    [
      'text after the header',
      () => {
        file('{} x', 0);
        open();
      },
      /text after the end/,
    ],
    [
      'a name twice',
      () => {
        const e = JSON.stringify(entry(0, 8));
        file(`{"a":${e},"a":${e}}`, 8);
        open();
      },
      /"a" appears twice/,
    ],
    [
      'a missing key',
      () => {
        file({ a: { dtype: 'F32', shape: [2] } }, 8);
        open();
      },
      /"a" lacks/,
    ],
    [
      'a negative size',
      () => {
        file({ a: entry(0, 8, [-2]) }, 8);
        open();
      },
      /whole number/,
    ],
    [
      'an endless size',
      () => {
        file('{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}}', 8);
        open();
      },
      /too large/,
    ],
    [
      'a product of sizes that overflows',
      () => {
        file({ a: entry(0, 8, [2 ** 40, 2 ** 40]) }, 8);
        open();
      },
      /impossible shape/,
    ],
    [
      'truncated data',
      () => {
        file({ a: entry(0, 8) }, 7);
        open();
      },
      /tensor "a" ends at byte 8.*holds 7.*truncated/,
    ],
    [
      'offsets that go backwards',
      () => {
        file({ a: entry(8, 0) }, 8);
        open();
      },
      /"a" ends before it begins/,
    ],
    [
      'a size that does not fit the shape',
      () => {
        file({ a: entry(0, 8, [3]) }, 8);
        open();
      },
      /"a" takes 12 bytes \(F32 \[3\]\) but has 8/,
    ],
    [
      'overlapping tensors',
      () => {
        file({ a: entry(0, 8), b: entry(4, 12) }, 12);
        open();
      },
      /"b" overlaps/,
    ],
    [
      'a gap',
      () => {
        file({ a: entry(0, 8), b: entry(12, 20) }, 20);
        open();
      },
      /4 bytes before tensor "b"/,
    ],
    [
      'bytes at the end',
      () => {
        file({ a: entry(0, 8) }, 12);
        open();
      },
      /4 bytes after the last tensor/,
    ],
    [
      'an unsupported dtype',
      () => {
        addon.openSafetensors(file({ a: entry(0, 8, [8], 'F8_E4M3') }, 8)).tensor('a');
      },
      /"a" has the dtype F8_E4M3/,
    ],
    [
      'an unknown tensor',
      () => {
        addon.openSafetensors(file({}, 0)).tensor('a');
      },
      /has no tensor "a"/,
    ],
    [
      'a disposed file',
      () => {
        const f = addon.openSafetensors(file({}, 0));
        f.dispose();
        f.tensor('a');
      },
      /disposed/,
    ],
    [
      'a path that cannot be written',
      () => addon.saveSafetensors(join(folder, 'no', 'x'), {}, {}),
      /cannot create .*No such file/,
    ],
    [
      'a full disk',
      () =>
        scope(() => {
          addon.saveSafetensors('/dev/full', { a: Tensor.zeros([1 << 16]).native }, {});
        }),
      /No space left/,
    ],
    [
      'a disposed tensor',
      () => {
        const x = Tensor.scalar(1);
        x.dispose();
        save({ x });
      },
      /tensors\.x was disposed/,
    ],
    ['metadata that is no text', () => addon.saveSafetensors(path, {}, { a: 1 } as never), /metadata\.a/],
  ];
  it.each(cases)('%s', (_, action, message) => {
    expect(action).toThrow(message);
  });
});

/**
 * Milliseconds to encode and to decode a text with Troupe's tokenizer and with the Rust library, in turn.
 *
 *     node bench/tokenization.mjs TOKENIZER TEXTS.jsonl [--python python3] [--rows 2000]
 *
 * TOKENIZER is a folder with tokenizer.json; of each row of TEXTS the question and the answer are one text. The second pass
 * over all texts counts. Needs `npm run build`, and for the Rust library a Python with `tokenizers`; without, its column is
 * left out.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Tokenizer } from '../build/js/engine/tokenizer.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { python: { type: 'string', default: 'python3' }, rows: { type: 'string', default: '2000' } },
});
const [folder, file] = positionals;
if (folder === undefined || file === undefined)
  throw new Error('node bench/tokenization.mjs TOKENIZER TEXTS.jsonl');

const texts = readFileSync(file, 'utf8')
  .split('\n')
  .filter((line) => line !== '')
  .slice(0, Number(values.rows))
  .map((line) => JSON.parse(line))
  .map(({ question = '', answer = '' }) => `${question}\n${answer}`);

const RUST = `
import json, sys, time
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
texts = json.load(sys.stdin)
for _ in range(2):
    start = time.perf_counter()
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    middle = time.perf_counter()
    for one in ids:
        tokenizer.decode(one)
    end = time.perf_counter()
print(json.dumps([middle - start, end - middle]))
`;

function ours() {
  const tokenizer = Tokenizer.load(folder);
  let seconds = [0, 0];
  for (let pass = 0; pass < 2; pass++) {
    const start = performance.now();
    const ids = texts.map((text) => tokenizer.encode(text));
    const middle = performance.now();
    for (const one of ids) tokenizer.decode(one);
    seconds = [(middle - start) / 1000, (performance.now() - middle) / 1000];
  }
  return seconds;
}

function rust() {
  const { status, stdout } = spawnSync(values.python, ['-c', RUST, join(folder, 'tokenizer.json')], {
    input: JSON.stringify(texts),
    encoding: 'utf8',
    env: { ...process.env, TOKENIZERS_PARALLELISM: 'false' },
  });
  return status === 0 ? JSON.parse(stdout) : undefined;
}

const characters = texts.reduce((sum, { length }) => sum + length, 0) / texts.length;
console.log(`${texts.length} texts of ${characters.toFixed(0)} characters`);
for (const [name, seconds] of Object.entries({ Troupe: ours(), 'tokenizers (Rust)': rust() })) {
  const ms = seconds?.map((all) => ((1000 * all) / texts.length).toFixed(2));
  console.log(ms === undefined ? `${name}: is not there` : `${name}: encode ${ms[0]} ms, decode ${ms[1]} ms`);
}

/** The sound files that are damaged: one folder for each reader, made in `folder`. */
import { copyFileSync, cpSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { stringify } from 'yaml';
import { saveCheckpoint } from '../../src/runs/checkpoint.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import { evaluation, stepRows } from '../report/measurements.js';
import { MadeUpRun, VOTING } from '../runs/made-up-run.js';

const CONFIG = stringify({ steps: 3, model: { path: 'troupe-0.3m' }, workflow: { name: 'voting' } });

export async function makeCorpora(folder: string): Promise<void> {
  const to = (reader: string, ...names: string[]) => {
    mkdirSync(join(folder, reader, ...names.slice(0, -1)), { recursive: true });
    return join(folder, reader, ...names);
  };
  const run = await soundRun();
  cpSync(run, to('run', '.'), { recursive: true });
  for (const reader of ['streams', 'report']) {
    cpSync(join(run, 'streams'), to(reader, 'streams', '.'), { recursive: true });
    writeFileSync(to(reader, 'config.yaml'), CONFIG);
  }
  for (const name of ['config.json', 'model.safetensors']) {
    copyFileSync(join('test/golden/models/qwen3-tied', name), to('model', name));
  }
  cpSync('models/troupe-0.3m', to('tokenizer', '.'), {
    recursive: true,
    filter: (path) => !path.endsWith('.safetensors'),
  });
  copyFileSync('test/golden/gguf/qwen3.gguf', to('gguf', 'model.gguf'));
  copyFileSync('configs/presets/default.yaml', to('config', 'run.yaml'));
  copyFileSync('configs/lab/arithmetic.yaml', to('study', 'study.yaml'));
  copyFileSync('configs/embedded/troupe-1m.yaml', to('sft', 'sft.yaml'));
  copyFileSync('configs/prompts/full/math/voting.yaml', to('prompts', 'voting.yaml'));
  writeRows(MATH_ROWS, (name) => to('math', name));
  writeRows(CODE_ROWS, (name) => to('code', name));
  writeDataFiles((name) => to('rows', name));
  writeFileSync(to('split', 'rows.jsonl'), lines(MATH_ROWS));
  writeFileSync(to('split', 'split.json'), JSON.stringify({ rows: MATH_ROWS.length, heldOut: [4, 0, 2] }));
  const answers = MATH_ROWS.map((row) => ({ response: `So it is \\boxed{${row.answer}}.`, row }));
  writeFileSync(to('answers', 'answers.jsonl'), lines(answers));
  const call = { role: 'voter', slot: 0, turn: 0, prompt: [1, 2, 3], response: [4, 5], advantage: 0.5 };
  writeFileSync(to('calls', 'calls.jsonl'), lines([call, { ...call, slot: 1 }]));
  writeFileSync(to('calls', 'ids.json'), JSON.stringify([[1, 2, 3], [4]]));
}

/** A run with every kind of file: streams, a checkpoint, environments, a lock that a process left. */
async function soundRun(): Promise<string> {
  const run = new MadeUpRun(VOTING, CONFIG);
  for (let step = 0; step < 3; step++) run.append(stepRows(step));
  for (const step of [0, 3]) run.append(evaluation(step, 8 + step));
  run.release();
  const streams = RunStreams.create(join(run.folder, 'of-checkpoint'), VOTING);
  const state = { step: 3, score: 0.5, trainer: { policies: {} } };
  await saveCheckpoint(run.folder, streams, state, (into) => {
    writeFileSync(join(into, 'policy.safetensors'), Buffer.alloc(100, 7));
  });
  streams.close();
  const holder = { host: 'x', pid: 1, started: '1', holds: true };
  writeFileSync(join(run.folder, 'lock-1-1.json'), JSON.stringify(holder));
  const changes = [{ step: 1, key: 'steps', from: 2, to: 3 }];
  writeFileSync(join(run.folder, 'changes.json'), JSON.stringify(changes));
  return run.folder;
}

const MATH_ROWS = Array.from({ length: 6 }, (_, i) => ({
  question: `What is ${i} + 1000000000000000000?`,
  answer: `${i + 1}`,
  solution: `\\boxed{${i + 1}}`,
}));

const CODE_ROWS = [
  {
    problem: 'Add two numbers.',
    tests: JSON.stringify([{ input: '1 2', output: '3', type: 'stdin_stdout' }]),
  },
  { question: 'Double it.', input_output: JSON.stringify({ inputs: ['1', '2'], outputs: ['2', '4'] }) },
  { text: 'Negate it.', test_list: ['assert neg(1) == -1'], code: 'def neg(x): return -x' },
  {
    prompt: 'def f(x):\n',
    entry_point: 'f',
    test: 'def check(c):\n  assert c(1) == 1',
    canonical_solution: '',
  },
];

function writeRows(rows: readonly Record<string, unknown>[], path: (name: string) => string): void {
  writeFileSync(path('rows.jsonl'), lines(rows));
  writeFileSync(path('rows.json'), JSON.stringify(rows));
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const columnData = keys.map((name) => ({
    name,
    data: rows.map((row) => (row[name] === undefined ? null : String(row[name]))),
    type: 'STRING' as const,
    nullable: true,
  }));
  writeFileSync(path('rows.parquet'), new Uint8Array(parquetWriteBuffer({ columnData })));
}

const GOLDEN = 'test/golden/data-files';

function writeDataFiles(path: (name: string) => string): void {
  // The one that is not packed is large and of the same format.
  for (const name of readdirSync(GOLDEN).filter((one) => one !== 'none.parquet')) {
    copyFileSync(join(GOLDEN, name), path(name));
  }
  const csv = 'question,answer\n"two\nlines ""quoted""",1\nplain,2\n'.repeat(20);
  writeFileSync(path('rows.csv'), csv);
  writeFileSync(path('rows.tsv'), csv.replaceAll(',', '\t'));
  writeFileSync(path('rows.csv.gz'), gzipSync(csv));
  writeFileSync(path('utf16.ndjson'), Buffer.from(`\uFEFF${lines(MATH_ROWS)}`, 'utf16le'));
  writeFileSync(path('nan.ndjson'), '{"question": "What?", "answer": NaN, "x": [-Infinity, 1e400]}\n');
  writeFileSync(path('bom'), `\uFEFF${JSON.stringify(MATH_ROWS, null, 2)}`);
}

function lines(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

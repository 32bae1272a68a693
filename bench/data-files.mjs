/**
 * Seconds and memory of reading data files: node bench/data-files.mjs [FILE...]. Each file is read in a process of its
 * own. Without files, 300 MB of made-up rows (an id, a question of 600 bytes, an answer, a solution of 4,400) are written to
 * a temporary folder as JSON lines, a JSON array, CSV, gzip, Parquet (row groups of 5,000 rows, and one) and an Arrow stream.
 */
import { spawnSync } from 'node:child_process';
import {
  createReadStream,
  createWriteStream,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { createGzip } from 'node:zlib';

const tiny = process.argv.includes('--tiny');
const ROWS = tiny ? 200 : 60_000;
function table(files) {
  console.log('| file | MB | s | peak MiB |\n|---|---|---|---|');
  for (const file of files) {
    const { stdout, stderr } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), '--read', file]);
    const said = stdout.toString();
    if (said === '') throw new Error(stderr.toString());
    const { rows, seconds, peak } = JSON.parse(said);
    const size = (statSync(file).size / 1e6).toFixed(0);
    console.log(`| ${basename(file)}, ${rows} rows | ${size} | ${seconds.toFixed(1)} | ${peak.toFixed(0)} |`);
  }
}

async function read(file) {
  const { rowsOf } = await import('../build/js/tasks/data-files/rows-of.js');
  const started = performance.now();
  let rows = 0;
  for await (const some of rowsOf(file)) rows += some.filter(({ row }) => row !== undefined).length;
  const seconds = (performance.now() - started) / 1000;
  // Not the resource usage's: that begins with what the parent held.
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024;
  process.stdout.write(JSON.stringify({ rows, seconds, peak }));
}

async function made(folder) {
  const at = (name) => join(folder, name);
  const jsonl = createWriteStream(at('lines.jsonl'));
  const json = createWriteStream(at('array.json'));
  const csv = createWriteStream(at('rows.csv'));
  json.write('[');
  csv.write('id,question,answer,solution\n');
  for (let i = 0; i < ROWS; i++) {
    const row = rowOf(i);
    const text = JSON.stringify(row);
    jsonl.write(`${text}\n`);
    json.write(`${i === 0 ? '' : ','}${text}`);
    csv.write(`${row.id},"${row.question}",${row.answer},"${row.solution}"\n`);
    if (i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  json.write(']');
  for (const stream of [jsonl, json, csv]) await new Promise((resolve) => stream.end(resolve));
  await pipeline(
    createReadStream(at('lines.jsonl')),
    createGzip({ level: 1 }),
    createWriteStream(at('lines.jsonl.gz')),
  );
  await columnar(at);
  const names = [
    'lines.jsonl',
    'array.json',
    'rows.csv',
    'lines.jsonl.gz',
    'groups.parquet',
    'one-group.parquet',
    'stream.arrow',
  ];
  return names.map(at);
}

async function columnar(at) {
  const { parquetWriteBuffer } = await import('hyparquet-writer');
  const { tableFromArrays, tableToIPC } = await import('apache-arrow');
  const rows = Array.from({ length: ROWS }, (_, i) => rowOf(i));
  const columns = Object.fromEntries(Object.keys(rows[0]).map((key) => [key, rows.map((row) => row[key])]));
  const columnData = Object.entries(columns).map(([name, data]) => ({
    name,
    data,
    type: name === 'id' ? 'INT32' : 'STRING',
  }));
  for (const [name, rowGroupSize] of [
    ['groups.parquet', 5000],
    ['one-group.parquet', ROWS],
  ]) {
    writeFileSync(at(name), new Uint8Array(parquetWriteBuffer({ columnData, rowGroupSize })));
  }
  writeFileSync(at('stream.arrow'), tableToIPC(tableFromArrays(columns), 'stream'));
}

let state = 1;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};

function rowOf(i) {
  state = i + 1;
  const words = (count) =>
    Array.from({ length: count }, () => Math.floor(random() * 36 ** 5).toString(36)).join(' ');
  return { id: i, question: `${words(100)} ${i}?`, answer: String(i), solution: words(740) };
}

const [first, ...rest] = process.argv.slice(2).filter((word) => word !== '--tiny');

if (first === '--read') await read(rest[0]);
else if (first !== undefined) table([first, ...rest]);
else {
  const folder = mkdtempSync(join(tmpdir(), 'troupe-data-files-'));
  try {
    table(await made(folder));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

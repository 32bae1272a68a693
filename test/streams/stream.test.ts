/**
 * Stream files: what a reader sees while the run goes on, after a crash at any byte, and after a resume. A
 * stream that a later step makes unreadable loses the whole run's history.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RecordBatchStreamWriter, tableFromArrays } from 'apache-arrow';
import { beforeEach, describe, expect, it } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { SCHEMA_VERSION } from '../../src/streams/arrow-schema.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import { streamPath, TABLE_NAMES } from '../../src/streams/stream-files.js';
import { readStream } from '../../src/streams/stream-reader.js';
import { StreamWriter } from '../../src/streams/stream-writer.js';
import { TABLES, type TableName, type TableRow } from '../../src/streams/tables.js';
import { needs, pythonPath } from '../needs.js';
import { filled } from '../runs/rows.js';
import { temporaryFolder } from '../runs/temporary.js';

const words = { roles: ['generator', 'aggregator'], policies: ['shared'] };

/** A few signals of a step: fixed words, nulls, texts of every length, numbers. */
function signalsOf(step: number) {
  return Array.from({ length: step * 50 + 1 }, (_, row) => ({
    step,
    phase: row % 2 === 0 ? 'train' : 'evaluation',
    role: [null, 'generator', 'aggregator'][row % 3] ?? null,
    signal: 'é'.repeat(row % 5),
    value: row % 7 === 0 ? null : row / 3,
  }));
}

function write(path: string, steps: number): StreamWriter<'signals'> {
  const writer = StreamWriter.create('signals', path, words);
  for (let step = 0; step < steps; step += 1) writer.append(signalsOf(step));
  return writer;
}

describe('writing and reading', () => {
  it('gives back every value', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    write(path, 3).close();
    const { table, batches, cutBytes } = readStream(path);
    expect({ batches, cutBytes, rows: table.numRows }).toEqual({ batches: 3, cutBytes: 0, rows: 153 });
    const row = table.get(1 + 51 + 4)?.toJSON();
    expect(row).toEqual({ step: 2, phase: 'train', role: 'generator', signal: 'éééé', value: 4 / 3 });
    expect(table.get(52)?.toJSON()).toMatchObject({ step: 2, role: null, signal: '', value: null });
  });

  it('gives the rows so far while the writer goes on', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = write(path, 0);
    for (let step = 0; step < 4; step += 1) {
      expect(readStream(path).batches).toBe(step);
      writer.append(signalsOf(step));
      expect(statSync(path).size).toBe(writer.bytes);
    }
    writer.close();
  });

  it('has a table without rows before the first step', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    write(path, 0).close();
    const { table, batches } = readStream(path);
    expect([table.numRows, batches]).toEqual([0, 0]);
    expect(table.schema.fields.map((field) => field.name)).toEqual(Object.keys(TABLES.signals.columns));
  });

  it('appends nothing for no rows', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = write(path, 1);
    const before = writer.bytes;
    writer.append([]);
    expect(writer.bytes).toBe(before);
    writer.close();
  });

  it('takes no value that its column does not hold, says which, and writes none of the rows', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = write(path, 0);
    const [good] = signalsOf(0) as [TableRow<'signals'>];
    const refused = (row: object, message: string) => {
      expect(() => writer.append([good, { ...good, ...row }])).toThrow(`stream signals${message}`);
    };
    refused(
      { role: 'judge' },
      ", column role: row 1 has 'judge'; it takes one of generator, aggregator or null.",
    );
    refused({ step: 0.5 }, ', column step: row 1 has 0.5; it takes a 32-bit integer.');
    refused({ step: 2 ** 31 }, ', column step: row 1 has 2147483648; it takes a 32-bit integer.');
    refused({ step: null }, ', column step: row 1 has null; it takes a 32-bit integer.');
    refused({ step: Number.NaN }, ', column step: row 1 has NaN; it takes a 32-bit integer.');
    refused({ signal: 1 }, ', column signal: row 1 has 1; it takes a text.');
    refused({ value: '1' }, ", column value: row 1 has '1'; it takes a number or null.");
    refused({ value: undefined }, ', column value: row 1 has undefined; it takes a number or null.');
    refused({ kind: 'q' }, ': a row has kind, which is no column of it.');
    expect(readStream(path).batches).toBe(0);
    writer.append([good, { ...good, value: Number.NaN }]);
    writer.close();
    expect(readStream(path).table.get(1)?.toJSON()).toMatchObject({ signal: '', value: null });
  });

  it('takes whole numbers beyond 32 bits, times and truth values where the column has them, and nothing else', () => {
    const streams = RunStreams.create(temporaryFolder(), words);
    const timing = filled('timings', {}, words);
    const call = filled('calls', {}, words);
    const refused = { memory: 2 ** 53, memory_peak: 0.5, ended: '2026' };
    for (const [column, value] of Object.entries(refused)) {
      expect(() => streams.append('timings', [{ ...timing, [column]: value }])).toThrow(
        `column ${column}: row 0`,
      );
    }
    expect(() => streams.append('calls', [{ ...call, unread: 1 as never }])).toThrow(
      'it takes true or false.',
    );
    streams.append('timings', [{ ...timing, memory: 2 ** 40 }]);
    streams.close();
  });

  it('carries units and meanings', () => {
    const path = join(temporaryFolder(), 'timings.arrows');
    StreamWriter.create('timings', path, words).close();
    const { schema } = readStream(path).table;
    expect(schema.metadata.get('troupe.table')).toBe('timings');
    const field = schema.fields.find(({ name }) => name === 'rollout_seconds');
    expect(Object.fromEntries(field?.metadata ?? [])).toEqual({
      unit: 'seconds',
      description: 'Episodes, grading included.',
    });
  });
});

describe('a stream that was cut', () => {
  it('loses nothing before the cut, wherever it is', () => {
    const folder = temporaryFolder();
    const path = join(folder, 'signals.arrows');
    const writer = StreamWriter.create('signals', path, words);
    const ends = [writer.bytes];
    for (let step = 0; step < 3; step += 1) {
      writer.append(signalsOf(step));
      ends.push(writer.bytes);
    }
    writer.close();
    const whole = readFileSync(path);
    const cut = join(folder, 'cut.arrows');
    const places = [ends[0], ends[1], ...Array.from({ length: 200 }, (_, i) => (ends[0] ?? 0) + i * 37)];
    for (const place of places.filter((at) => at !== undefined && at <= whole.length)) {
      writeFileSync(cut, whole.subarray(0, place));
      const batches = ends.filter((end) => end <= Number(place)).length - 1;
      expect(readStream(cut).batches).toBe(batches);
    }
  });

  it('is read up to bytes that are no message: zeros of a lost write, garbage, an end mark', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    write(path, 2).close();
    const size = statSync(path).size;
    for (const tail of [
      Buffer.alloc(64),
      Buffer.alloc(300, 0xff),
      Buffer.from([255, 255, 255, 255, 0, 0, 0, 0]),
    ]) {
      truncateSync(path, size);
      appendFileSync(path, tail);
      expect(readStream(path)).toMatchObject({ batches: 2, bytes: size, cutBytes: tail.length });
    }
  });
});

describe('resuming', () => {
  it('at an offset gives the same bytes as never stopping', () => {
    const folder = temporaryFolder();
    write(join(folder, 'straight.arrows'), 5).close();
    const path = join(folder, 'stopped.arrows');
    const first = write(path, 2);
    const offset = first.bytes;
    first.append(signalsOf(2));
    first.append(signalsOf(3));
    first.close();
    truncateSync(path, statSync(path).size - 9);
    const aside = readFileSync(path).subarray(offset);
    const second = StreamWriter.resume('signals', path, words, offset, `${path}.aside`);
    expect(readStream(path).batches).toBe(2);
    // What was cut off is a stream of its own: a whole batch, and the part of one.
    expect(readStream(`${path}.aside`)).toMatchObject({ batches: 1 });
    expect(readFileSync(`${path}.aside`).subarray(-aside.length)).toEqual(aside);
    for (let step = 2; step < 5; step += 1) second.append(signalsOf(step));
    second.close();
    expect(readFileSync(path)).toEqual(readFileSync(join(folder, 'straight.arrows')));
  });

  it('without an offset starts again', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    write(path, 2).close();
    StreamWriter.resume('signals', path, words, undefined, `${path}.aside`).close();
    expect(readStream(path).batches).toBe(0);
    expect(readStream(`${path}.aside`).batches).toBe(2);
  });

  it('refuses an offset that no batch ends at, a shorter file and other roles, and leaves the file alone', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = write(path, 2);
    writer.close();
    const before = readFileSync(path);
    expect(() => StreamWriter.resume('signals', path, words, writer.bytes - 8, `${path}.aside`)).toThrow(
      /no whole batch/,
    );
    expect(() => StreamWriter.resume('signals', path, words, writer.bytes + 8, `${path}.aside`)).toThrow(
      /no whole batch/,
    );
    const others = { roles: ['generator', 'evaluator'], policies: ['shared'] };
    expect(() => StreamWriter.resume('signals', path, others, writer.bytes, `${path}.aside`)).toThrow(
      /other roles/,
    );
    expect(readFileSync(path)).toEqual(before);
  });
});

describe('bad input', () => {
  it('names a file that is missing, empty, or no stream', () => {
    const folder = temporaryFolder();
    const path = join(folder, 'x.arrows');
    expect(() => readStream(path)).toThrow(TroupeError);
    expect(() => readStream(path)).toThrow(/x\.arrows: no such file/);
    writeFileSync(path, '');
    expect(() => readStream(path)).toThrow(/is empty/);
    writeFileSync(path, 'step,loss\n1,2\n');
    expect(() => readStream(path)).toThrow(/not an Arrow IPC stream/);
  });

  it('refuses an Arrow stream of another program, and another schema version', () => {
    const path = join(temporaryFolder(), 'other.arrows');
    writeFileSync(path, RecordBatchStreamWriter.writeAll(tableFromArrays({ a: [1] })).toUint8Array(true));
    expect(() => readStream(path)).toThrow(/not one of Troupe/);
    write(join(path, '..', 'signals.arrows'), 1).close();
    const bytes = readFileSync(join(path, '..', 'signals.arrows'));
    const value = bytes.indexOf(Buffer.from([1, 0, 0, 0, ...Buffer.from(String(SCHEMA_VERSION)), 0]));
    bytes.write('7', value + 4);
    writeFileSync(path, bytes);
    expect(() => readStream(path)).toThrow(
      `has schema version 7; this Troupe reads version ${SCHEMA_VERSION}.`,
    );
  });

  it('does not overwrite a stream', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    write(path, 1).close();
    expect(() => write(path, 1)).toThrow(/exists already/);
  });

  it('says that a folder may not be written', () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'run'), 'a file where a folder should be');
    expect(() => RunStreams.create(join(folder, 'run'), words)).toThrow(TroupeError);
    if (process.getuid?.() === 0) return;
    chmodSync(folder, 0o500);
    expect(() => RunStreams.create(folder, words)).toThrow(/may not be written/);
  });
});

describe('a full disk', () => {
  /** A limit on the size of files stands for the disk: the write takes a part, then fails. */
  function runLimited(script: string): string {
    const result = spawnSync(
      'sh',
      ['-c', 'trap "" XFSZ; ulimit -f 40; exec "$0" --input-type=module -e "$1"', process.execPath, script],
      { encoding: 'utf8' },
    );
    if (result.status !== 0) throw new Error(result.stderr);
    return result.stdout;
  }

  it('is a clear error, and leaves the batches before it whole', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const output = runLimited(`
      import { StreamWriter } from './build/js/streams/stream-writer.js';
      const words = ${JSON.stringify(words)};
      const writer = StreamWriter.create('signals', ${JSON.stringify(path)}, words);
      const rows = Array.from({ length: 200 }, (_, step) => {
        return { step, phase: 'train', role: null, signal: 'x', value: null };
      });
      let batches = 0;
      try { for (;;) { writer.append(rows); batches += 1; } }
      catch (error) { console.log(JSON.stringify({ batches, bytes: writer.bytes, name: error.name, message: error.message })); }
    `);
    const { batches, bytes, name, message } = JSON.parse(output);
    expect(name).toBe('TroupeError');
    expect(message).toContain('signals.arrows');
    expect(batches).toBeGreaterThan(0);
    expect(statSync(path).size).toBe(bytes);
    expect(readStream(path)).toMatchObject({ batches, cutBytes: 0 });
  });
});

describe('the streams of a run', () => {
  it('are one file per table, and go on where a checkpoint left them', async () => {
    const folder = temporaryFolder();
    const streams = RunStreams.create(folder, words);
    streams.append('signals', signalsOf(1));
    await streams.endStep();
    const offsets = streams.offsets();
    streams.append('signals', signalsOf(2));
    streams.close();
    const aside = join(folder, 'replaced', '1');
    const resumed = RunStreams.resume(folder, words, offsets, aside);
    expect(resumed.offsets()).toEqual(offsets);
    resumed.close();
    expect(readStream(streamPath(folder, 'signals')).batches).toBe(1);
    expect(readStream(streamPath(aside, 'signals')).batches).toBe(1);
    const again = join(folder, 'replaced', '2');
    RunStreams.resume(folder, words, undefined, again).close();
    expect(readStream(streamPath(again, 'signals')).batches).toBe(1);
    expect(TABLE_NAMES.map((table) => readStream(streamPath(folder, table)).batches)).toEqual(
      TABLE_NAMES.map(() => 0),
    );
  });
});

describe('in Python', () => {
  beforeEach(needs('pyarrow'));
  const script = `
import json, sys
import polars, pyarrow
path = sys.argv[1]
rows = 0
with pyarrow.ipc.open_stream(path) as reader:
    table = pyarrow.Table.from_batches(list(reader), schema=reader.schema)
frame = polars.read_ipc_stream(path)
names = [f.name for f in table.schema]
assert frame.columns == names, (frame.columns, names)
for name in names:
    assert frame[name].cast(polars.String if str(frame[name].dtype).startswith("Cat") else frame[name].dtype).to_list() == table[name].to_pylist(), name
print(json.dumps({"rows": table.num_rows, "version": table.schema.metadata[b"troupe.schema"].decode(),
  "first": {n: table[n][0].as_py() for n in names} if table.num_rows and names[0] == "step" and names[1] == "phase" else None}))
`;
  const read = (path: string) => {
    return JSON.parse(execFileSync(pythonPath, ['-c', script, path], { encoding: 'utf8' }));
  };

  it('pyarrow and polars read a growing stream, and the same rows', () => {
    const path = join(temporaryFolder(), 'signals.arrows');
    const writer = write(path, 0);
    let rows = 0;
    for (let step = 0; step < 3; step += 1) {
      expect(read(path)).toMatchObject({ rows, version: String(SCHEMA_VERSION) });
      writer.append(signalsOf(step));
      rows += step * 50 + 1;
    }
    writer.close();
    expect(read(path)).toEqual({
      rows,
      version: String(SCHEMA_VERSION),
      first: { step: 0, phase: 'train', role: null, signal: '', value: null },
    });
  });

  it('both read every table', () => {
    const folder = temporaryFolder();
    const streams = RunStreams.create(folder, words);
    const samples: Record<string, unknown> = {
      int32: 1,
      int64: 2 ** 40,
      float64: 0.5,
      bool: true,
      text: 'é',
      time: 1.7e12,
    };
    for (const table of TABLE_NAMES) {
      for (let batch = 0; batch < 2; batch += 1) {
        const rows = Array.from({ length: 100 }, (_, row) => sampleRow(table, samples, row));
        streams.append(table, rows as never);
      }
    }
    streams.close();
    for (const table of TABLE_NAMES) {
      expect([table, read(streamPath(folder, table)).rows]).toEqual([table, 200]);
    }
  });

  function sampleRow(table: TableName, samples: Record<string, unknown>, row: number): object {
    const entries = Object.entries(TABLES[table].columns).map(([name, { type, nullable, vocabulary }]) => {
      const list =
        vocabulary === 'roles' || vocabulary === 'policies' ? words[vocabulary] : (vocabulary as string[]);
      const value = type === 'name' ? list[row % list.length] : samples[type];
      return [name, nullable && row % 3 === 0 ? null : value];
    });
    return Object.fromEntries(entries);
  }
});

/** Exported tables hold what the streams hold, nulls and names included. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { describe, expect, it } from 'vitest';
import { describeEnvironment } from '../../src/runs/environment.js';
import { exportParquet } from '../../src/runs/parquet.js';
import { createRun } from '../../src/runs/run-directory.js';
import { RunStreams } from '../../src/streams/run-streams.js';
import { TABLE_NAMES } from '../../src/streams/stream-files.js';
import { filled } from './rows.js';
import { temporaryFolder } from './temporary.js';

const words = { roles: ['generator'], policies: ['shared'] };
const environment = describeEnvironment({ libtorch: null, devices: [] });

describe('export', () => {
  it('writes every table', async () => {
    const run = temporaryFolder();
    createRun(run, '', environment).release();
    const streams = RunStreams.create(run, words);
    const steps = [0, 1, 2];
    streams.append(
      'signals',
      steps.map((step) => {
        const role = step === 1 ? null : 'generator';
        return { step, phase: 'train', role, signal: `é ${step}`, value: step === 2 ? null : 0.5 };
      }),
    );
    const ended = Date.UTC(2026, 0, 2);
    streams.append(
      'timings',
      steps.map((step) => filled('timings', { step, ended, memory: step }, words)),
    );
    streams.close();
    const folder = join(run, 'tables');
    const exported = exportParquet(run, folder);
    expect(exported.map(({ table }) => table)).toEqual(TABLE_NAMES);
    const file = await asyncBufferFromFile(join(folder, 'signals.parquet'));
    expect(await parquetReadObjects({ file })).toEqual([
      { step: 0, phase: 'train', role: 'generator', signal: 'é 0', value: 0.5 },
      { step: 1, phase: 'train', role: null, signal: 'é 1', value: 0.5 },
      { step: 2, phase: 'train', role: 'generator', signal: 'é 2', value: null },
    ]);
    const { key_value_metadata } = await parquetMetadataAsync(file);
    expect(key_value_metadata).toContainEqual({ key: 'troupe.table', value: 'signals' });
    const times = await parquetReadObjects({
      file: await asyncBufferFromFile(join(folder, 'timings.parquet')),
    });
    expect(times[2]).toMatchObject({ step: 2, ended: new Date('2026-01-02T00:00:00Z'), memory: 2n });
    const empty = await parquetReadObjects({
      file: await asyncBufferFromFile(join(folder, 'calls.parquet')),
    });
    expect(empty).toEqual([]);
  });

  it('refuses what is no run, and a run without rows', () => {
    const run = temporaryFolder();
    expect(() => exportParquet(run, join(run, 'tables'))).toThrow(/is no run directory/);
    writeFileSync(join(run, 'config.yaml'), '');
    RunStreams.create(run, words).close();
    expect(() => exportParquet(run, join(run, 'tables'))).toThrow(/has no rows yet/);
  });
});

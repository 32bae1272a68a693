/** Small training runs inside the test process, and what they leave in their streams. */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { printConfig } from '../../src/config/print.js';
import { type RunConfig, type RunInput, runSchema } from '../../src/config/schema.js';
import { Engine } from '../../src/engine/engine.js';
import type { TableName } from '../../src/gradients/tables.js';
import { DirectoryRecorder } from '../../src/learning/run-recorder.js';
import { type TrainOutcome, trainRun } from '../../src/learning/train.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun } from '../../src/runs/run-directory.js';
import { readStream } from '../../src/runs/stream-reader.js';
import { streamPath } from '../../src/runs/streams.js';

const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };

/** Two steps of voting on single-digit sums; `over` replaces whole sections. */
export function smallConfig(over: RunInput): RunConfig {
  return runSchema.parse({
    steps: 2,
    deterministic: true,
    model: { path: 'troupe-0.3m' },
    task: { name: 'arithmetic', levels: [1] },
    workflow: { name: 'voting', prompts: 'small' },
    rollout: { promptsPerStep: 3, episodesPerPrompt: 4, sampling: { temperature: 1, maxTokens: 6 } },
    evaluation: { every: 0, problems: 3 },
    ...over,
  });
}

export interface TrainedRun {
  folder: string;
  outcome: TrainOutcome;
  rows(table: TableName): Record<string, unknown>[];
}

export function rowsOfRun(folder: string, table: TableName): Record<string, unknown>[] {
  return readStream(streamPath(folder, table))
    .table.toArray()
    .map((row) => row.toJSON());
}

/** A whole run in a new folder. Its folder is known to `began`, for a look at a run that throws. */
export async function trainedRun(over: RunInput, began?: (folder: string) => void): Promise<TrainedRun> {
  const folder = join(mkdtempSync(join(tmpdir(), 'troupe-trained-')), 'run');
  began?.(folder);
  const config = smallConfig(over);
  await using engine = new Engine();
  const recorder = new DirectoryRecorder(createRun(folder, printConfig(config), environment), config);
  try {
    const outcome = await trainRun(engine, config, recorder);
    return { folder, outcome, rows: (table) => rowsOfRun(folder, table) };
  } finally {
    recorder.close();
  }
}

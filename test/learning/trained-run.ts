/** Small training runs inside the test process, and what they leave in their streams. */
import { createHash } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { printConfig } from '../../src/config/print.js';
import { type RunConfig, type RunInput, runSchema } from '../../src/config/schema.js';
import { Engine } from '../../src/engine/engine.js';
import { DirectoryRecorder } from '../../src/learning/run-recorder.js';
import type { StepRecord } from '../../src/learning/steps.js';
import { type TrainOutcome, trainRun } from '../../src/learning/train.js';
import { listCheckpoints } from '../../src/runs/checkpoint.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun, type RunDirectory, resumeRun } from '../../src/runs/run-directory.js';
import { streamPath } from '../../src/streams/stream-files.js';
import { readStream } from '../../src/streams/stream-reader.js';
import type { TableName } from '../../src/streams/tables.js';

const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };

/** Two steps of voting on the sums that the model half knows; `over` replaces whole sections. */
export function smallConfig(over: RunInput): RunConfig {
  return runSchema.parse({
    steps: 2,
    deterministic: true,
    model: { path: 'troupe-0.3m' },
    task: { name: 'arithmetic' },
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

const parent = mkdtempSync(join(tmpdir(), 'troupe-trained-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

export function newFolder(): string {
  return join(mkdtempSync(join(parent, 'run-')), 'run');
}

/** How a run ends before its last step; both after this many steps of this process. */
export interface Ending {
  /** As a kill does: nothing is saved. */
  crash?: number;
  /** As a stop signal does. */
  stop?: number;
}

class EndingRecorder extends DirectoryRecorder {
  #steps = 0;
  readonly #ending: Ending;
  readonly stop = new AbortController();

  constructor(directory: RunDirectory, config: RunConfig, ending: Ending) {
    super(directory, config);
    this.#ending = ending;
    setMaxListeners(0, this.stop.signal);
  }

  override async step(record: StepRecord): Promise<void> {
    await super.step(record);
    this.#steps += 1;
    if (this.#steps === this.#ending.crash) throw new Error('crash');
    if (this.#steps === this.#ending.stop) this.stop.abort();
  }
}

async function train(directory: RunDirectory, config: RunConfig, ending: Ending): Promise<TrainedRun> {
  const { folder } = directory;
  await using engine = new Engine();
  const recorder = new EndingRecorder(directory, config, ending);
  try {
    const outcome = await trainRun(engine, config, recorder, { signal: recorder.stop.signal });
    return { folder, outcome, rows: (table) => rowsOfRun(folder, table) };
  } finally {
    recorder.close();
  }
}

/** A run in a new folder. */
export async function trainedRun(
  over: RunInput,
  folder = newFolder(),
  ending: Ending = {},
): Promise<TrainedRun> {
  const config = smallConfig(over);
  return train(createRun(folder, printConfig(config), environment), config, ending);
}

/** Goes on with a run. */
export async function resumedRun(over: RunInput, folder: string, ending: Ending = {}): Promise<TrainedRun> {
  const config = smallConfig(over);
  return train(
    await resumeRun(folder, {
      config: printConfig(config),
      environment,
      warn: () => {},
      restart: listCheckpoints(folder).length === 0,
    }),
    config,
    ending,
  );
}

/** Digests of what a run leaves, timings aside: streams, and the parameters of its last checkpoint. */
export function remains(folder: string): Record<string, string> {
  const streams = readdirSync(join(folder, 'streams')).filter((name) => !name.startsWith('timings'));
  const checkpoint = listCheckpoints(folder).at(-1)?.folder ?? '';
  const policies = readdirSync(join(checkpoint, 'policies'));
  const files = [
    ...streams.map((name) => join(folder, 'streams', name)),
    ...policies.map((name) => join(checkpoint, 'policies', name, 'training-state.safetensors')),
  ];
  const digest = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');
  return Object.fromEntries(files.map((file) => [file.slice(folder.length), digest(file)]));
}

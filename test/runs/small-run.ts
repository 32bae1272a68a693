/** A run of a few steps that writes streams and checkpoints and goes on where it stopped. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { listCheckpoints, pruneCheckpoints, saveCheckpoint } from '../../src/runs/checkpoint.js';
import { describeEnvironment } from '../../src/runs/environment.js';
import { createRun, type RunDirectory, resumeRun } from '../../src/runs/run-directory.js';
import { RunStreams } from '../../src/streams/run-streams.js';

export const STEPS = 3;
const words = { roles: ['generator'], policies: ['shared'] };
const environment = { ...describeEnvironment({ libtorch: null, devices: [] }), commit: null };

/** What the parameters file of the checkpoint after `step` holds. */
export const parametersAfter = (step: number) => `parameters after ${step} steps `.repeat(1000);

export async function smallRun(folder: string, warn: (text: string) => void = () => {}): Promise<void> {
  const started = existsSync(join(folder, 'config.yaml'));
  const run = started
    ? await resumeRun(folder, {
        config: 'seed: 1\n',
        environment,
        warn,
        restart: listCheckpoints(folder).length === 0,
      })
    : createRun(folder, 'seed: 1\n', environment);
  const streams = started
    ? RunStreams.resume(folder, words, run.checkpoint?.streams, run.aside)
    : RunStreams.create(folder, words);
  try {
    await goOn(run, streams);
    run.release();
  } finally {
    streams.close();
  }
}

async function goOn(run: RunDirectory, streams: RunStreams): Promise<void> {
  for (let step = run.checkpoint?.step ?? 0; step < STEPS; step += 1) {
    const signals = Array.from({ length: 20 }, (_, row) => {
      return { step, phase: 'train', role: 'generator', signal: `row ${row}`, value: step * 100 + row };
    });
    streams.append('signals', signals);
    await streams.endStep();
    const state = { step: step + 1, score: null, trainer: { sum: step } };
    await saveCheckpoint(run.folder, streams, state, (into) => {
      mkdirSync(join(into, 'policies', 'shared'), { recursive: true });
      writeFileSync(join(into, 'policies', 'shared', 'parameters'), parametersAfter(step + 1));
    });
    pruneCheckpoints(run.folder, 1);
  }
}

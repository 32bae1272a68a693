/** What this machine takes for the parts of a step, as one of several ranks that share it. */
import { cpus } from 'node:os';
import type { RunConfig } from '../../config/schema.js';
import { Engine } from '../../engine/engine.js';
import { native } from '../../engine/native.js';
import { freePort } from '../../engine/rank-place.js';
import { Ranks } from '../../engine/ranks.js';
import { type StepCosts, withLayers } from './costs.js';
import { rolloutPhases } from './measured-phases.js';
import type { PlannedStep } from './planned-calls.js';
import { withProbeModels } from './probe-model.js';
import { replayRollout } from './rollout-replay.js';
import { type DecodingWeight, threadsOf } from './step-memory.js';
import { probe } from './step-probe.js';
import type { StepWork } from './step-work.js';

const host = '127.0.0.1';
const device = 'cpu';
/** Seconds of a rollout that is run as a whole, by what its parts take. */
const LONGEST_ROLLOUT = 2;

/** Measured times, and what a plan has to know of the machine beside them. */
export interface MeasuredCpu {
  name: string;
  /** Bytes. */
  memory: number;
  costs: StepCosts;
  /** Bytes of the copy that its kernels make of a weight for decoding; 0: none. */
  packedBytes: (weight: DecodingWeight) => number;
}

export interface MeasuredModel {
  /** Its config.json. */
  json: Record<string, unknown>;
  layers: number;
  /** Where it lies; undefined: it is a shape alone. */
  folder: string | undefined;
}

/**
 * `ranks` on this machine measure at the same time, each with its share of the cores, and meet as they do in a run. Takes
 * some twenty seconds and the memory of a run.
 */
export async function measureCpu(
  config: RunConfig,
  { json, layers, folder }: MeasuredModel,
  planned: { step: PlannedStep; work: StepWork },
  ranks: number,
): Promise<MeasuredCpu> {
  const threads = threadsOf(ranks);
  const engines = Array.from({ length: ranks }, () => new Engine({ threads }));
  try {
    const joined = await meet(engines);
    const costs = await withProbeModels(json, folder, async (models) => {
      const measured: [number, StepCosts][] = [];
      for (const model of models) {
        const all = engines.map((engine, rank) =>
          probe({ engine, ranks: joined[rank] as Ranks }, config, model.folder, planned),
        );
        const [first] = await Promise.all(all);
        measured.push([model.layers, first as StepCosts]);
      }
      const [a, b] = measured;
      if (a === undefined) throw new Error('there is a model to measure');
      if (b !== undefined) return withLayers(layers, a, b);
      const modelled = rolloutPhases(planned.work, a[1]).reduce((sum, { seconds }) => sum + seconds, 0);
      if (modelled > LONGEST_ROLLOUT) return a[1];
      const replays = engines.map((engine, rank) =>
        replayRollout({ engine, ranks: joined[rank] as Ranks }, config, planned.step),
      );
      const [rollout] = await Promise.all(replays);
      return { ...a[1], rollout: rollout as number };
    });
    await Promise.all(joined.map((one) => one.leave()));
    const [model] = cpus();
    return {
      name: model?.model.trim() ?? 'this processor',
      memory: native().deviceMemory(device).limit,
      costs,
      packedBytes: ({ dtype, outputs, inputs, head }) =>
        native().packedBytes(device, dtype, outputs, inputs, head),
    };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

/** The engines as ranks of one run. */
async function meet(engines: readonly Engine[]): Promise<Ranks[]> {
  const port = await freePort();
  const size = engines.length;
  return await Promise.all(
    engines.map((engine, rank) => {
      const place = { rank, size, localRank: rank, localSize: size, host, port, serve: rank === 0 };
      const started = { ...place, prefix: 'plan', restarts: 0, maxRestarts: 0, nccl: false };
      return Ranks.join(engine, started, { timeoutSeconds: 60 });
    }),
  );
}

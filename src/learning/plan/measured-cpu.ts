/** What this machine takes for the parts of a step, as one of several ranks that share it. */
import { availableParallelism, cpus } from 'node:os';
import type { RunConfig } from '../../config/schema.js';
import { Engine } from '../../engine/engine.js';
import { native } from '../../engine/native.js';
import { freePort } from '../../engine/rank-place.js';
import { Ranks } from '../../engine/ranks.js';
import type { LinkRates } from '../../engine/rates.js';
import { type StepCosts, withLayers } from './costs.js';
import type { PlannedStep } from './planned-calls.js';
import { withProbeModels } from './probe-model.js';
import { probe } from './step-probe.js';
import type { StepWork } from './step-work.js';

const host = '127.0.0.1';

/** Measured times, and what a plan has to know of the machine beside them. */
export interface MeasuredCpu {
  name: string;
  /** Bytes. */
  memory: number;
  costs: StepCosts;
  /** Whether it lays weights out again for decoding. */
  repacks: boolean;
  /** undefined: one rank. */
  links: LinkRates | undefined;
}

export interface MeasuredModel {
  /** Its config.json. */
  json: Record<string, unknown>;
  layers: number;
  /** Where it lies; undefined: it is a shape alone. */
  folder: string | undefined;
}

/**
 * `ranks` on this machine measure at the same time, each with its share of the cores: that is what they have in a run.
 * Takes some twenty seconds and the memory of a run.
 */
export async function measureCpu(
  config: RunConfig,
  { json, layers, folder }: MeasuredModel,
  planned: { step: PlannedStep; work: StepWork },
  ranks: number,
): Promise<MeasuredCpu> {
  const threads = Math.max(1, Math.floor(availableParallelism() / ranks));
  const engines = Array.from({ length: ranks }, () => new Engine({ threads }));
  try {
    const costs = await withProbeModels(json, folder, async (models) => {
      const measured: [number, StepCosts][] = [];
      for (const model of models) {
        const all = engines.map((engine) => probe(engine, config, model.folder, planned));
        const [first] = await Promise.all(all);
        measured.push([model.layers, first as StepCosts]);
      }
      const [a, b] = measured;
      if (a === undefined) throw new Error('there is a model to measure');
      return b === undefined ? a[1] : withLayers(layers, a, b);
    });
    const [model] = cpus();
    const repacks = config.model.dtype !== 'bfloat16' || native().bf16Kernels();
    const links = ranks === 1 ? undefined : await linkRates(engines);
    return {
      name: model?.model.trim() ?? 'this processor',
      memory: native().deviceMemory('cpu').limit,
      costs,
      links,
      repacks,
    };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

async function linkRates(engines: readonly Engine[]): Promise<LinkRates> {
  const port = await freePort();
  const size = engines.length;
  const rates = await Promise.all(
    engines.map(async (engine, rank) => {
      const place = { rank, size, localRank: rank, localSize: size, host, port, serve: rank === 0 };
      const started = { ...place, prefix: 'plan', restarts: 0, maxRestarts: 0 };
      const ranks = await Ranks.join(engine, started, { timeoutSeconds: 60 });
      const rate = await engine.send('measureLink', null);
      await ranks.leave();
      return rate;
    }),
  );
  const slowest = (part: keyof LinkRates) => Math.min(...rates.map((rate) => rate[part]));
  return { reduceScatter: slowest('reduceScatter'), allGather: slowest('allGather') };
}

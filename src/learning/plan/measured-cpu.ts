/** What this machine allows one of several ranks that share it. */
import { availableParallelism } from 'node:os';
import type { RunConfig } from '../../config/schema.js';
import { Engine } from '../../engine/engine.js';
import { freePort } from '../../engine/rank-place.js';
import { Ranks } from '../../engine/ranks.js';
import type { Device } from './devices.js';

const host = '127.0.0.1';

/** `ranks` on this machine measure at the same time, each with its share of the cores: that is what they have in a run. */
export async function measuredCpu(dtype: RunConfig['model']['dtype'], ranks: number): Promise<Device> {
  const threads = Math.max(1, Math.floor(availableParallelism() / ranks));
  const engines = Array.from({ length: ranks }, () => new Engine({ threads }));
  try {
    const measured = await Promise.all(engines.map((engine) => engine.send('measureRates', { dtype })));
    const slowest = measured.reduce((a, b) => (a.flops[dtype] < b.flops[dtype] ? a : b));
    const bandwidth = Math.min(...measured.map((one) => one.bandwidth));
    const device = { ...slowest, bandwidth, memory: slowest.memory / ranks };
    if (ranks === 1) return device;
    return { ...device, links: { host: await linkRate(engines), backend: 'gloo' } };
  } finally {
    await Promise.all(engines.map((engine) => engine.close()));
  }
}

async function linkRate(engines: readonly Engine[]): Promise<number> {
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
  return Math.min(...rates);
}

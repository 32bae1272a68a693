/** A step on a device: how long each part takes and what bounds it, and whether its memory is enough. */
import { TroupeError } from '../../config/errors.js';
import type { Device } from './devices.js';
import type { CacheWork, Exchange, MemoryPart, StepWork, Work } from './step-work.js';

export type Bound = 'products' | 'memory' | 'attention' | 'launches' | 'links';

export interface PhasePlan {
  name: string;
  seconds: number;
  /** What takes most of it. */
  bound: Bound;
  /** Seconds by what they are for; launches where kernels are shorter than the gap between two. */
  parts: Record<Bound, number>;
}

export interface StepPlan {
  device: string;
  phases: PhasePlan[];
  seconds: number;
  /** Bytes of the tensors and records that go through the device's collectives, and what it sends of them. */
  exchanged: { bytes: number; sent: number };
  /** Tokens that the KV cache may hold, and those of the step. */
  cacheTokens: { planned: number; used: number };
  /** Bytes on the device at the peak, by part, and what the device has. */
  memory: { parts: MemoryPart[]; peak: number; device: number; during: 'rollout' | 'training' };
}

/** `hosts`: that the step's devices are on, as many on each. */
export function planOnDevice(
  step: StepWork,
  device: Device,
  dtype: keyof Device['flops'],
  hosts = 1,
): StepPlan {
  const sent = (exchange: Exchange) => sentBytes(exchange, step.devices, device);
  const rate = step.exchanges.length === 0 ? 1 : linkRate(device, step.devices, hosts);
  const exchanges = step.exchanges.map((one) => linkPhase(one.name, sent(one) / rate));
  const phases = [...step.work.map((work) => phase(work, device, dtype)), ...exchanges];
  const total = (parts: readonly MemoryPart[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const { cache } = step;
  const free = device.memory - total(step.held) - device.overhead;
  const planned = cacheTokens(cache, free, device);
  const used = Math.min(planned, cache.tokens);
  const added = {
    rollout: [{ name: 'KV cache', bytes: used * cache.token }, ...step.rollout],
    training: step.training,
  };
  const during = total(added.rollout) > total(added.training) ? 'rollout' : 'training';
  const overhead = { name: 'the program itself', bytes: device.overhead };
  const parts = [...step.held, ...added[during], overhead];
  return {
    device: device.name,
    phases,
    seconds: phases.reduce((sum, { seconds }) => sum + seconds, 0),
    exchanged: {
      bytes: step.exchanges.reduce((sum, one) => sum + one.reduceScatter + one.allGather, 0),
      sent: step.exchanges.reduce((sum, one) => sum + sent(one), 0),
    },
    cacheTokens: { planned, used },
    memory: { parts, peak: total(parts), device: device.memory, during },
  };
}

function phase(work: Work, device: Device, dtype: keyof Device['flops']): PhasePlan {
  const rate = device.flops[dtype];
  const parts: Record<Bound, number> = {
    products: work.products / rate,
    attention: work.attention / (rate * device.attention),
    memory: work.bytes / device.bandwidth,
    launches: 0,
    links: 0,
  };
  const weights = work.weightBytes / device.bandwidth;
  if (weights > parts.products) {
    parts.memory += weights;
    parts.products = 0;
  }
  const busy = parts.products + parts.attention + parts.memory;
  parts.launches = Math.max(0, work.launches * device.launch - busy);
  const [bound] = (Object.keys(parts) as Bound[]).toSorted((a, b) => parts[b] - parts[a]);
  return { name: work.name, seconds: busy + parts.launches, bound: bound ?? 'products', parts };
}

/** As `automatic_cache_bytes` in native/rollout/kv_pages.cc: of what is free a quarter on a CPU, half on a GPU. */
function cacheTokens({ limit, token, most }: CacheWork, free: number, { launch }: Device): number {
  if (limit !== 'auto') return Math.floor(limit / token);
  return Math.max(0, Math.min(most, Math.floor(free / (launch === 0 ? 4 : 2) / token)));
}

/** Of a ring: every device passes on all parts but one, as they are added up and as they are spread. */
function sentBytes({ reduceScatter, allGather }: Exchange, devices: number, { links }: Device): number {
  const ring = ((devices - 1) / devices) * (reduceScatter + allGather);
  return links?.backend === 'gloo' ? 2 * ring : ring;
}

/** Bytes a second. A ring over several hosts is as fast as its slowest link: what leaves a host passes its network once. */
function linkRate({ name, links }: Device, devices: number, hosts: number): number {
  const rates = [
    devices > hosts ? links?.host : Number.POSITIVE_INFINITY,
    hosts > 1 ? links?.network : Number.POSITIVE_INFINITY,
  ];
  if (rates.includes(undefined)) {
    throw new TroupeError(
      `says nothing of ${hosts > 1 ? 'the network between hosts' : 'the links between devices'}.`,
      {
        where: `--device ${name}`,
        hint: 'Give a JSON file whose links have host and network, bytes a second (docs/scale.md).',
      },
    );
  }
  return Math.min(...(rates as number[]));
}

function linkPhase(name: string, seconds: number): PhasePlan {
  const none = { products: 0, attention: 0, memory: 0, launches: 0 };
  return { name, seconds, bound: 'links', parts: { ...none, links: seconds } };
}

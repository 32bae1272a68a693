/** A step on a device: how long each part takes and what bounds it, and whether its memory is enough. */
import { TroupeError } from '../../config/errors.js';
import type { NativeModelConfig } from '../../engine/native-model.js';
import { type Device, isGpu } from './devices.js';
import type { MeasuredCpu } from './measured-cpu.js';
import { measuredPhases } from './measured-phases.js';
import { bytesOf, cpuBlock, type MemoryNeed } from './memory-need.js';
import type { PhasePlan } from './phase-plan.js';
import { ratedPhases } from './rated-phases.js';
import { BYTES, type DecodingWeight, weightCopies } from './step-memory.js';
import type { CacheWork, Exchange, StepWork } from './step-work.js';

export interface MemoryPart {
  name: string;
  bytes: number;
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

/** By the rates of a device. `hosts`: that the step's devices are on, as many on each. */
export function planOnDevice(
  shape: NativeModelConfig,
  step: StepWork,
  device: Device,
  dtype: keyof Device['flops'],
  hosts = 1,
): StepPlan {
  const { name, memory, overhead } = device;
  const sent = (exchange: Exchange) => sentBytes(exchange, step.devices, device);
  const rate = step.exchanges.length === 0 ? 1 : linkRate(device, step.devices, hosts);
  const exchanges = step.exchanges.map((one) => linkPhase(one.name, sent(one) / rate));
  const phases = [...ratedPhases(shape, step, device, dtype), ...exchanges];
  const bytes = step.exchanges.reduce((sum, one) => sum + sent(one), 0);
  const parts = isGpu(device) ? onGpu(step) : onCpu(step, asWithAmx);
  const held = memoryOf(step, parts, { memory, overhead, shared: memory });
  return { device: name, ...joined(step, phases, bytes), ...held };
}

/** By what was measured on this machine, which all of the step's devices share. */
export function planOnCpu(step: StepWork, { name, memory, costs, packedBytes }: MeasuredCpu): StepPlan {
  const phases = measuredPhases(step, costs);
  const sent = 2 * step.exchanges.reduce((sum, one) => sum + ringBytes(one, step.devices), 0);
  // Each finds all of the machine's memory free.
  const own = { memory: memory / step.devices, overhead: 0, shared: memory };
  return { device: name, ...joined(step, phases, sent), ...memoryOf(step, onCpu(step, packedBytes), own) };
}

function joined(
  step: StepWork,
  phases: PhasePlan[],
  sent: number,
): Pick<StepPlan, 'phases' | 'seconds' | 'exchanged'> {
  return {
    phases,
    seconds: phases.reduce((sum, { seconds }) => sum + seconds, 0),
    exchanged: {
      bytes: step.exchanges.reduce((sum, one) => sum + one.reduceScatter + one.allGather, 0),
      sent,
    },
  };
}

/** What is held all the time, and what rollout (the cache aside) and training add to it. */
interface Parts {
  held: MemoryPart[];
  rollout: MemoryPart[];
  training: MemoryPart[];
  /** The cache may take one of so many parts of what is free then. */
  cache: 2 | 4;
}

const sized = (needs: readonly MemoryNeed[], block: (bytes: number) => number): MemoryPart[] =>
  needs.map((need) => ({ name: need.name, bytes: bytesOf(need, block) }));

function onCpu({ memory: { cpu, ...memory } }: StepWork, packedBytes: MeasuredCpu['packedBytes']): Parts {
  const copies = weightCopies(cpu.decoding, packedBytes);
  return {
    held: sized([...memory.held, ...copies.held], cpuBlock),
    rollout: sized([...memory.rollout, ...copies.rollout], cpuBlock),
    training: sized(cpu.training, cpuBlock),
    cache: 4,
  };
}

/** Of a CPU that is described: as one with AMX does it, which has no other layout for the output projection in float32. */
const asWithAmx = ({ dtype, outputs, inputs, head }: DecodingWeight): number =>
  dtype === 'float64' || (dtype === 'float32' && head) ? 0 : BYTES[dtype] * outputs * inputs;

function onGpu({ memory: { gpu, ...memory } }: StepWork): Parts {
  return {
    held: sized([...memory.held, ...gpu.held], Math.ceil),
    rollout: sized(memory.rollout, Math.ceil),
    training: sized([...memory.training, ...gpu.training], Math.ceil),
    cache: 2,
  };
}

const total = (parts: readonly MemoryPart[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);

/** `shared`: what the cache's part is taken of, in bytes. */
function memoryOf(
  { cache }: StepWork,
  parts: Parts,
  device: { memory: number; overhead: number; shared: number },
): Pick<StepPlan, 'cacheTokens' | 'memory'> {
  const free = device.shared - device.overhead - total(parts.held);
  const planned = cacheTokens(cache, free / parts.cache);
  const used = Math.min(planned, cache.tokens);
  const added = {
    rollout: [{ name: 'KV cache', bytes: used * cache.token }, ...parts.rollout],
    training: parts.training,
  };
  const during = total(added.rollout) > total(added.training) ? 'rollout' : 'training';
  const overhead = { name: 'the program itself', bytes: device.overhead };
  const all = [...parts.held, ...added[during], overhead];
  return {
    cacheTokens: { planned, used },
    memory: { parts: all, peak: total(all), device: device.memory, during },
  };
}

/** As `automatic_cache_bytes` in native/rollout/kv_pages.cc: of what is free a quarter on a CPU, half on a GPU. */
function cacheTokens({ limit, token, most }: CacheWork, allowed: number): number {
  if (limit !== 'auto') return Math.floor(limit / token);
  return Math.max(0, Math.min(most, Math.floor(allowed / token)));
}

/** Of a ring: every device passes on all parts but one, as they are added up and as they are spread. */
const ringBytes = ({ reduceScatter, allGather }: Exchange, devices: number) =>
  ((devices - 1) / devices) * (reduceScatter + allGather);

function sentBytes(exchange: Exchange, devices: number, { links }: Device): number {
  return (links?.backend === 'gloo' ? 2 : 1) * ringBytes(exchange, devices);
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

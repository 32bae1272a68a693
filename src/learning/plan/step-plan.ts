/** A step on a device: how long each part takes and what bounds it, and whether its memory is enough. */
import type { Device } from './devices.js';
import type { MemoryPart, StepWork, Work } from './step-work.js';

export type Bound = 'products' | 'memory' | 'attention' | 'launches';

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
  /** Bytes on the device at the peak, by part, and what the device has. */
  memory: { parts: MemoryPart[]; peak: number; device: number; during: 'rollout' | 'training' };
}

export function planOnDevice(step: StepWork, device: Device, dtype: keyof Device['flops']): StepPlan {
  const phases = step.work.map((work) => phase(work, device, dtype));
  const total = (parts: readonly MemoryPart[]) => parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const during = total(step.rollout) > total(step.training) ? 'rollout' : 'training';
  const overhead = { name: 'the program itself', bytes: device.overhead };
  const parts = [...step.held, ...step[during], overhead];
  return {
    device: device.name,
    phases,
    seconds: phases.reduce((sum, { seconds }) => sum + seconds, 0),
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

/** What a device allows, in the few numbers that a plan needs. */

import { z } from 'zod';
import { checkSection } from '../../config/check.js';
import { readJson } from '../../config/json.js';
import { unknownName } from '../../config/nearest.js';
import { CPU_LEVELS, GPU_LEVELS } from './tree-rows.js';

const positive = () => z.number().positive();
const deviceSchema = z.strictObject({
  name: z.string(),
  /** Bytes. */
  memory: positive(),
  /** Floating-point operations a second of large matrix products. */
  flops: z.strictObject({ bfloat16: positive(), float32: positive(), float64: positive() }),
  /** The same for attention, as a share of that. */
  attention: positive().max(1),
  /** Bytes a second, read plus written, of large copies. */
  bandwidth: positive(),
  /** The share of it that norms, rotations, activations and narrow products reach. */
  elementwise: positive().max(1),
  /** Seconds that a kernel takes beside its operations and bytes, from the last one's end to its own full speed and down again; 0 for a CPU. */
  launch: z.number().min(0),
  /** Bytes that the process holds beside tensors. */
  overhead: z.number().min(0),
  /** Between devices; left out: there is one. */
  links: z
    .strictObject({
      /**
       * Bytes a second that a device sends to its neighbour in a ring on the same host, and that all devices of a host send to
       * another host: what nccl-tests calls the bus bandwidth.
       */
      host: positive(),
      network: positive().optional(),
      /** nccl: rings. gloo: sums go to all ranks and parts come by broadcasts, each twice a ring's bytes. */
      backend: z.enum(['nccl', 'gloo']),
    })
    .optional(),
});
export type Device = z.output<typeof deviceSchema>;

/**
 * Of an HGX board's cards, not measured: 80 % of the data sheet's 450 GB/s each way of NVLink 4, and 90 % of one adapter of
 * 400 Gbit/s a host. Hosts that have one for each card move eight times as much.
 */
const HOPPER_LINKS = { host: 360e9, network: 45e9, backend: 'nccl' } as const;

/**
 * Of one H200 (docs/cuda-measurements.md): products of a 1.7B and a 4B layer of 8,192 rows, flash attention of 16 × 512 tokens forward and
 * backward, copies, kernels of a training pass; `launch` from products and small kernels of 32 rows (4 to 7 µs more than
 * their weights take). An H100 has the same multiprocessors, so that everything but its memory is taken to be the same.
 * A CPU is measured when it is asked for (measured-cpu.ts).
 */
const HOPPER = {
  flops: { bfloat16: 725e12, float32: 51e12, float64: 51e12 },
  attention: 0.165,
  elementwise: 0.7,
  launch: 4e-6,
  overhead: 0.6e9,
  links: HOPPER_LINKS,
} as const;
export const DEVICES: Record<string, Device> = {
  h100: { name: 'NVIDIA H100 80GB HBM3', memory: 85e9, bandwidth: 3.0e12, ...HOPPER },
  h200: { name: 'NVIDIA H200', memory: 150e9, bandwidth: 4.26e12, ...HOPPER },
};

/** A CPU's kernels launch nothing. */
export const isGpu = ({ launch }: Device): boolean => launch > 0;
/** Of the prefix trees that it computes. */
export const treeLevels = (device: Device): number => (isGpu(device) ? GPU_LEVELS : CPU_LEVELS);

/** A device by name, or from a JSON file with the fields of `Device`. */
export function findDevice(name: string): Device {
  const known = DEVICES[name];
  if (known !== undefined) return known;
  if (!name.endsWith('.json'))
    throw unknownName('device', name, [...Object.keys(DEVICES), 'cpu'], '--device');
  return checkSection(deviceSchema, readJson(name), { locate: () => name });
}

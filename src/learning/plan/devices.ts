/** What a device allows, in the few numbers that a plan needs. */

import { z } from 'zod';
import { checkSection } from '../../config/check.js';
import { readJson } from '../../config/json.js';
import { unknownName } from '../../config/nearest.js';

const positive = () => z.number().positive();
const deviceSchema = z.strictObject({
  name: z.string(),
  /** Bytes. */
  memory: positive(),
  /** Floating-point operations a second of large matrix products. */
  flops: z.strictObject({ bfloat16: positive(), float32: positive(), float64: positive() }),
  /** The same for attention, as a share of that. */
  attention: positive().max(1),
  /** Bytes a second, read plus written. */
  bandwidth: positive(),
  /** Seconds from one kernel's start to the next one's, where kernels are shorter; 0 for a CPU. */
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
 * Measured on one card each (docs/cuda.md; the H100's products and copies as shared/notes reports one). A CPU is measured
 * when it is asked for.
 */
export const DEVICES: Record<string, Device> = {
  h100: {
    name: 'NVIDIA H100 80GB HBM3',
    memory: 85e9,
    flops: { bfloat16: 798e12, float32: 51e12, float64: 51e12 },
    attention: 0.17,
    bandwidth: 3.0e12,
    launch: 3e-6,
    overhead: 0.6e9,
    links: HOPPER_LINKS,
  },
  h200: {
    name: 'NVIDIA H200',
    memory: 150e9,
    flops: { bfloat16: 791e12, float32: 51e12, float64: 51e12 },
    attention: 0.17,
    bandwidth: 4.26e12,
    launch: 3e-6,
    overhead: 0.6e9,
    links: HOPPER_LINKS,
  },
};

/** A device by name, or from a JSON file with the fields of `Device`. */
export function findDevice(name: string): Device {
  const known = DEVICES[name];
  if (known !== undefined) return known;
  if (!name.endsWith('.json'))
    throw unknownName('device', name, [...Object.keys(DEVICES), 'cpu'], '--device');
  return checkSection(deviceSchema, readJson(name), { locate: () => name });
}

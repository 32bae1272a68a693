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
});
export type Device = z.output<typeof deviceSchema>;

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
  },
  h200: {
    name: 'NVIDIA H200',
    memory: 150e9,
    flops: { bfloat16: 791e12, float32: 51e12, float64: 51e12 },
    attention: 0.17,
    bandwidth: 4.26e12,
    launch: 3e-6,
    overhead: 0.6e9,
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

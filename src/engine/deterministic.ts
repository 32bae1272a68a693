/** Which devices a deterministic run may have. */
import { TroupeError } from '../config/errors.js';

/** Why a GPU does not promise the same bits twice (docs/cuda.md). */
const NOT_REPEATED =
  "flash attention's backward pass repeats its bits only where it is asked to, for 16 to 35 % of its time, and the rest has " +
  'not been shown to repeat (docs/cuda.md)';

/** Throws for a device whose results are not known to repeat bit for bit. `where`: the key that asks for it. */
export function refuseDeterministic(device: string, where?: string): void {
  if (!device.startsWith('cuda')) return;
  throw new TroupeError(`deterministic runs are for the CPU, not for ${device}: ${NOT_REPEATED}`, {
    ...(where !== undefined && { where }),
    hint: 'Set model.device: cpu, or leave deterministic out.',
  });
}

/** What a person should know where `auto` would take a GPU and a deterministic run does not; undefined: nothing. */
export function deterministicNotice(wanted: string, devices: readonly string[]): string | undefined {
  if (wanted !== 'auto' || devices.length === 0) return undefined;
  return `deterministic: model.device: auto is the CPU and not ${devices[0]}: ${NOT_REPEATED}.`;
}

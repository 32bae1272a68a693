/**
 * What the device draws against what the CPU draws: the same seed, so the same uniform numbers, so the same tokens
 * but where rounding moves an edge between two of them.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { device, json } from './device.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-gpu-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Sample {
  ids: number[];
  logprobs: number[];
}

/** Prompts of different lengths that begin alike: 1 to 90 tokens of the embedded model's vocabulary. */
const prompts = Array.from({ length: 12 }, (_, i) =>
  Array.from({ length: 1 + 8 * i }, (_, t) => 3 + ((t * 37 + (t > 20 ? i : 0) * 11) % 250)),
);
const ids = join(folder, 'ids.json');
writeFileSync(ids, JSON.stringify(prompts));

function samples(on: string, ...more: string[]): Sample[] {
  const args = ['generate', 'troupe-1m', '--ids', ids, '--device', on, '--max-tokens', '40', ...more];
  return json<{ samples: Sample[] }>(args).samples;
}

/** Samples that are the same, and the largest difference of a log-probability before the first other token. */
function compare(ours: readonly Sample[], theirs: readonly Sample[]) {
  let same = 0;
  let difference = 0;
  expect(ours.length).toBe(theirs.length);
  for (const [i, one] of ours.entries()) {
    const other = theirs[i] as Sample;
    const firstOther = one.ids.findIndex((id, t) => id !== other.ids[t]);
    if (firstOther < 0 && one.ids.length === other.ids.length) same++;
    const shared = firstOther < 0 ? Math.min(one.ids.length, other.ids.length) : firstOther;
    for (let t = 0; t < shared; t++)
      difference = Math.max(difference, Math.abs((one.logprobs[t] ?? 0) - (other.logprobs[t] ?? 0)));
  }
  return { share: same / ours.length, difference };
}

describe('fp32', () => {
  it.each([
    ['greedy', ['--temperature', '0'], 12],
    ['sampled', ['--samples', '4', '--seed', '3'], 48],
    ['top-k', ['--samples', '4', '--top-k', '20', '--temperature', '1.3'], 48],
    ['top-p', ['--samples', '4', '--top-p', '0.8'], 48],
    ['min-p', ['--samples', '4', '--min-p', '0.05', '--temperature', '1.5'], 48],
    ['all filters', ['--samples', '4', '--top-k', '50', '--top-p', '0.9', '--min-p', '0.02'], 48],
  ])('%s: the tokens of the CPU', (_name, options, count) => {
    const ours = samples(device, ...options);
    expect(ours.length).toBe(count);
    expect(ours.some(({ ids }) => ids.length > 4)).toBe(true);
    const { share, difference } = compare(ours, samples('cpu', ...options));
    expect(share).toBeGreaterThanOrEqual(0.95);
    expect(difference).toBeLessThan(1e-3);
  });
});

it('bf16 samples have the log-probabilities of the training pass, up to bf16', () => {
  const ours = samples(device, '--dtype', 'bfloat16', '--samples', '4');
  const whole = join(folder, 'whole.json');
  writeFileSync(whole, JSON.stringify(ours.map((one, i) => [...(prompts[i >> 2] ?? []), ...one.ids])));
  const args = ['score', 'troupe-1m', '--ids', whole, '--dtype', 'bfloat16', '--device', device];
  const { logprobs } = json<{ logprobs: number[][] }>(args);
  const differences = ours.flatMap((one, i) => {
    const scored = logprobs[i]?.slice(-one.ids.length) ?? [];
    expect(scored.length).toBe(one.ids.length);
    return one.logprobs.map((value, t) => Math.abs(value - (scored[t] ?? Number.NaN)));
  });
  const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
  expect(mean).toBeLessThan(0.03);
});

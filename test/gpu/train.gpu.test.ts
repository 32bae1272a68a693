/** Whole runs on the device: twenty steps of the default run learn, and a run that was stopped goes on. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readStream } from '../../src/streams/stream-reader.js';
import { device, json, outcome } from './device.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-gpu-runs-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Interval {
  mean: number;
  low: number;
  high: number;
}
interface Trained {
  steps: number;
  before: { greedy: Interval };
  after: { greedy: Interval };
}

const set = (settings: Record<string, string | number>) =>
  Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);

describe('twenty steps of the default run in bfloat16', () => {
  it('raise its greedy accuracy beyond chance', () => {
    const args = set({
      steps: 20,
      'model.device': device,
      'model.dtype': 'bfloat16',
      'evaluation.every': 0,
      'evaluation.problems': 250,
    });
    const { before, after, steps } = json<Trained>(['train', ...args, '--run', join(folder, 'twenty')]);
    expect(steps).toBe(20);
    expect(before.greedy.mean).toBeGreaterThan(0.2);
    expect(after.greedy.low).toBeGreaterThan(before.greedy.high);
  });
});

describe('a run that was stopped', () => {
  const config = join(folder, 'run.yaml');
  writeFileSync(
    config,
    `
steps: 4
model: { path: troupe-0.3m, dtype: float32, device: '${device}' }
task: { name: arithmetic, levels: [1] }
workflow: { name: voting, prompts: small }
policies: { sharing: isolated, defaults: { learningRate: 1e-3 } }
rollout: { promptsPerStep: 3, episodesPerPrompt: 4, sampling: { temperature: 1, maxTokens: 6 } }
evaluation: { every: 2, problems: 5 }
checkpoints: { every: 1, keep: 4 }
`,
  );
  const norms = (run: string) =>
    Array.from(
      readStream(join(run, 'streams', 'updates.arrows')).table.getChild('gradient_norm') ?? [],
      Number,
    );
  const parameters = (run: string, step: number) =>
    readFileSync(
      join(
        run,
        'checkpoints',
        `step-${String(step).padStart(6, '0')}`,
        'policies',
        'generator',
        'training-state.safetensors',
      ),
    );

  it('goes on where it stopped, with the parameters and moments that it had', () => {
    const whole = join(folder, 'whole');
    json(['train', config, '--run', whole]);
    const halves = join(folder, 'halves');
    json(['train', config, '--run', halves, '--set', 'steps=2']);
    expect(norms(halves).length).toBe(norms(whole).length / 2);
    const before = parameters(halves, 2);
    json(['train', '--resume', halves, '--set', 'steps=4']);
    expect(parameters(halves, 2).equals(before)).toBe(true);
    // fp32: the same tokens are drawn, and sums differ in their last bits only.
    const expected = norms(whole);
    expect(norms(halves).length).toBe(expected.length);
    for (const [i, norm] of norms(halves).entries()) {
      expect(Math.abs(norm - (expected[i] ?? Number.NaN))).toBeLessThanOrEqual(1e-2 * (expected[i] ?? 0));
    }
    expect(parameters(halves, 4).equals(parameters(halves, 2))).toBe(false);
  });

  it('repeats itself to the bit where it is deterministic, or says why it cannot', () => {
    const runs = ['once', 'again'].map((name) => join(folder, name));
    const [first, second] = runs.map((run) =>
      outcome(['train', config, '--run', run, '--set', 'deterministic=true']),
    );
    if (first?.status !== 0) {
      expect(first?.stderr).toMatch(/deterministic/);
      return;
    }
    expect(second?.status, second?.stderr).toBe(0);
    const [one, other] = runs.map((run) => parameters(run, 4));
    expect(one?.equals(other as Buffer)).toBe(true);
  });
});

/** Every figure of docs/scale.md's tables is what `troupe plan` prints. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { command } from '../cli/troupe.js';

interface Plan {
  seconds: number;
  memory: { peak: number; device: number };
  phases: { bound: string; seconds: number }[];
}

async function plan(parameters: string, workflow: string, sharing: string, devices: number): Promise<Plan> {
  const { stdout, stderr } = await command([
    ...['plan', `study-math-${workflow}-${sharing}`, '--json', '--shape', 'qwen3-4b'],
    ...['--set', 'task={name: arithmetic, style: words}', '--set', 'gradients.groups=[role]'],
    ...['--set', `policies.defaults.parameters=${parameters}`, '--response-tokens', '1000'],
    ...['--devices', `${devices}`, '--hosts', `${Math.ceil(devices / 8)}`],
  ]);
  expect(stderr).toBe('');
  return JSON.parse(stdout) as Plan;
}

const page = readFileSync(join(packageRoot(), 'docs', 'scale.md'), 'utf8');
const [, lora = '', full = ''] = page.split(/^## .*$/m);
const rowsOf = (section: string) => [...section.matchAll(/^\| ([\w-]+) \| (shared|isolated) \| (.*) \|$/gm)];

describe.each([
  ['lora', rowsOf(lora)],
  ['full', rowsOf(full)],
] as const)('%s', (parameters, rows) => {
  it('has a row for each cell', () => {
    expect(rows.length).toBe(6);
  });

  it.each(rows.map(([, workflow = '', sharing = '', cells = '']) => [workflow, sharing, cells]))(
    '%s, %s',
    async (workflow, sharing, cells) => {
      const plans: Plan[] = [];
      for (const devices of [1, 8, 16]) plans.push(await plan(parameters, workflow, sharing, devices));
      const gigabytes = ({ memory: { peak, device } }: Plan) =>
        peak > device ? `**${(peak / 1e9).toFixed(1)}**` : (peak / 1e9).toFixed(1);
      const exchange = ({ phases }: Plan) =>
        phases.reduce((sum, { bound, seconds }) => sum + (bound === 'links' ? seconds : 0), 0).toFixed(2);
      expect(cells.split(' | ')).toEqual([
        ...plans.map(gigabytes),
        ...plans.map(({ seconds }) => seconds.toFixed(1)),
        ...plans.slice(1).map(exchange),
      ]);
    },
  );
});

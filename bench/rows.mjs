/**
 * Rows that a training step computes, and in how many micro-batches: of each workflow, with shared and isolated policies, one
 * gradient group a policy and one for each role and slot.
 *
 *     node bench/rows.mjs [--config FILE] [--problems 8] [--episodes 8] [--response-tokens 256] [--limits 2048,8192] [--levels 2]
 *
 * The calls are those that a plan makes, with filler for responses, so that Eval-Opt goes through all of its rounds. Levels of
 * prefix trees: 2 as on a GPU, 0 as on a CPU. The last column is how long cutting them at the last limit takes here. No weights, no GPU.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadRunConfig } from '../build/js/config/load.js';
import { nativeModelConfig } from '../build/js/engine/configuration.js';
import { native } from '../build/js/engine/native.js';
import { SHAPES } from '../build/js/engine/shapes.js';
import { planStep } from '../build/js/learning/plan/planned-calls.js';
import { estimatedTokenizer } from '../build/js/learning/plan/planned-responses.js';
import { stepWork } from '../build/js/learning/plan/step-work.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values: options } = parseArgs({
  options: {
    config: { type: 'string', default: join(root, 'configs', 'qwen3-4b-step.yaml') },
    problems: { type: 'string', default: '8' },
    episodes: { type: 'string', default: '8' },
    'response-tokens': { type: 'string', default: '256' },
    limits: { type: 'string', default: '2048,8192' },
    levels: { type: 'string', default: '2' },
  },
});
const responseTokens = Number(options['response-tokens']);
const levels = Number(options.levels);
const limits = options.limits.split(',').map(Number);
// For the plan's memory, which is not printed.
const shape = nativeModelConfig(SHAPES['qwen3-4b'], 'qwen3-4b');

async function rowsOf(workflow, sharing, groups) {
  const { config } = loadRunConfig(options.config, [
    `workflow.name=${workflow}`,
    `policies.sharing=${sharing}`,
    `gradients.groups=${groups}`,
    `rollout.promptsPerStep=${options.problems}`,
    `rollout.episodesPerPrompt=${options.episodes}`,
    `rollout.sampling.maxTokens=${responseTokens}`,
  ]);
  const step = await planStep(config, estimatedTokenizer, { responseTokens: [responseTokens] });
  if (step.broken !== undefined) throw new Error(step.broken);
  const { policies, rows } = stepWork(shape, config, step, levels);
  const cuts = [...limits, Number.MAX_SAFE_INTEGER].map((limit) => {
    const started = performance.now();
    const batches = policies.flatMap(({ calls }) => native().microBatches(calls, limit, levels));
    const ms = performance.now() - started;
    const over = batches.find(({ calls, rows }) => calls.length > 1 && rows > limit);
    if (over !== undefined) throw new Error(`${workflow}: a micro-batch of ${over.rows} rows, not ${limit}`);
    return { rows: batches.reduce((sum, batch) => sum + batch.rows, 0), count: batches.length, ms };
  });
  return { calls: step.calls.length, tokens: rows.seen, cuts };
}

const line = (cells) => console.log(`| ${cells.join(' | ')} |`);
const number = (value) => value.toLocaleString('en');
const heads = ['workflow', 'policies', 'groups', 'calls', 'tokens'];
const sized = limits.map((limit) => `rows (micro-batches) of ${number(limit)}`);
const columns = [...heads, ...sized, 'one micro-batch a policy', 'ms'];
line(columns);
line(columns.map(() => '---'));
for (const workflow of ['single', 'voting', 'eval-opt', 'orch-workers']) {
  for (const sharing of workflow === 'single' ? ['isolated'] : ['isolated', 'shared']) {
    for (const groups of ['[]', '[role, slot]']) {
      const { calls, tokens, cuts } = await rowsOf(workflow, sharing, groups);
      const whole = cuts.pop();
      const cells = cuts.map(({ rows, count }) => `${number(rows)} (${count})`);
      const of = groups === '[]' ? 'one' : 'role and slot';
      const ms = cuts.at(-1).ms.toFixed(0);
      line([workflow, sharing, of, number(calls), number(tokens), ...cells, number(whole.rows), ms]);
    }
  }
}

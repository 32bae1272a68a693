/**
 * `troupe gradients MODEL --calls FILE.jsonl --by role,slot`: exact role gradients of rollouts that any trainer
 * recorded. The loss is −Σ advantage · Σ log p / response tokens of the file, over all parameters.
 */
import type { CommandModule } from 'yargs';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { readJsonLines } from '../config/json-lines.js';
import { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { GradientStatistics, TrainCall } from '../engine/types.js';
import { checkIdentity, type Gram, norms, type Scope, scopes } from '../gradients/statistics.js';
import { builtInLoss } from '../learning/losses.js';

const idList = z.array(z.number().int().nonnegative()).min(1);
const rowSchema = z.object({
  role: z.string(),
  slot: z.number().int().nonnegative().default(0),
  turn: z.number().int().nonnegative().default(0),
  prompt: idList,
  response: idList,
  advantage: z.number(),
});
type Row = z.infer<typeof rowSchema>;

const GROUP_KEYS = ['role', 'slot', 'turn'] as const;
type GroupKey = (typeof GROUP_KEYS)[number];

interface Arguments {
  model: string;
  calls: string;
  by: string;
  per?: 'module' | 'layer';
  dtype: 'float32' | 'bfloat16' | 'float64';
  device: string;
  microBatchRows: number;
  json: boolean;
}

function parseKeys(by: string): GroupKey[] {
  const keys = by.split(',').map((key) => key.trim());
  for (const key of keys) {
    if (!GROUP_KEYS.includes(key as GroupKey)) {
      throw new TroupeError(`unknown key "${key}"`, {
        where: '--by',
        hint: `It takes any of ${GROUP_KEYS.join(', ')}.`,
      });
    }
  }
  return GROUP_KEYS.filter((key) => keys.includes(key));
}

/** Names of the groups that occur, sorted, and each row's index into them. */
export function groupRows(rows: readonly Row[], keys: readonly GroupKey[]) {
  const names = rows.map((row) => keys.map((key) => row[key]).join('/'));
  const groups = [...new Set(names)].sort();
  const index = new Map(groups.map((name, i) => [name, i]));
  return { groups, indices: names.map((name) => index.get(name) ?? 0) };
}

function toCalls(rows: readonly Row[], indices: readonly number[]): TrainCall[] {
  const tokens = rows.reduce((sum, row) => sum + row.response.length, 0);
  return rows.map((row, i) => ({
    prompt: Int32Array.from(row.prompt),
    response: Int32Array.from(row.response),
    rolloutLogprobs: new Float32Array(row.response.length),
    advantage: row.advantage,
    weight: 1 / tokens,
    group: indices[i] ?? 0,
  }));
}

function describe(gram: Gram) {
  const { size, values } = gram;
  const rows = Array.from({ length: size }, (_, k) => Array.from(values.slice(k * size, (k + 1) * size)));
  return { norm: norms(gram), gram: rows };
}

/** Module kinds by name, layers by number ("-1": embedding, last norm, head). */
function parts(all: readonly Scope[], per: 'module' | 'layer') {
  const wanted = all.filter(({ scope }) => scope === (per === 'module' ? 'kind' : 'layer'));
  return Object.fromEntries(wanted.map(({ kind, layer, gram }) => [String(kind ?? layer), describe(gram)]));
}

function report(statistics: GradientStatistics, per: Arguments['per']) {
  const all = scopes(statistics);
  const total = all.find(({ scope }) => scope === 'total') as Scope;
  return {
    groups: statistics.groups,
    ...describe(total.gram),
    total_norm: statistics.totalNorm,
    tokens: statistics.tokens,
    ...(per === undefined ? {} : { [per]: parts(all, per) }),
  };
}

async function measureGradients(args: Arguments): Promise<ReturnType<typeof report>> {
  const keys = parseKeys(args.by);
  const rows = readJsonLines(args.calls, rowSchema);
  if (rows.length === 0) throw new TroupeError('holds no calls', { where: args.calls });
  const { groups, indices } = groupRows(rows, keys);
  await using engine = new Engine();
  const folder = await resolveModel(args.model);
  await engine.send('loadModel', {
    name: 'model',
    folder,
    dtype: args.dtype,
    device: args.device,
    rollout: { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false },
  });
  await engine.send('createPolicy', {
    name: 'policy',
    model: 'model',
    parameters: { kind: 'full' },
    trainable: true,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0 },
    seed: 0,
  });
  const result = await engine.send('train', {
    policy: 'policy',
    calls: toCalls(rows, indices),
    groups,
    driftOnly: [],
    loss: builtInLoss('policy-gradient'),
    temperature: 1,
    reference: false,
    learningRate: 0,
    clipNorm: 0,
    microBatchRows: args.microBatchRows,
    update: false,
  });
  if (result.skipped !== undefined) throw new TroupeError(result.skipped, { where: args.calls });
  checkIdentity(result.gradients, args.model);
  return report(result.gradients, args.per);
}

export const gradientsCommand: CommandModule<object, Arguments> = {
  command: 'gradients <model>',
  describe: 'Role gradients of recorded calls: norms and Gram matrix',
  builder: (yargs) =>
    yargs
      .positional('model', { type: 'string', demandOption: true, describe: 'Folder or name of a model' })
      .option('calls', { type: 'string', demandOption: true, describe: 'JSONL file of calls' })
      .option('by', { type: 'string', default: 'role', describe: 'Any of role, slot, turn, comma-separated' })
      .option('per', {
        choices: ['module', 'layer'] as const,
        describe: 'The same by module kind or by layer too',
      })
      .option('dtype', { choices: ['float32', 'bfloat16', 'float64'] as const, default: 'float32' as const })
      .option('device', { type: 'string', default: 'auto' })
      .option('microBatchRows', { type: 'number', default: 4096, describe: 'Rows computed at once at most' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  handler: async (args) => {
    const measured = await measureGradients(args);
    if (args.json) {
      console.log(JSON.stringify(measured));
      return;
    }
    measured.groups.forEach((group, k) => {
      console.log(`${group}  norm ${measured.norm[k]?.toExponential(4)}  tokens ${measured.tokens[k]}`);
    });
    console.log(`total norm ${measured.total_norm.toExponential(4)}`);
  },
};

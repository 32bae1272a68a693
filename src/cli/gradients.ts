/**
 * `troupe gradients MODEL --calls FILE.jsonl --by role,slot`: exact role gradients of rollouts that any trainer
 * recorded. The loss is −Σ advantage · Σ log p / response tokens of the file, over all parameters.
 */
import type { CommandModule } from 'yargs';
import { z } from 'zod';
import { TroupeError } from '../config/errors.js';
import { readJsonLines } from '../config/json-lines.js';
import { GROUP_KEYS } from '../config/schema/learning.js';
import type { GroupKey } from '../config/schema.js';
import { readModelConfig } from '../engine/configuration.js';
import { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { GradientStatistics, TrainCall } from '../engine/types.js';
import { checkIdentity, type Gram, norms, type Scope, scopes } from '../gradients/statistics.js';
import { builtInLoss } from '../learning/losses.js';
import {
  type ModelArguments,
  modelOptions,
  NO_ROLLOUT,
  openModel,
  POLICY,
  tokenIds,
  type Vocabulary,
} from './open-model.js';

/** A line of the file, for a model. `slot` and `turn` may be left out where a workflow has but one. */
export const rowSchema = (model: Vocabulary) =>
  z
    .object({
      role: z.string(),
      slot: z.int().min(0).default(0),
      turn: z.int().min(0).default(0),
      prompt: tokenIds(model),
      response: tokenIds(model),
      advantage: z.number(),
    })
    .superRefine(({ prompt, response }, context) => {
      const tokens = prompt.length + response.length;
      if (tokens <= model.maxPositions) return;
      context.addIssue({
        code: 'custom',
        message: `has ${tokens} tokens; this model takes ${model.maxPositions} at most.`,
      });
    });
type Row = z.infer<ReturnType<typeof rowSchema>>;

interface Arguments extends ModelArguments {
  calls: string;
  by: string;
  per?: 'module' | 'layer';
  'micro-batch-rows': number;
}

/** The keys in the order in which they are asked for, which is their order in the groups' names. */
function parseKeys(by: string): GroupKey[] {
  const keys = by.split(',').map((key) => key.trim());
  const isKey = (key: string): key is GroupKey => GROUP_KEYS.some((known) => known === key);
  const unknown = keys.find((key) => !isKey(key));
  if (unknown !== undefined) {
    throw new TroupeError(`there is no key "${unknown}"; it takes any of ${GROUP_KEYS.join(', ')}.`, {
      where: '--by',
    });
  }
  return [...new Set(keys.filter(isKey))];
}

/** Names of the groups that occur, sorted (numbers as numbers), and each row's index into them. */
export function groupRows(rows: readonly Row[], keys: readonly GroupKey[]) {
  const name = (row: Row) => keys.map((key) => row[key]).join('/');
  const compare = (a: Row, b: Row) => {
    const key = keys.find((one) => a[one] !== b[one]);
    return key === undefined ? 0 : a[key] < b[key] ? -1 : 1;
  };
  const groups = [...new Set(rows.toSorted(compare).map(name))];
  const index = new Map(groups.map((group, i) => [group, i]));
  return { groups, indices: rows.map((row) => index.get(name(row)) ?? 0) };
}

function toCalls(rows: readonly Row[], indices: readonly number[]): TrainCall[] {
  const tokens = rows.reduce((sum, row) => sum + row.response.length, 0);
  return rows.map((row, i) => ({
    prompt: Int32Array.from(row.prompt),
    response: Int32Array.from(row.response),
    rolloutLogprobs: new Float32Array(row.response.length),
    temperature: 1,
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
    ...(per === 'module' ? { module: parts(all, per) } : {}),
    ...(per === 'layer' ? { layer: parts(all, per) } : {}),
  };
}

async function measureGradients(args: Arguments & { microBatchRows: number }) {
  const keys = parseKeys(args.by);
  const { microBatchRows } = args;
  if (!Number.isInteger(microBatchRows) || microBatchRows < 1) {
    throw new TroupeError(`is ${microBatchRows}; it takes a whole number from 1.`, {
      where: '--micro-batch-rows',
    });
  }
  const model = readModelConfig(await resolveModel(args.model));
  const rows = readJsonLines(args.calls, rowSchema(model), { whole: 'the call' });
  if (rows.length === 0) throw new TroupeError('holds no calls.', { where: args.calls });
  const { groups, indices } = groupRows(rows, keys);
  await using engine = new Engine();
  await openModel(engine, args, NO_ROLLOUT, { trainable: true });
  const result = await engine.send('train', {
    policy: POLICY,
    calls: toCalls(rows, indices),
    groups,
    mismatchOnly: [],
    loss: await builtInLoss('policy-gradient'),
    reference: false,
    learningRate: 0,
    clipNorm: 0,
    microBatchRows,
    update: false,
  });
  if (result.skipped !== undefined) throw new TroupeError(result.skipped, { where: args.calls });
  checkIdentity(result.gradients, args.model);
  return report(result.gradients, args.per);
}

type Measured = Awaited<ReturnType<typeof measureGradients>>;

/** A table for people: norm, tokens, and cosine with each group. */
function print({ groups, norm, gram, tokens }: Pick<Measured, 'groups' | 'norm' | 'gram' | 'tokens'>): void {
  const width = Math.max(5, ...groups.map((group) => group.length));
  const number = (value: number | undefined) => (value ?? 0).toFixed(3).padStart(width + 2);
  const head = groups.map((group) => group.padStart(width + 2)).join('');
  console.log(
    `${'group'.padEnd(width)}  ${'norm'.padStart(10)}  ${'tokens'.padStart(8)}   cosine with:${head}`,
  );
  for (const [k, group] of groups.entries()) {
    const cosines = groups.map((_, l) => {
      const lengths = (norm[k] ?? 0) * (norm[l] ?? 0);
      return lengths === 0 ? '–'.padStart(width + 2) : number((gram[k]?.[l] ?? 0) / lengths);
    });
    const size = (norm[k] ?? 0).toExponential(3).padStart(10);
    const columns = [group.padEnd(width), size, String(tokens[k]).padStart(8)];
    console.log(`${columns.join('  ')}${' '.repeat(15)}${cosines.join('')}`);
  }
}

export const gradientsCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    modelOptions(yargs)
      .option('calls', {
        type: 'string',
        demandOption: true,
        describe: 'JSON lines {"role", "slot", "turn", "prompt": [ids], "response": [ids], "advantage"}',
      })
      .option('by', {
        type: 'string',
        default: 'role',
        describe: 'What makes a group: any of role, slot, turn, comma-separated',
      })
      .option('per', {
        choices: ['module', 'layer'] as const,
        describe: 'The same by module kind or by layer too',
      })
      .option('micro-batch-rows', {
        type: 'number',
        default: 4096,
        describe: 'Tokens computed at once at most',
      }),
  handler: async (args) => {
    const measured = await measureGradients(args);
    if (args.json) {
      console.log(JSON.stringify(measured));
      return;
    }
    print(measured);
    for (const [name, part] of Object.entries(measured.module ?? measured.layer ?? {})) {
      console.log(`\n${args.per} ${name}`);
      print({ ...measured, ...part });
    }
    console.log(`\nNorm of the sum of all groups: ${measured.total_norm.toExponential(4)}`);
  },
};

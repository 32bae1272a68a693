/**
 * `troupe eval [TARGET]`: how often a workflow is right on held-out problems: with the model as it is (a configuration),
 * with the policies of a run's checkpoints, or with policies of several runs together.
 */
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { divertOutput } from '../config/user-code.js';
import { type EvaluationResults, evaluate } from '../learning/evaluation/evaluate.js';
import type { LineupResult } from '../learning/evaluation/results.js';
import { Progress } from '../runs/progress.js';
import { repeated } from './options.js';

interface Arguments {
  target: string | undefined;
  checkpoint: string[] | undefined;
  base: boolean;
  role: string[];
  ablate: boolean;
  samples: number | undefined;
  k: number[] | undefined;
  output: string | undefined;
  set: string[];
  json: boolean;
}

export const evalCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('target', {
        type: 'string',
        describe: 'Run directory, or a configuration (file or preset); default: the default run',
      })
      .option('checkpoint', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Of a run: last (default), best, the number of a step, or all; may be given several times',
      })
      .option('base', { type: 'boolean', default: false, describe: 'Also the base model in every role' })
      .option(
        'role',
        repeated(
          'ROLE=base or ROLE=RUN[@CHECKPOINT][:POLICY]: who plays a role. Several of a role: a matrix',
        ),
      )
      .option('ablate', {
        type: 'boolean',
        default: false,
        describe: 'Also with each trained role put back to the base',
      })
      .option('samples', { type: 'number', describe: 'Samples of each problem (evaluation.episodes)' })
      .option('k', {
        type: 'number',
        array: true,
        nargs: 1,
        describe: 'k of pass@k and majority@k; default: 1, 2, 4, … and --samples',
      })
      .option('output', {
        alias: 'o',
        type: 'string',
        describe: 'Folder of results and episodes, where a repeated command goes on; default: RUN/eval',
      })
      .option(
        'set',
        repeated('Override a key, e.g. --set evaluation.problems=500 or --set workflow.name=eval-opt'),
      )
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  handler: async (args) => {
    const evaluated = await run(args);
    if (args.json) console.log(JSON.stringify(evaluated));
    else for (const line of describe(evaluated)) console.log(line);
  },
};

/** Standard output is kept for the result: users' files may print. */
async function run(args: Arguments): Promise<EvaluationResults> {
  using _output = divertOutput();
  const { target = 'default', checkpoint, base, role, ablate, samples, k, output, set } = args;
  const progress = new Progress({ label: 'eval', total: 1, unit: 'evaluation' });
  try {
    return await evaluate(target, {
      set,
      base,
      ablate,
      roles: rolesOf(role),
      ...(checkpoint && { checkpoints: checkpoint }),
      ...(samples !== undefined && { samples }),
      ...(k && { ks: k }),
      ...(output !== undefined && { folder: output }),
      onProgress: (what) => progress.within(what),
    });
  } finally {
    progress.finish();
  }
}

/** ["generator=a", "generator=b"] → { generator: ['a', 'b'] } */
function rolesOf(given: readonly string[]): Record<string, string[]> {
  const roles = new Map<string, string[]>();
  for (const text of given) {
    const [role = '', ...rest] = text.split('=');
    const player = rest.join('=');
    if (role === '' || player === '') {
      throw new TroupeError(`is "${text}"; it takes ROLE=base or ROLE=RUN.`, { where: '--role' });
    }
    roles.set(role, [...(roles.get(role) ?? []), player]);
  }
  return Object.fromEntries(roles);
}

const percent = (share: number | null) => (share === null ? '–' : (100 * share).toFixed(1));
const signed = (share: number) => `${share < 0 ? '−' : '+'}${(100 * Math.abs(share)).toFixed(1)}`;

/** The table, and under it what stands in none: what broke off, what was counted, where the files are. */
export function describe({ results, folder }: EvaluationResults): string[] {
  const rows = results.map(cellsOf);
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const widths = names.map((name) => Math.max(name.length, ...rows.map((row) => (row[name] ?? '').length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ');
  const [one] = results;
  return [
    line(names),
    ...rows.map((row) => line(names.map((name) => row[name] ?? ''))),
    ...(one === undefined
      ? []
      : [`%, of ${one.problems} problems, ${one.samples} samples each, 95 % intervals over problems`]),
    ...results.flatMap(({ name, brokenOff, counts }) => [
      ...(brokenOff === undefined ? [] : [`${name}: ${brokenOff}`]),
      ...Object.entries(counts).map(([what, count]) => `${name}: ${what} ${count}`),
    ]),
    ...(folder === undefined ? [] : [`files: ${folder} (results.arrow, episodes/)`]),
  ];
}

function cellsOf({ name, accuracy, greedy, samples, pass, majority, againstFirst }: LineupResult) {
  const several = samples > 1;
  const byK = (label: string, values: LineupResult['pass']) =>
    Object.entries(values).map(([k, { mean, low, high }]) => [
      `${label}@${k}`,
      `${percent(mean)} (${percent(low)}–${percent(high)})`,
    ]);
  const against = againstFirst && ` (${signed(againstFirst.low)} to ${signed(againstFirst.high)})`;
  return {
    'line-up': name,
    accuracy: `${percent(accuracy.mean)} (${percent(accuracy.low)}–${percent(accuracy.high)})`,
    ...(greedy && { greedy: percent(greedy.mean) }),
    ...(several ? Object.fromEntries([...byK('pass', pass), ...byK('majority', majority)]) : {}),
    ...(againstFirst && { 'against the first': `${signed(againstFirst.difference)}${against}` }),
  } as Record<string, string>;
}

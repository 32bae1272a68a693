/**
 * `troupe plan CONFIG --device h100`: what one step of a run would take on a device, in memory and time, and what bounds
 * it, from shapes and rates alone. Nothing is loaded but the tokenizer; no GPU is needed.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { loadRunConfig } from '../config/load.js';
import { unknownName } from '../config/nearest.js';
import type { RunConfig } from '../config/schema.js';
import { divertOutput, limitUserCode } from '../config/user-code.js';
import { nativeModelConfig, readModelConfig } from '../engine/configuration.js';
import { resolveModel } from '../engine/model-catalogue.js';
import type { NativeModelConfig } from '../engine/native-model.js';
import { SHAPES } from '../engine/shapes.js';
import { Tokenizer } from '../engine/tokenizer.js';
import { chatTokenizer } from '../learning/chat.js';
import { findDevice, treeLevels } from '../learning/plan/devices.js';
import { type MeasuredModel, measureCpu } from '../learning/plan/measured-cpu.js';
import { type PlannedStep, planStep } from '../learning/plan/planned-calls.js';
import { estimatedTokenizer, textResponses } from '../learning/plan/planned-responses.js';
import { configJson } from '../learning/plan/probe-model.js';
import { planOnCpu, planOnDevice, type StepPlan } from '../learning/plan/step-plan.js';
import { type StepWork, stepWork } from '../learning/plan/step-work.js';
import { CPU_LEVELS } from '../learning/plan/tree-rows.js';
import { readTexts } from '../learning/play.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import { repeated } from './options.js';

interface Arguments {
  config: string | undefined;
  set: string[];
  device: string;
  shape: string | undefined;
  'response-tokens': string | undefined;
  text: string | undefined;
  devices: number;
  hosts: number;
  json: boolean;
}

export const planCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('config', { type: 'string', describe: 'File or name of a preset' })
      .option('set', repeated('Override a key, e.g. --set policies.sharing=shared'))
      .option('device', {
        type: 'string',
        default: 'h100',
        describe: 'h100, h200, cpu (measured now), or a JSON file with the rates of a device',
      })
      .option('shape', {
        type: 'string',
        describe: 'A published shape in the place of the model, e.g. qwen3-4b',
      })
      .option('response-tokens', {
        type: 'string',
        describe:
          'Tokens of a response, or of several, taken in turn, e.g. 40,60,300; default: as many as its role may have',
      })
      .option('text', {
        type: 'string',
        describe:
          'YAML file of responses as of `troupe play`, a text or a list of texts for each role, taken in turn in the place of filler',
      })
      .option('devices', {
        type: 'number',
        default: 1,
        describe: 'Devices in all that the run is divided among, a rank on each',
      })
      .option('hosts', { type: 'number', default: 1, describe: 'Machines that they are on, as many on each' })
      .option('json', { type: 'boolean', default: false, describe: 'One JSON object on standard output' }),
  handler: async (args) => {
    const { config } = loadRunConfig(args.config ?? 'default', args.set);
    const responseTokens = lengthsOf(args['response-tokens']);
    const { devices, hosts } = args;
    checkDevices(devices, hosts);
    const device = args.device === 'cpu' ? undefined : findDevice(args.device);
    if (args.device === 'cpu' && hosts > 1)
      throw new TroupeError(`is ${hosts}; this machine is one host.`, { where: '--hosts' });
    const { model, shape, estimated, ...opened } = await openShape(config, args.shape);
    const { tokenizer, responses } = textResponses(opened.tokenizer, opened.end);
    const { text } = args;
    const step = await planQuietly(config, tokenizer, {
      responseTokens,
      devices,
      ...(text !== undefined && { responses: (roles) => responses(readTexts(text, roles)) }),
      ...(args.device === 'cpu' && { clock: () => performance.now() / 1000 }),
    });
    const work = stepWork(shape, config, step, device === undefined ? CPU_LEVELS : treeLevels(device));
    const plan =
      device === undefined
        ? planOnCpu(
            work,
            await measureCpu(config, { ...model, layers: shape.layers }, { step, work }, devices),
          )
        : planOnDevice(shape, work, device, config.model.dtype, hosts);
    if (step.broken !== undefined) console.error(step.broken);
    const calls = step.calls.length;
    if (args.json) {
      const { share } = step;
      console.log(JSON.stringify({ ...plan, rows: work.rows, calls, estimated, devices, hosts, share }));
      return;
    }
    console.log(printPlan(plan, work, step));
    const idle = devices - config.rollout.promptsPerStep;
    if (idle > 0) console.log(`\n${idle} devices have no problem of the step: they wait.`);
    if (estimated) console.log('\nThere is no tokenizer: a token for every four characters was assumed.');
  },
};

/** Users' files run, and may print. */
async function planQuietly(...[config, ...rest]: Parameters<typeof planStep>): ReturnType<typeof planStep> {
  using _output = divertOutput();
  limitUserCode(config.run);
  return await planStep(config, ...rest);
}

/** Whole numbers from 1, between commas. */
function lengthsOf(given: string | undefined): number[] | undefined {
  if (given === undefined) return undefined;
  const lengths = given.split(',').map(Number);
  if (lengths.every((length) => Number.isInteger(length) && length > 0)) return lengths;
  throw new TroupeError(`is ${given}; it takes a whole number from 1, or several between commas.`, {
    where: '--response-tokens',
  });
}

interface OpenShape {
  /** What times are measured with. */
  model: Pick<MeasuredModel, 'json' | 'folder'>;
  shape: NativeModelConfig;
  tokenizer: ChatTokenizer;
  /** The token that ends a response; undefined: nobody knows. */
  end: number | undefined;
  /** Token counts are a guess: there is no tokenizer. */
  estimated: boolean;
}

async function openShape(config: RunConfig, named: string | undefined): Promise<OpenShape> {
  const folder = await resolveModel(config.model.path).catch((error: Error) => {
    if (named === undefined) throw error;
    return undefined;
  });
  const found = folder !== undefined && existsSync(join(folder, 'tokenizer.json'));
  const loaded = found ? Tokenizer.load(folder) : undefined;
  const tokenizer =
    loaded === undefined
      ? estimatedTokenizer
      : chatTokenizer(loaded, config.model.template, config.rollout.roles);
  if (named === undefined) {
    const path = folder as string;
    const model = { json: configJson(path), folder: path };
    const end = loaded?.endTokens[0];
    return { model, shape: readModelConfig(path), tokenizer, end, estimated: !found };
  }
  const json = SHAPES[named];
  if (json === undefined) throw unknownName('shape', named, Object.keys(SHAPES), '--shape');
  // The tokenizer of another model says nothing of this one's tokens.
  const shape = nativeModelConfig(json, named);
  return {
    model: { json, folder: undefined },
    shape,
    tokenizer: estimatedTokenizer,
    end: undefined,
    estimated: true,
  };
}

function checkDevices(devices: number, hosts: number): void {
  for (const [where, value] of [
    ['--devices', devices],
    ['--hosts', hosts],
  ] as const) {
    if (!(Number.isInteger(value) && value > 0))
      throw new TroupeError(`is ${value}; it takes a whole number from 1.`, { where });
  }
  if (devices % hosts !== 0)
    throw new TroupeError(`is ${hosts}; ${devices} devices are not as many on each host.`, {
      where: '--hosts',
    });
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(bytes < 1e8 ? 3 : 1)} GB`;
const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const time = (seconds: number) =>
  seconds < 0.1 ? `${(1000 * seconds).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;

function printPlan(plan: StepPlan, { rows, devices }: StepWork, { calls, share }: PlannedStep): string {
  const { memory, phases, seconds, exchanged, cacheTokens } = plan;
  const tokens = (count: number) => count.toLocaleString('en');
  const width = Math.max(...[...phases, ...memory.parts].map(({ name }) => name.length), 16);
  const row = (name: string, ...cells: string[]) =>
    `${name.padEnd(width)}  ${cells.map((cell) => cell.padStart(10)).join('  ')}`.trimEnd();
  const fits = memory.peak <= memory.device ? 'fits' : 'does not fit';
  return [
    `${plan.device}${devices > 1 ? `, one of ${devices} with ${percent(share)} of the step` : ''}: ` +
      `${devices > 1 ? '' : 'a step of '}${calls.length} calls, ${rows.seen} tokens, ${rows.computed} rows to train on`,
    '',
    row('time', 'seconds', 'bound by'),
    ...phases.map((phase) => row(phase.name, time(phase.seconds), phase.bound)),
    row('step', time(seconds)),
    ...(devices > 1
      ? [`${gigabytes(exchanged.bytes)} through collectives, of which it sends ${gigabytes(exchanged.sent)}`]
      : []),
    '',
    row('memory', 'at most'),
    ...memory.parts.map(({ name, bytes }) => row(name, gigabytes(bytes))),
    `the KV cache may hold ${tokens(cacheTokens.planned)} tokens; the step has ${tokens(cacheTokens.used)} in it`,
    row(`peak (${memory.during})`, gigabytes(memory.peak), `of ${gigabytes(memory.device)}: ${fits}`),
  ].join('\n');
}

/**
 * Supervised start: teaches a model the roles of workflows on generated examples, so that reinforcement begins
 * with roles that answer in form. The examples are what `supervisedCalls` makes of the task's training problems.
 */
import { TroupeError } from '../config/errors.js';
import type { RunConfig } from '../config/schema.js';
import { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import { Tokenizer } from '../engine/tokenizer.js';
import type { TrainCall } from '../engine/types.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import { createTask } from '../tasks/registry.js';
import type { Task } from '../tasks/types.js';
import { type OpenWorkflow, openWorkflow } from '../workflows/registry.js';
import { type SupervisedCall, supervisedCalls, wrongAnswer } from '../workflows/supervised.js';
import { chatTokenizer } from './chat.js';
import { builtInLoss } from './losses.js';
import { randomStream } from './random.js';
import { scheduleFactor } from './schedule.js';
import type { SftConfig } from './sft-schema.js';

interface Part {
  task: Task;
  open: OpenWorkflow;
  weight: number;
}

export interface SftStep {
  step: number;
  /** Mean cross entropy of the step's response tokens, nats. */
  loss: number;
  tokens: number;
}

const POLICY = 'policy';

export async function runSft(config: SftConfig, onStep: (step: SftStep) => void): Promise<void> {
  const parts = await Promise.all(config.data.map((part) => openPart(part)));
  const folder = await resolveModel(config.model.path);
  const tokenizer = Tokenizer.load(folder);
  const chat = chatTokenizer(tokenizer, config.model.template);
  const [endToken] = tokenizer.endTokens;
  if (endToken === undefined) {
    throw new TroupeError('names no end token, so responses could not be taught to end.', { where: folder });
  }
  await using engine = new Engine();
  await createPolicy(engine, config, folder);
  const loss = await builtInLoss('supervised');
  for (let step = 0; step < config.steps; step++) {
    const examples = await drawExamples(parts, config, step);
    const calls = examples.map((example) => toTrainCall(example, chat, endToken));
    const tokens = calls.reduce((sum, call) => sum + call.response.length, 0);
    const result = await engine.send('train', {
      policy: POLICY,
      calls: calls.map((call) => ({ ...call, weight: 1 / tokens })),
      groups: ['all'],
      mismatchOnly: [],
      loss,
      reference: false,
      learningRate: config.learningRate * scheduleFactor(config.schedule, step, config.steps),
      clipNorm: config.clipNorm,
      microBatchRows: config.microBatchRows,
      update: true,
    });
    if (result.skipped !== undefined) throw new TroupeError(result.skipped, { hint: 'Lower learningRate.' });
    onStep({ step, loss: result.loss, tokens });
  }
  await engine.send('exportPolicy', { policy: POLICY, folder: config.output, dtype: config.outputDtype });
  await Promise.all(parts.map(({ task }) => task.close()));
}

async function openPart(part: SftConfig['data'][number]): Promise<Part> {
  const task = await createTask(part.task as RunConfig['task'], { strict: true });
  return { task, open: await openWorkflow(part.workflow, task.kind), weight: part.weight };
}

async function createPolicy(engine: Engine, config: SftConfig, folder: string): Promise<void> {
  const { dtype, device } = config.model;
  const rollout = { cacheBytes: 1 << 20, maxBatch: 1, prefillTokens: 1, seed: 0, deterministic: false };
  await engine.send('loadModel', { name: 'model', folder, dtype, device, rollout });
  const { notices } = await engine.send('createPolicy', {
    name: POLICY,
    model: 'model',
    parameters: { kind: 'full' },
    trainable: true,
    optimizer: { betas: [0.9, 0.999], eps: 1e-8, weightDecay: config.weightDecay },
    seed: config.seed,
  });
  for (const notice of notices) console.error(notice);
}

function pickPart(parts: readonly Part[], random: () => number): Part {
  let rest = random() * parts.reduce((sum, part) => sum + part.weight, 0);
  for (const part of parts) {
    rest -= part.weight;
    if (rest < 0) return part;
  }
  return parts[parts.length - 1] as Part;
}

/** At least `callsPerStep` examples from the training problems of this step. */
async function drawExamples(
  parts: readonly Part[],
  config: SftConfig,
  step: number,
): Promise<SupervisedCall[]> {
  const examples: SupervisedCall[] = [];
  for (let i = 0; examples.length < config.callsPerStep; i++) {
    const random = randomStream(config.seed, step, i);
    const { task, open } = pickPart(parts, random);
    const problem = task.train(config.seed, step * config.callsPerStep + i);
    const options = { errorRate: config.wrongContext, random };
    for (const example of await supervisedCalls(open, problem, task, options)) {
      const mistaken = random() < config.mistakes && example.response === problem.answer;
      examples.push(mistaken ? { ...example, response: wrongAnswer(task, problem, random) } : example);
    }
  }
  return examples;
}

function toTrainCall(example: SupervisedCall, chat: ChatTokenizer, endToken: number): TrainCall {
  const response = Int32Array.from([...chat.encodePlain(example.response), endToken]);
  const { text, literal } = chat.renderChat(example.messages, example.role);
  return {
    prompt: chat.encode(text, literal),
    response,
    rolloutLogprobs: new Float32Array(response.length),
    temperature: 1,
    advantage: 1,
    weight: 0,
    group: 0,
  };
}

/**
 * Supervised start: teaches a model the roles of workflows on generated examples, so that reinforcement begins
 * with roles that answer in form. Which examples is in sft-examples.ts.
 */
import { TroupeError } from '../config/errors.js';
import { Engine } from '../engine/engine.js';
import { resolveModel } from '../engine/model-catalogue.js';
import { Tokenizer } from '../engine/tokenizer.js';
import type { TrainCall } from '../engine/types.js';
import type { ChatTokenizer } from '../rollout/conversation.js';
import type { SupervisedCall } from '../workflows/supervised.js';
import { chatTokenizer } from './chat.js';
import { builtInLoss } from './losses.js';
import { scheduleFactor } from './schedule.js';
import { drawExamples, openPart, type Part } from './sft-examples.js';
import type { SftConfig } from './sft-schema.js';

export interface SftStep {
  step: number;
  /** Mean cross entropy of the step's response tokens, nats. */
  loss: number;
  tokens: number;
}

const POLICY = 'policy';

export async function runSft(config: SftConfig, onStep: (step: SftStep) => void): Promise<void> {
  const parts: Part[] = [];
  try {
    for (const part of config.data) parts.push(await openPart(part));
    await teach(config, parts, onStep);
  } finally {
    await Promise.all(parts.map(({ task }) => task.close()));
  }
}

async function teach(
  config: SftConfig,
  parts: readonly Part[],
  onStep: (step: SftStep) => void,
): Promise<void> {
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
    const done = step + 1;
    if (config.saveEvery > 0 && done % config.saveEvery === 0 && done < config.steps) {
      await save(engine, config, `${config.output}-${done}`);
    }
  }
  await save(engine, config, config.output);
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

async function save(engine: Engine, config: SftConfig, folder: string): Promise<void> {
  await engine.send('exportPolicy', { policy: POLICY, folder, dtype: config.outputDtype });
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

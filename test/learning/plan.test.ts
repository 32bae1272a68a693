/**
 * What a plan counts against what the engine does: parameters, rows of packed batches, tokens and steps of the rollout.
 * How far its seconds and bytes are from measured ones is bench/plan.mjs' business.
 */
import { describe, expect, it, test } from 'vitest';
import { loadRunConfig } from '../../src/config/load.js';
import { nativeModelConfig } from '../../src/engine/configuration.js';
import { native } from '../../src/engine/native.js';
import { SHAPES } from '../../src/engine/shapes.js';
import { DecodeSchedule, SHARED_BASE } from '../../src/learning/plan/decode-schedule.js';
import { DEVICES, findDevice } from '../../src/learning/plan/devices.js';
import { cachedOfToken, modelParameters, trainedParameters } from '../../src/learning/plan/model-size.js';
import { planStep } from '../../src/learning/plan/planned-calls.js';
import { estimatedTokenizer, textResponses } from '../../src/learning/plan/planned-responses.js';
import { planOnDevice } from '../../src/learning/plan/step-plan.js';
import { stepWork } from '../../src/learning/plan/step-work.js';
import { CPU_LEVELS, GPU_LEVELS, treeRows } from '../../src/learning/plan/tree-rows.js';
import type { ChatTokenizer } from '../../src/rollout/conversation.js';
import { fails, json } from '../cli/troupe.js';
import { request, text, tinyConfig, Workshop } from '../rollout/tiny.js';

const shape = (name: string) => nativeModelConfig(SHAPES[name], name);

describe('parameters', () => {
  it.each([
    ['tied, with norms of heads', tinyConfig()],
    ['untied, biases', tinyConfig({ qkNorm: false, qkvBias: true, tiedEmbeddings: false })],
    ['biases everywhere', tinyConfig({ qkvBias: true, outputBias: true, mlpBias: true })],
  ])('%s: as many as the engine makes', (_name, config) => {
    const base = native().createBase(config, 'float32', 'cpu', false);
    const count = (set: typeof base) => set.parameters.reduce((sum, { size }) => sum + size, 0);
    expect(modelParameters(config)).toBe(count(base));
    base.dispose();
    const targets = ['q', 'v', 'o', 'down'] as const;
    const lora = { kind: 'lora' as const, rank: 3, alpha: 6, targets: [...targets] };
    const adapter = native().createAdapter(config, lora, 'float32', 'cpu');
    expect(trainedParameters(config, lora)).toBe(count(adapter));
    adapter.dispose();
    expect(trainedParameters(config, { kind: 'full' })).toBe(modelParameters(config));
  });

  it('of published models', () => {
    expect(modelParameters(shape('qwen3-0.6b'))).toBe(596_049_920);
    expect(modelParameters(shape('qwen3-4b'))).toBe(4_022_468_096);
    expect(modelParameters(shape('smollm2-135m'))).toBe(134_515_008);
    expect(2 * cachedOfToken(shape('qwen3-4b'))).toBe(144 * 1024);
  });
});

/** Calls whose prompts and responses begin alike, in groups. */
function someCalls(seed: number) {
  const draw = text(seed, 400, 1000);
  let next = 0;
  const number = (below: number) => (draw[next++ % draw.length] as number) % below;
  const stem = text(seed + 1, 30, 5);
  return Array.from({ length: 14 }, () => {
    const prompt = [...stem.slice(0, 1 + number(12)), ...Array.from({ length: number(3) }, () => number(4))];
    const response = Array.from({ length: 1 + number(6) }, () => number(3));
    return {
      prompt: Int32Array.from(prompt),
      response: Int32Array.from(response),
      rolloutLogprobs: new Float32Array(response.length),
      temperature: 1,
      advantage: 1,
      weight: 1,
      group: number(3),
    };
  });
}

test('keys are counted along each path', () => {
  const call = (prompt: number[], response: number[]) => ({
    ...(someCalls(0)[0] as ReturnType<typeof someCalls>[number]),
    prompt: Int32Array.from(prompt),
    response: Int32Array.from(response),
    group: 0,
  });
  // 1 2 | 3 (4) and 1 2 | 5 (6): rows 1, 2, 3, 5 meet 1, 2, 3 and 3 keys.
  const rows = treeRows([call([1, 2], [3, 4]), call([1, 2], [5, 6])], CPU_LEVELS);
  expect(rows).toEqual({ rows: 4, keys: 9, trees: 1, blocks: 3 });
});

test('a CPU cuts the unbranched runs of a tree into blocks of 64', () => {
  const call = (first: number, shared: number, own: number, group = 0) => ({
    ...(someCalls(0)[0] as ReturnType<typeof someCalls>[number]),
    prompt: Int32Array.from({ length: shared }, (_, i) => i),
    // The last token is no row.
    response: Int32Array.from({ length: own + 1 }, (_, i) => first + i),
    group,
  });
  const counts = (...calls: ReturnType<typeof call>[]) => {
    const { trees, blocks } = treeRows(calls, CPU_LEVELS);
    return [trees, blocks];
  };
  expect(counts(call(500, 60, 4))).toEqual([1, 1]);
  expect(counts(call(500, 60, 5))).toEqual([1, 2]);
  // 60, then 4 and 70; the third goes on where the first ends, and has its rows.
  expect(counts(call(500, 60, 4), call(600, 60, 70))).toEqual([1, 1 + 1 + 2]);
  expect(counts(call(500, 60, 4), call(600, 60, 70), call(500, 60, 9))).toEqual([1, 1 + 1 + 2]);
  expect(counts(call(500, 60, 4), call(500, 60, 9), call(500, 60, 68))).toEqual([1, 2]);
  // Branches at 30 and 60.
  expect(counts(call(500, 60, 4), call(600, 60, 3), call(500, 30, 3))).toEqual([1, 2 + 3]);
  expect(counts(call(500, 60, 4), call(600, 60, 3), call(500, 60, 4, 1))).toEqual([2, 3 + 1]);
});

describe('the schedule of a rollout', () => {
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens: 1, stop: [] };

  it.each([
    [64, 'all together'],
    [4, 'four at a time'],
  ])('%i: steps and tokens are those of the engine', async (maxBatch) => {
    const workshop = new Workshop();
    const config = tinyConfig();
    const policy = workshop.policy(config, 'float32');
    const engine = workshop.engine(config, { maxBatch });
    const shared = text(3, 21);
    const prompts = [shared, shared, shared, text(4, 9), [...shared.slice(0, 12), 1, 2], text(5, 17), shared];
    const lengths = [5, 9, 3, 7, 7, 2, 11];
    const requests = prompts.map((prompt, i) => request(policy, prompt, { maxTokens: lengths[i] ?? 1 }));
    for (const one of requests) engine.submit({ ...one, ignoreStop: true });
    let steps = 0;
    for (; !engine.idle; steps++) engine.step();

    let responses = 0;
    const schedule = new DecodeSchedule(
      // Responses that share nothing.
      ({ sampling: { maxTokens } }) => new Int32Array(maxTokens).fill(-++responses),
      { maxBatch },
    );
    await Promise.all(
      prompts.map((prompt, i) =>
        schedule.complete({
          policy: 'p',
          prompt: Int32Array.from(prompt),
          sampling: { ...sampling, maxTokens: lengths[i] ?? 1 },
          counter: [0, i, 0, 0, 0],
        }),
      ),
    );
    const { phases, decodedTokens, prefillRows } = schedule.work;
    const statistics = engine.statistics();
    expect(decodedTokens).toBe(lengths.reduce((a, b) => a + b));
    const planned = phases.reduce((sum, phase) => sum + phase.steps, 0);
    // The engine may let a request wait for the prefill of another that begins like it.
    expect(steps - planned).toBeGreaterThanOrEqual(0);
    expect(steps - planned).toBeLessThanOrEqual(3);
    // Every sample but each response's last is computed, and the prompts' unshared tokens; a prompt that is known whole
    // counts one row, its last, which the engine computes again only where that prompt's logits are gone.
    const computed = statistics.prefillTokens + statistics.decodeTokens;
    const expected = prefillRows + decodedTokens - lengths.length;
    expect(Math.abs(computed - expected)).toBeLessThanOrEqual(prompts.length);
    workshop.dispose();
  });

  it('counts a prompt that several read once, and their own tokens each', async () => {
    const schedule = new DecodeSchedule(() => new Int32Array(4), { maxBatch: 8 });
    const prompt = Int32Array.from({ length: 300 }, (_, i) => i);
    const one = { policy: 'p', sampling, counter: [0, 0, 0, 0, 0] as const };
    const alone = { ...one, prompt: Int32Array.of(-1, -2) };
    // Prompts are the same where their tokens are.
    await Promise.all(
      [{ ...one, prompt }, { ...one, prompt: prompt.slice() }, alone].map((call) => schedule.complete(call)),
    );
    const own = 3 * (4 / 2);
    // Eighteen pages that the two share, twelve tokens beyond them that each has for itself; two of the third.
    const read = 18 * 16 + 2 * 12 + 2 + own;
    expect(schedule.work.phases).toEqual([
      {
        steps: 4,
        sequences: 3,
        context: 302 + own,
        read,
        keys: 602 + own,
        bases: [{ sequences: 3, shared: true }],
      },
    ]);
    expect(schedule.work.prefillRows).toBe(300 + 1 + 2);
    expect(schedule.work.prefills).toEqual([{ rows: 303, drawing: 3, shared: true }]);
  });

  it('runs what has weights of its own by itself, and prompts in parts', async () => {
    const schedule = new DecodeSchedule(({ policy }) => new Int32Array(policy === 'long' ? 5 : 2), {
      maxBatch: 8,
      prefillTokens: 6,
      baseOf: (policy) => (policy === 'long' ? SHARED_BASE : policy),
    });
    const call = (policy: string, first: number) => {
      const prompt = Int32Array.from({ length: 4 }, (_, i) => first + i);
      return schedule.complete({ policy, prompt, sampling, counter: [0, 0, 0, 0, 0] });
    };
    await Promise.all([call('long', 0), call('short', 10), call('long', 20)]);
    expect(schedule.work.phases.map(({ steps, bases }) => ({ steps, bases }))).toEqual([
      {
        steps: 2,
        bases: [
          { sequences: 2, shared: true },
          { sequences: 1, shared: false },
        ],
      },
      { steps: 3, bases: [{ sequences: 2, shared: true }] },
    ]);
    expect(schedule.work.prefills).toEqual([
      { rows: 6, drawing: 2, shared: true },
      { rows: 2, drawing: 2, shared: true },
      { rows: 4, drawing: 1, shared: false },
    ]);
  });
});

test('without a tokenizer, texts of other responses are others, and as long in tokens', () => {
  const ids = (first: number) => Int32Array.from({ length: 9 }, (_, i) => first + i);
  const texts = [1, 2, 3].map((first) => estimatedTokenizer.decode(ids(first)));
  expect(new Set(texts.map((text) => text.slice(0, 8))).size).toBe(3);
  for (const text of texts) expect(estimatedTokenizer.encodePlain(text).length).toBe(9);
});

describe('the step of a run', () => {
  it("has the workflow's own calls, with the responses of before in their prompts", async () => {
    const { config } = loadRunConfig('default', [
      'rollout.promptsPerStep=3',
      'rollout.episodesPerPrompt=2',
      'workflow.prompts=full',
    ]);
    const step = await planStep(config, estimatedTokenizer, { responseTokens: [6] });
    expect(step.broken).toBeUndefined();
    expect(step.calls.map(({ role }) => role).sort()).toEqual([
      ...new Array(6).fill('aggregator'),
      ...new Array(18).fill('generator'),
    ]);
    expect(step.calls.every(({ completion }) => completion.ids.length === 6)).toBe(true);
    const length = (role: string) => step.calls.find((call) => call.role === role)?.prompt.length ?? 0;
    expect(length('aggregator')).toBeGreaterThan(length('generator') + 2 * 6);
    expect(step.policies.map(({ name }) => name)).toEqual(['generator', 'aggregator']);
  });

  it('takes lengths of responses in turn, none longer than its role may have', async () => {
    const { config } = loadRunConfig('default', [
      'workflow.name=single',
      'rollout.promptsPerStep=1',
      'rollout.episodesPerPrompt=5',
      'rollout.sampling.maxTokens=8',
    ]);
    const step = await planStep(config, estimatedTokenizer, { responseTokens: [3, 30] });
    expect(step.calls.map(({ completion }) => completion.ids.length)).toEqual([3, 8, 3, 8, 3]);
    expect(step.decode.phases.map(({ steps, sequences }) => [steps, sequences])).toEqual([
      [3, 5],
      [5, 2],
    ]);
  });

  it('has the calls that follow from what its roles say, in turn', async () => {
    const { config } = loadRunConfig('default', [
      'workflow.name=eval-opt',
      'rollout.promptsPerStep=2',
      'rollout.episodesPerPrompt=3',
      'workflow.prompts=full',
    ]);
    const { tokenizer, responses } = textResponses(estimatedTokenizer);
    const step = await planStep(config, tokenizer, {
      responseTokens: [5],
      responses: () => responses({ evaluator: ['The draft is correct.', 'The draft is wrong.'] }),
    });
    const of = (role: string, turn: number) =>
      step.calls.filter((call) => call.role === role && call.turn === turn);
    // Half of six drafts are accepted, then one or two of the other three; nobody judges the third ones.
    expect(of('generator', 0).length).toBe(6);
    expect(of('generator', 1).length).toBe(3);
    expect([1, 2]).toContain(of('generator', 2).length);
    expect(of('evaluator', 2).length).toBe(0);
    expect(of('evaluator', 0).map(({ text }) => text)).toContain('The draft is wrong.');
    expect(of('generator', 0).every(({ completion }) => completion.ids.length === 5)).toBe(true);
    expect(of('evaluator', 0).every(({ completion }) => completion.ids.length < 7)).toBe(true);
  });

  it('takes the time of its episodes, once they have run', async () => {
    const { config } = loadRunConfig('default', [
      'rollout.promptsPerStep=2',
      'rollout.episodesPerPrompt=2',
      'workflow.prompts=full',
    ]);
    let rendered = 0;
    const rendersAtRead: number[] = [];
    const tokenizer: ChatTokenizer = {
      ...estimatedTokenizer,
      renderChat: (messages, role) => {
        rendered++;
        return estimatedTokenizer.renderChat(messages, role);
      },
    };
    const clock = () => rendersAtRead.push(rendered) ** 2;
    const step = await planStep(config, tokenizer, { responseTokens: [6], clock });
    expect(step.episodeSeconds).toBe(2 ** 2 - 1 ** 2);
    // Between the two readings everything was rendered once more: four aggregators' prompts, and one for the voters of each problem.
    expect(rendersAtRead).toEqual([6, 12]);
    const work = stepWork(shape('qwen3-0.6b'), config, step, GPU_LEVELS);
    expect(work.calls).toEqual({ count: 16, seconds: 3 });
    const untimed = await planStep(config, tokenizer, { responseTokens: [6] });
    expect(untimed.episodeSeconds).toBe(0);
  });

  it('is divided by problems, and the optimizer by shards', async () => {
    const { config } = loadRunConfig('default', [
      'model.dtype=bfloat16',
      'rollout.promptsPerStep=5',
      'rollout.episodesPerPrompt=2',
    ]);
    const whole = await planStep(config, estimatedTokenizer, { responseTokens: [6] });
    const part = await planStep(config, estimatedTokenizer, { responseTokens: [6], devices: 2 });
    expect(part.share).toBe(3 / 5);
    const prompts = (step: typeof whole) => new Set(step.calls.map(({ prompt }) => prompt.join()));
    expect(part.calls.length).toBe((3 / 5) * whole.calls.length);
    expect([...prompts(part)].filter((prompt) => prompts(whole).has(prompt)).length).toBeGreaterThan(2);
    const work = stepWork(shape('qwen3-0.6b'), config, part, GPU_LEVELS);
    const trained = 596_049_920;
    const policy = [
      { bytes: 2 * trained, count: 1 },
      { bytes: (4 * trained) / 2, count: 3 },
    ];
    expect(work.memory.held.map(({ tensors }) => tensors)).toEqual([policy, policy]);
    expect(
      work.exchanges.map(({ name, reduceScatter, allGather }) => [name, reduceScatter, allGather]),
    ).toEqual([
      // Three voters are three groups.
      ['exchange generator', 3 * 4 * trained, 2 * trained],
      ['exchange aggregator', 4 * trained, 2 * trained],
      ['records', 0, expect.any(Number)],
    ]);
    expect(stepWork(shape('qwen3-0.6b'), config, whole, GPU_LEVELS).exchanges).toEqual([]);
  });

  it('counts the columns of adapters where other policies have weights of their own, on the base that they share', async () => {
    const sets = [
      'model.dtype=bfloat16',
      'policies.defaults.parameters=full',
      'policies.overrides.aggregator.parameters=lora',
    ];
    const { config } = loadRunConfig('default', sets);
    const step = await planStep(config, estimatedTokenizer);
    const { adapterRows, decode } = stepWork(shape('qwen3-0.6b'), config, step, GPU_LEVELS);
    expect(adapterRows).toBe(8 * Math.ceil(config.policies.defaults.lora.rank / 8));
    const [voters, aggregator] = [decode.phases[0]?.bases, decode.phases.at(-1)?.bases];
    expect([voters, aggregator].map((bases) => bases?.map(({ shared }) => shared))).toEqual([
      [false],
      [true],
    ]);
  });

  it('needs more of everything for a larger shape, and less memory for adapters', async () => {
    const { config } = loadRunConfig('default', ['model.dtype=bfloat16', 'rollout.promptsPerStep=2']);
    const step = await planStep(config, estimatedTokenizer);
    const peak = (name: string, parameters: 'full' | 'lora') => {
      const policies = step.policies.map((policy) => ({ ...policy, parameters }));
      const work = stepWork(shape(name), config, { ...step, policies }, GPU_LEVELS);
      return planOnDevice(shape(name), work, findDevice('h100'), 'bfloat16');
    };
    const [small, large, lora] = [
      peak('qwen3-0.6b', 'full'),
      peak('qwen3-4b', 'full'),
      peak('qwen3-4b', 'lora'),
    ];
    expect(large.seconds).toBeGreaterThan(3 * small.seconds);
    expect(large.memory.peak).toBeGreaterThan(large.memory.device);
    expect(lora.memory.peak).toBeLessThan(large.memory.device / 4);
    // Two policies of 4.02 · 10⁹ parameters with bf16 weights, fp32 masters and two moments.
    const policies = large.memory.parts.filter(({ name }) => name.startsWith('policy'));
    expect(policies.map(({ bytes }) => bytes)).toEqual([14 * 4_022_468_096, 14 * 4_022_468_096]);
  });
});

describe('troupe plan', () => {
  it('prints memory and time as JSON', async () => {
    const plan = await json<{ device: string; seconds: number; calls: number; phases: { name: string }[] }>([
      'plan',
      '--device',
      'h200',
    ]);
    expect(plan.device).toBe(DEVICES.h200?.name);
    expect(plan.calls).toBe(64 * 4 * 4);
    expect(plan.seconds).toBeGreaterThan(0);
    expect(plan.phases.map(({ name }) => name)).toContain('training aggregator');
  });

  it('says which devices there are', async () => {
    await fails(['plan', '--device', 'h1000'], ['h1000', 'h100', 'cpu']);
    await fails(['plan', '--devices', '3', '--hosts', '2'], ['--hosts', 'is 2; 3 devices']);
    await fails(['plan', '--response-tokens', '12,0'], ['--response-tokens', '12,0', 'whole number']);
    await fails(['plan', '--device', 'cpu', '--devices', '2', '--hosts', '2'], ['--hosts', 'is 2']);
    await fails(['plan', '--shape', 'qwen3-4'], ['qwen3-4b']);
  });
});

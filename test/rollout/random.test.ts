/**
 * Engines in which everything happens at once, against plain ones: steps that are recorded and run ahead, caches of a few
 * pages, requests that come, are cancelled and are overtaken by updates between any two steps. Whatever else there is, a
 * request draws what it draws in an engine with room for all, and one that is broken off has drawn the beginning of it.
 *
 * TROUPE_TEST_ROUNDS=200 and TROUPE_TEST_SEED=1 ask for other rounds; the name of one that fails has its seed.
 */
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type NativeRolloutEngine,
  native,
  type RolloutOptions,
  type RolloutRequest,
  type RolloutResult,
} from '../../src/engine/native.js';
import type { AdapterConfig, DType, NativePolicy } from '../../src/engine/native-model.js';
import { generator } from '../kernels/kernels.js';
import { device, maxDifference, request, run, text, tinyConfig, Workshop } from './tiny.js';

const ROUNDS = Number(process.env.TROUPE_TEST_ROUNDS ?? 5);
const FIRST_SEED = Number(process.env.TROUPE_TEST_SEED ?? 20261127);
const REQUESTS = 40;
/** Of the cache that every request fits into by itself: prompts of at most LONGEST tokens and responses of 48. */
const LEAST_PAGES = 9;
const LONGEST = 80;

const config = tinyConfig();
const lora: AdapterConfig = { rank: 4, alpha: 8, targets: ['q', 'v', 'down'] };
/** One or two letters a token, few of them, so that stop strings are met, within tokens and across them. */
const spelled = Array.from({ length: config.vocabularySize }, (_, id) => 'abc'[id % 3] + (id % 2 ? 'd' : ''));
const tokenBytes = Buffer.from(spelled.join(''), 'latin1');
const tokenOffsets = Int32Array.from(
  { length: spelled.length + 1 },
  (_, id) => spelled.slice(0, id).join('').length,
);

const addon = native() as ReturnType<typeof native> & { useKernels(name: string): void };
afterAll(() => addon.useKernels(process.env.TROUPE_KERNELS ?? ''));

let workshop: Workshop;
let before: number;
beforeEach(() => {
  before = native().liveTensors();
  workshop = new Workshop();
});
afterEach(() => {
  workshop.dispose();
  expect(native().liveTensors()).toBe(before);
});

class Dice {
  private readonly next: () => number;

  constructor(seed: number) {
    this.next = generator(seed);
  }

  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }
}

/** Two adapters of one base, and a base of its own, whose parameters change; `seed` says which they are. */
function policiesOf(dtype: DType, owner: Workshop) {
  const shared = owner.frozenBase(config, dtype, 1);
  const adapters = [3, 4].map((seed) => owner.adapter(config, lora, dtype, seed));
  const changing = owner.base(config, dtype, 10);
  const policies = [
    ...adapters.map((adapter) => owner.keep(addon.createPolicy(config, shared, adapter, lora))),
    owner.keep(addon.createPolicy(config, changing)),
  ];
  return { policies, adapters, changing };
}

/** What a request takes besides its policy and prompt. */
function wishes(dice: Dice): Partial<RolloutRequest> {
  const stops = dice.of(['tokens', 'strings', 'nothing', 'nothing']);
  return {
    maxTokens: dice.of([1, 1, 2, 3, 8, 15, 16, 17, 31, 48]),
    temperature: dice.of([0, 0.7, 1, 1.3]),
    topK: dice.of([0, 0, 5]),
    topP: dice.of([1, 1, 0.8]),
    stream: dice.chance(0.3),
    ignoreStop: dice.chance(0.1),
    ...(stops === 'tokens' && { stopTokens: Int32Array.from({ length: 4 }, () => dice.below(40)) }),
    ...(stops === 'strings' && {
      stopStrings: [1, 2].map(() =>
        Array.from({ length: 1 + dice.below(4) }, () => dice.of([...'abcd'])).join(''),
      ),
    }),
  };
}

/** Prompts of a few families that begin alike, of lengths at and beside the edges of pages; or a response, and more. */
function promptOf(dice: Dice, ended: readonly { prompt: Int32Array; ids: Int32Array }[]): number[] {
  if (ended.length > 0 && dice.chance(0.25)) {
    const { prompt, ids } = dice.of(ended);
    return [...prompt, ...ids, ...text(dice.below(3), dice.below(4))].slice(0, LONGEST);
  }
  const whole = text(dice.below(3), 64).slice(0, dice.of([1, 2, 15, 16, 17, 31, 32, 33, 48, 64]));
  return dice.chance(0.3) ? [...whole, ...text(7 + dice.below(2), 1 + dice.below(16))] : whole;
}

interface Outcome {
  asked: RolloutRequest;
  result: RolloutResult;
  /** Results of single tokens that came before. */
  streamed: RolloutResult[];
  /** Which parameters its policy had: the seed of those that change. */
  seed: number;
}

/** Steps until everything has been asked for and has ended. */
function drive(engine: NativeRolloutEngine, dice: Dice, dtype: DType) {
  const { policies, adapters, changing } = policiesOf(dtype, workshop);
  const asked = new Map<number, RolloutRequest>();
  const live = new Set<number>();
  const streams = new Map<number, RolloutResult[]>();
  const seeds = new Map([[policies[2]?.version, 10]]);
  const outcomes: Outcome[] = [];
  const rate = dice.of([0.3, 1, 1]);
  const ask = () => {
    const prompt = promptOf(
      dice,
      outcomes.map(({ asked, result }) => ({ prompt: asked.prompt, ids: result.ids })),
    );
    // Many samples of one prompt, or one.
    const samples = Math.min(dice.of([1, 1, 1, 2, 7]), REQUESTS - asked.size);
    const policy = dice.of(policies);
    for (let i = 0; i < samples; i++) {
      const one = request(policy, prompt, { ...wishes(dice), counter: [0, asked.size, 0, 0, 0] });
      asked.set(one.id, one);
      live.add(one.id);
      engine.submit(one);
    }
  };
  const take = (result: RolloutResult) => {
    const { id, finish, version } = result;
    const one = asked.get(id);
    if (!one || !live.has(id)) throw new Error(`a result for ${id}, which nobody waits for`);
    if (finish === 'running') return void streams.set(id, [...(streams.get(id) ?? []), result]);
    live.delete(id);
    const seed = one.policy === policies[2] ? seeds.get(version) : 10;
    if (seed === undefined) throw new Error(`a result of version ${version}, which its policy never had`);
    outcomes.push({ asked: one, result, streamed: streams.get(id) ?? [], seed });
  };
  for (let step = 0; asked.size < REQUESTS || !engine.idle; step++) {
    if (step === 5000) throw new Error('the engine makes no progress');
    while (asked.size < REQUESTS && dice.chance(rate / 2)) ask();
    if (live.size > 0 && dice.chance(0.06)) engine.cancel(dice.of([...live]));
    if (dice.chance(0.01)) {
      addon.initialize(changing, 10 + seeds.size, 0.3);
      seeds.set(policies[2]?.version, 10 + seeds.size);
    }
    if (dice.chance(0.01)) dice.of(adapters).commit(); // a version of the same numbers
    if (dice.chance(0.04)) engine.clearCache(dice.chance(0.5));
    for (const result of engine.step()) take(result);
  }
  expect(live.size).toBe(0);
  return { policies, outcomes };
}

/** What the requests draw, each with the parameters that its policy had, in an engine that does nothing but draw. */
function plainly(
  outcomes: readonly Outcome[],
  policies: readonly NativePolicy[],
  dtype: DType,
): RolloutResult[] {
  const own = new Workshop();
  const { policies: twins, changing } = policiesOf(dtype, own);
  const engine = own.engine(config, { tokenBytes, tokenOffsets, recordSteps: false, runAhead: false });
  const results = new Map<number, RolloutResult>();
  for (const seed of new Set(outcomes.map((outcome) => outcome.seed))) {
    addon.initialize(changing, seed, 0.3);
    const asked = outcomes
      .filter((outcome) => outcome.seed === seed)
      .map(({ asked }) => ({
        ...asked,
        policy: twins[policies.indexOf(asked.policy)] as NativePolicy,
        stream: false,
      }));
    for (const result of run(engine, asked)) results.set(result.id, result);
  }
  own.dispose();
  return outcomes.map(({ asked }) => results.get(asked.id) as RolloutResult);
}

function expectBeginning({ asked, result, streamed }: Outcome, expected: RolloutResult): void {
  const { ids, logprobs, finish, error, cachedTokens } = result;
  const whole = finish === 'stop' || finish === 'length';
  if (finish === 'error') expect(error).toMatch(/the policy was updated/);
  else if (finish !== 'cancelled') expect([finish, ids]).toEqual([expected.finish, expected.ids]);
  expect(ids).toEqual(expected.ids.slice(0, ids.length));
  // Batches of other sizes may add up in another order.
  expect(maxDifference(logprobs, expected.logprobs.slice(0, ids.length))).toBeLessThan(1e-4);
  expect(cachedTokens).toBeLessThanOrEqual(asked.prompt.length);
  const pieces = streamed.flatMap((one) => [...one.ids]);
  expect(pieces).toEqual(asked.stream ? [...ids.slice(0, whole ? -1 : undefined)] : []);
}

function optionsOf(dice: Dice, dtype: DType): Partial<RolloutOptions> {
  const pageBytes = 2 * config.layers * config.kvHeads * 16 * config.headDim * (dtype === 'float64' ? 8 : 4);
  return {
    tokenBytes,
    tokenOffsets,
    cacheBytes: pageBytes * (LEAST_PAGES + dice.of([0, 0, 1, 4, 10, 20, 200])),
    maxBatch: dice.of([1, 3, 5, 8, 64]),
    prefillTokens: dice.of([1, 16, 20, 64, 512]),
    recordSteps: dice.chance(0.8),
    runAhead: dice.chance(0.8),
    deterministic: dice.chance(0.15),
  };
}

/** Those of a GPU, whose steps are recorded and run ahead, and those of this processor, whose are not; or a real GPU's. */
const own = process.env.TROUPE_KERNELS ?? '';
describe.each(device === 'cpu' ? ['emulated', own] : [own])('on kernels %j', (kernels) => {
  const replays = kernels === 'emulated' || device !== 'cpu';
  /** What happened in some round. */
  const met = new Set<string>();
  const rounds = Array.from({ length: ROUNDS }, (_, i) => FIRST_SEED + i);
  test.each(rounds)('TROUPE_TEST_SEED=%i TROUPE_TEST_ROUNDS=1', (seed) => {
    addon.useKernels(kernels);
    const dice = new Dice(seed);
    const dtype = dice.of<DType>(['float64', 'float32']); // steps in float64 are not recorded
    const options = optionsOf(dice, dtype);
    const engine = workshop.engine(config, options);
    const { policies, outcomes } = drive(engine, dice, dtype);
    const expected = plainly(outcomes, policies, dtype);
    for (const [i, outcome] of outcomes.entries()) expectBeginning(outcome, expected[i] as RolloutResult);

    const { running, waiting, decodeTokens, preemptions, replayedSteps } = engine.statistics();
    expect({ running, waiting }).toEqual({ running: 0, waiting: 0 });
    // All tokens but the last are fed back, a row each; those of a preempted sequence are part of its prompt when it resumes.
    const fedBack = outcomes.reduce((sum, { result }) => sum + Math.max(0, result.ids.length - 1), 0);
    expect(decodeTokens).toBeLessThanOrEqual(fedBack);
    expect(decodeTokens).toBeGreaterThanOrEqual(fedBack - preemptions);
    engine.clearCache(true);
    expect(engine.statistics().cacheBytes).toBe(0);

    for (const { result } of outcomes) met.add(result.finish);
    if (outcomes.some(({ streamed }) => streamed.length > 0)) met.add('streams');
    if (preemptions > 0) met.add('preemptions');
    if (replayedSteps > 0) met.add('replayed steps');
  });

  test.skipIf(ROUNDS < 5)('everything has happened', () => {
    const all = ['stop', 'length', 'cancelled', 'error', 'streams', 'preemptions'];
    expect([...met].sort()).toEqual([...all, ...(replays ? ['replayed steps'] : [])].sort());
  });
});

/**
 * How long the engine takes on this machine for what a planned step asks of it: iterations of the rollout with as many
 * sequences as the step has and fewer, prompts, micro-batches of the step's own calls, an update. The run's own model is
 * measured, or one of the same shape with fewer layers (probe-model.ts); what comes of all this is linear in the layers.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunConfig } from '../../config/schema.js';
import type { Engine } from '../../engine/engine.js';
import type { Ranks } from '../../engine/ranks.js';
import type { CompletionRequest, TrainCall, TrainRequest } from '../../engine/types.js';
import { adapterRanks } from '../../policies/routing.js';
import { openMethod } from '../method.js';
import { loadModel, policyRequest } from '../setup.js';
import { klCoefficient } from '../treatment.js';
import { at, type Curve, type StepCosts, type TrainingCosts } from './costs.js';
import type { PlannedStep } from './planned-calls.js';
import type { ProbedRank } from './rollout-replay.js';
import type { PolicyWork, StepWork } from './step-work.js';
import { CPU_LEVELS, treeRows } from './tree-rows.js';

/** Seconds that one size of a prompt or a micro-batch may take. */
const LONGEST = 0.7;
/** Rows of the larger of two micro-batches at least: what one costs whatever its rows would hide what rows do. */
const FEWEST_ROWS = 512;
const ITERATIONS = 8;
const SIZES = 6;
/** Tokens of a prompt where its length does not matter. */
const SHORT = 16;

const now = () => performance.now() / 1000;
const median = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** Measures with the model in `folder`; ranks that have met do so at the same time. */
export async function probe(
  { engine, ranks }: ProbedRank,
  config: RunConfig,
  folder: string,
  planned: { step: PlannedStep; work: StepWork },
): Promise<StepCosts> {
  const { vocabularySize, maxPositions } = await loadModel(
    engine,
    { ...config, model: { ...config.model, device: 'cpu' } },
    folder,
    adapterRanks(planned.work.policies.map(({ policy }) => policy)),
  );
  const { step, work } = planned;
  const trained = work.policies.map(({ policy }) => policy.name);
  const [first] = step.policies.filter(({ name }) => trained.includes(name) || trained.length === 0);
  if (first === undefined) throw new Error('a run has a policy');
  await engine.send('createPolicy', { ...policyRequest(config, first), trainable: !first.freeze });
  const rollout = new RolloutProbe(engine, first.name, Math.min(vocabularySize, maxPositions));
  const sequences = Math.max(
    1,
    ...step.decode.phases.flatMap(({ bases }) => bases.map(({ sequences }) => sequences)),
  );
  const mean = (values: readonly number[]) => values.reduce((sum, n) => sum + n, 0) / values.length;
  const prompt = Math.round(mean(step.calls.map(({ prompt: { length } }) => length)));
  const decode = await rollout.decode(sequences);
  const perCall = await rollout.call(sequences, decode);
  const costs = {
    decode,
    perCall,
    ...(await rollout.context(sequences, prompt, decode)),
    prefill: await rollout.prefill(prompt, Math.max(...step.decode.prefills.map(({ rows }) => rows)), {
      decode,
      perCall,
    }),
    packing: await rollout.packing(),
  };
  const training: StepCosts['training'] = {};
  const rate = costs.prefill.at(-1) as { rows: number; seconds: number };
  // Forward and twice backward take about four times what prefill does.
  const rows = Math.max(FEWEST_ROWS, (LONGEST / 4) * (rate.rows / rate.seconds));
  for (const policy of work.policies) {
    const { parameters } = policy;
    // Another policy of other parameters is another one to the engine.
    await engine.send('createPolicy', {
      ...policyRequest(config, policy.policy),
      name: first.name,
      parameters,
      trainable: true,
    });
    const request = await updateRequest(config, policy, first.name);
    training[policy.policy.name] = await probeTraining(engine, request, rows, vocabularySize);
  }
  return { ...costs, records: await records(ranks, work), training };
}

/** Seconds in which ranks tell each other of their calls. */
async function records(ranks: Ranks, { exchanges }: StepWork): Promise<number> {
  const bytes = new Uint8Array(exchanges.find(({ name }) => name === 'records')?.allGather ?? 0);
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const started = now();
    await ranks.together('records', async () => bytes);
    times.push(now() - started);
  }
  return median(times);
}

/** Completions of forced length whose iterations are timed from the main thread, as a run sees them. */
class RolloutProbe {
  readonly #engine: Engine;
  readonly #policy: string;
  readonly #vocabulary: number;
  #texts = 0;

  constructor(engine: Engine, policy: string, vocabulary: number) {
    this.#engine = engine;
    this.#policy = policy;
    this.#vocabulary = vocabulary;
  }

  /** A prompt that begins like none before. */
  #prompt(length: number): Int32Array {
    let state = ++this.#texts * 2_654_435_761;
    return Int32Array.from({ length }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state % this.#vocabulary;
    });
  }

  /** Seconds of all, and of an iteration in the middle. */
  async #run(prompts: readonly Int32Array[], maxTokens: number): Promise<{ whole: number; step: number }> {
    const started = now();
    const times: number[] = [];
    const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, maxTokens, stop: [] };
    await Promise.all(
      prompts.map((prompt, i) => {
        const counter = [0, this.#texts, 0, 0, i] as const;
        const request: CompletionRequest = {
          policy: this.#policy,
          prompt,
          sampling,
          counter,
          ignoreStop: true,
        };
        const told = i === prompts.length - 1 ? () => void times.push(now()) : undefined;
        return this.#engine.complete(request, undefined, told);
      }),
    );
    const whole = now() - started;
    // Of iterations that are short several are heard of at once: only from the first to the last is a time of theirs.
    const step = ((times.at(-1) ?? 0) - (times[0] ?? 0)) / Math.max(1, times.length - 1);
    return { whole, step };
  }

  /** Seconds of one that only decodes: the median of three runs where they are short. */
  async #iteration(prompts: readonly Int32Array[]): Promise<number> {
    const run = () => this.#run(prompts, ITERATIONS + 2);
    const { whole, step } = await run();
    return whole > LONGEST / 3 ? step : median([step, (await run()).step, (await run()).step]);
  }

  /** Iterations that only decode, by sequences. */
  async decode(most: number): Promise<Curve> {
    const sizes: number[] = [];
    for (let size = most; sizes.length < SIZES && size >= 1; size = Math.ceil(size / 2)) {
      sizes.unshift(size);
      if (size === 1) break;
    }
    if (sizes[0] !== 1) sizes[0] = 1;
    const curve: Curve = [];
    for (const rows of sizes) {
      const prompts = Array.from({ length: rows }, () => this.#prompt(SHORT));
      curve.push({ rows, seconds: await this.#iteration(prompts) });
    }
    return curve;
  }

  /** Seconds for each token more that a sequence has before it. */
  async context(
    sequences: number,
    length: number,
    decode: Curve,
  ): Promise<{ perKey: number; context: number }> {
    const context = SHORT + ITERATIONS / 2;
    const long = Math.max(length, 64);
    const prompt = this.#prompt(long);
    const seconds = await this.#iteration(new Array<Int32Array>(sequences).fill(prompt));
    const added = seconds - (decode.at(-1)?.seconds ?? 0);
    return { perKey: Math.max(0, added / (sequences * (long - SHORT))), context };
  }

  /** Seconds of a call beside the iterations that it takes part in: of as many at a time, all with one prompt that is known. */
  async call(count: number, decode: Curve): Promise<number> {
    const prompts = new Array<Int32Array>(count).fill(this.#prompt(SHORT));
    await this.#run(prompts, 1);
    const times = [await this.#run(prompts, 1), await this.#run(prompts, 1)];
    return Math.max(0, Math.min(...times.map(({ whole }) => whole)) - at(decode, count)) / count;
  }

  /** Iterations in which prompts of a length are computed, by their rows; without what their calls take. */
  async prefill(
    length: number,
    most: number,
    { decode, perCall }: Pick<StepCosts, 'decode' | 'perCall'>,
  ): Promise<Curve> {
    const curve: Curve = [{ rows: 1, seconds: decode[0]?.seconds ?? 0 }];
    for (let count = 1, last = 0; last < LONGEST && (curve.at(-1)?.rows ?? 0) < most; count *= 2) {
      const rows = count * length;
      const { whole } = await this.#run(
        Array.from({ length: count }, () => this.#prompt(length)),
        1,
      );
      last = whole;
      if (rows > 1) curve.push({ rows, seconds: Math.max(0, whole - count * perCall) });
    }
    return curve;
  }

  /** What the first iteration takes longer than another, the cache being empty: weights of which a copy is laid out anew. */
  async packing(): Promise<number> {
    const seconds = { first: Number.POSITIVE_INFINITY, again: Number.POSITIVE_INFINITY };
    for (let round = 0; round < 2; round++) {
      await this.#engine.send('clearCache', null);
      const first = await this.#run([this.#prompt(SHORT)], 1);
      const again = await this.#run([this.#prompt(SHORT)], 1);
      seconds.first = Math.min(seconds.first, first.whole);
      seconds.again = Math.min(seconds.again, again.whole);
    }
    return Math.max(0, seconds.first - seconds.again);
  }
}

async function updateRequest(
  config: RunConfig,
  { calls, groups }: PolicyWork,
  name: string,
): Promise<TrainRequest> {
  const { kl, entropy, oldLogprobs: old } = config.learning;
  const { method, sketch } = config.gradients;
  const { loss } = await openMethod(config);
  return {
    policy: name,
    calls: [...calls],
    groups: Array.from({ length: groups }, (_, i) => `${i}`),
    mismatchOnly: [],
    loss: loss.request,
    regularisation: { kl: kl.estimator, entropy },
    reference: kl.in === 'loss' && klCoefficient(config, '') > 0,
    old,
    learningRate: 0,
    clipNorm: 1,
    microBatchRows: Number.MAX_SAFE_INTEGER,
    update: true,
    statistics: { method, sketch: { ...sketch, seed: config.seed } },
  };
}

/** Updates on the first calls of the step: few, and as many as take about a second. */
async function probeTraining(
  engine: Engine,
  request: TrainRequest,
  maxRows: number,
  vocabulary: number,
): Promise<TrainingCosts> {
  const inVocabulary = (ids: Int32Array) => ids.map((id) => id % vocabulary);
  const exchanged = async () => (await engine.send('statistics', null)).traffic?.seconds ?? 0;
  const train = async (calls: readonly TrainCall[]) => {
    const known = calls.map((call) => ({
      ...call,
      prompt: inVocabulary(call.prompt),
      response: inVocabulary(call.response),
    }));
    const before = await exchanged();
    const started = now();
    const result = await engine.send('train', { ...request, calls: known });
    const whole = now() - started;
    const { forwardSeconds: forward, backwardSeconds: backward } = result;
    const { statisticsSeconds: statistics, optimizerSeconds: optimizer } = result;
    const beside = Math.max(0, whole - forward - backward - statistics - optimizer);
    // What is exchanged within those parts is in them.
    const exchange = Math.min((await exchanged()) - before, beside);
    const rest = beside - exchange;
    // The result's rows are all ranks'.
    const { rows } = treeRows(known, CPU_LEVELS);
    return { rows, forward, backward, statistics, optimizer, exchange, rest };
  };
  const many = firstOfRows(request.calls, maxRows);
  const few = many.slice(0, Math.max(1, Math.floor(many.length / 4)));
  // The first one takes its memory from the system, as a run's first step does.
  await train(many);
  await sleep(0);
  const small = faster(await train(few), await train(few));
  const large = faster(await train(many), await train(many));
  const { statistics, optimizer, exchange, rest } = large;
  return {
    batches: few.length < many.length ? [small, large] : [large],
    statistics,
    optimizer,
    exchange,
    rest,
  };
}

interface Passes {
  forward: number;
  backward: number;
}

/** Of two measurements of the same: what else the machine does only adds. */
function faster<T extends Passes>(one: T, other: T): T {
  return one.forward + one.backward < other.forward + other.backward ? one : other;
}

/** As many calls from the first on as have no more rows, four at least, so that a quarter of them are fewer. */
function firstOfRows(calls: readonly TrainCall[], rows: number): TrainCall[] {
  let [low, high] = [Math.min(4, calls.length), calls.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (treeRows(calls.slice(0, middle), CPU_LEVELS).rows <= rows) low = middle;
    else high = middle - 1;
  }
  return calls.slice(0, low);
}

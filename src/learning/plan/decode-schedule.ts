/**
 * What the rollout engine does with a step's calls, from their lengths alone: which sequences run together, how many
 * prompt tokens are computed, how many tokens of context each decode step reads.
 */
import type { Completion, CompletionRequest } from '../../engine/types.js';
import { inOrder, sharedLength } from '../prefixes.js';

/** Decode steps of the same sequences. */
export interface DecodePhase {
  steps: number;
  sequences: number;
  /** Tokens whose keys and values a step reads, at the middle of the phase; a prompt that several share once. */
  context: number;
  /** The same where a GPU reads them: of a shared prompt, the page in which samples branch counts for each of them. */
  read: number;
  /** The same for each sequence by itself. */
  keys: number;
  /** Of each base: what has weights of its own runs by itself. */
  bases: BaseSequences[];
}

/** Sequences that run on one base. */
export interface BaseSequences {
  sequences: number;
  /** Whether it is the model's, which all adapters are computed on. */
  shared: boolean;
}

/** Rows of prompts that are computed together, in an iteration in which others may decode. */
export interface PrefillPass {
  rows: number;
  /** Sequences of the base that draw in this iteration: those that come and those that decode already. */
  drawing: number;
  /** As BaseSequences has it. */
  shared: boolean;
}

/** Positions of a page of the cache (native/kernels/kv_store.h). */
const PAGE = 16;

export interface DecodeWork {
  phases: DecodePhase[];
  prefills: PrefillPass[];
  prefillRows: number;
  /** Keys that the rows of prefill meet in attention. */
  prefillKeys: number;
  decodedTokens: number;
  /** Most tokens in the cache at a time, if nothing is dropped. */
  cachedTokens: number;
}

/** The work of a step that decodes nothing. */
export const noDecoding = (): DecodeWork => ({
  phases: [],
  prefills: [],
  prefillRows: 0,
  prefillKeys: 0,
  decodedTokens: 0,
  cachedTokens: 0,
});

interface Running {
  request: CompletionRequest;
  /** Of the prompt: what shares it has the same. */
  key: string;
  left: number;
  total: number;
  finish(completion: Completion): void;
}

/** Gives the ids of a response: as many as `maxTokens` asks for, or fewer. */
export type Respond = (request: CompletionRequest) => Int32Array;

export interface ScheduleLimits {
  /** Sequences that run at a time. */
  maxBatch: number;
  /** Rows of prompts in one iteration. */
  prefillTokens?: number;
  /** Name of the weights that a policy runs on, where they are its own: others run together, on the model's. */
  baseOf?(policy: string): string;
}

/** Name of the model's own weights. */
export const SHARED_BASE = '';

/** Runs calls against the clock of decode steps instead of a model. */
export class DecodeSchedule {
  readonly work = noDecoding();
  readonly #respond: Respond;
  readonly #limits: Required<ScheduleLimits>;
  readonly #waiting: Running[] = [];
  #running: Running[] = [];
  readonly #responses = new Map<Running, Int32Array>();
  /** Sequences that were computed, of each policy, in order: later prompts find their beginnings. */
  readonly #cached = new Map<string, Int32Array[]>();
  #busy = false;

  constructor(respond: Respond, limits: ScheduleLimits) {
    this.#respond = respond;
    this.#limits = { prefillTokens: Number.POSITIVE_INFINITY, baseOf: () => SHARED_BASE, ...limits };
  }

  complete(request: CompletionRequest): Promise<Completion> {
    const response = this.#respond(request);
    return new Promise((resolve) => {
      const key = `${request.policy} ${request.prompt.join()}`;
      const call = { request, key, left: response.length, total: response.length, finish: resolve };
      this.#responses.set(call, response);
      this.#waiting.push(call);
      void this.#run();
    });
  }

  async #run(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    // Workflows answer a finished call with their next ones before the next step.
    await settled();
    while (this.#waiting.length + this.#running.length > 0) {
      this.#admitWaiting();
      this.#decode();
      await settled();
    }
    this.#busy = false;
  }

  #admitWaiting(): void {
    const rows = new Map<string, number>();
    while (this.#running.length < this.#limits.maxBatch && this.#waiting.length > 0) {
      const call = this.#waiting.shift() as Running;
      const base = this.#baseOf(call);
      rows.set(base, (rows.get(base) ?? 0) + this.#admit(call));
    }
    const { prefillTokens } = this.#limits;
    for (const [base, all] of rows) {
      const drawing = this.#running.filter((call) => this.#baseOf(call) === base).length;
      for (let left = all; left > 0; left -= prefillTokens)
        this.work.prefills.push({
          rows: Math.min(left, prefillTokens),
          drawing,
          shared: base === SHARED_BASE,
        });
    }
  }

  #known(policy: string): Int32Array[] {
    const known = this.#cached.get(policy) ?? [];
    this.#cached.set(policy, known);
    return known;
  }

  #baseOf({ request }: Running): string {
    return this.#limits.baseOf(request.policy);
  }

  /** Rows of its prompt that have to be computed. */
  #admit(call: Running): number {
    const { policy, prompt } = call.request;
    const known = this.#known(policy);
    // The last token is computed in any case: its logits are wanted. In order, what shares most stands next to it.
    const place = placeIn(known, prompt);
    const neighbours = known.slice(Math.max(0, place - 1), place + 1);
    const found = Math.max(0, ...neighbours.map((text) => sharedLength(text, prompt)));
    const shared = Math.min(prompt.length - 1, found);
    const rows = prompt.length - shared;
    this.work.prefillRows += rows;
    this.work.prefillKeys += (prompt.length * (prompt.length + 1) - shared * (shared + 1)) / 2;
    this.work.cachedTokens += rows + call.total;
    // A prompt that is known whole adds nothing.
    if (rows > 1) known.splice(place, 0, prompt);
    this.#running.push(call);
    return rows;
  }

  /** As many steps as the shortest sequence has tokens left. */
  #decode(): void {
    const steps = Math.min(...this.#running.map(({ left }) => left));
    const prompts = new Map<string, number>();
    const bases = new Map<string, number>();
    let [own, each, branched] = [0, 0, 0];
    for (const call of this.#running) {
      const base = this.#baseOf(call);
      bases.set(base, (bases.get(base) ?? 0) + 1);
      prompts.set(call.key, call.request.prompt.length);
      own += call.total - call.left + steps / 2;
      each += call.request.prompt.length;
      branched += call.request.prompt.length % PAGE;
    }
    const lengths = [...prompts.values()];
    const shared = lengths.reduce((sum, length) => sum + length, 0);
    const pages = lengths.reduce((sum, length) => sum + length - (length % PAGE), 0);
    this.work.phases.push({
      steps,
      sequences: this.#running.length,
      context: shared + own,
      read: pages + branched + own,
      keys: each + own,
      bases: Array.from(bases, ([base, sequences]) => ({ sequences, shared: base === SHARED_BASE })),
    });
    this.work.decodedTokens += steps * this.#running.length;
    for (const call of this.#running) call.left -= steps;
    const done = this.#running.filter(({ left }) => left === 0);
    this.#running = this.#running.filter(({ left }) => left > 0);
    for (const call of done) this.#finish(call);
  }

  #finish(call: Running): void {
    const ids = this.#responses.get(call) as Int32Array;
    this.#responses.delete(call);
    const { policy, prompt } = call.request;
    const text = new Int32Array(prompt.length + ids.length);
    text.set(prompt);
    text.set(ids, prompt.length);
    const known = this.#known(policy);
    known.splice(placeIn(known, text), 0, text);
    call.finish({
      ids,
      logprobs: new Float32Array(ids.length),
      finish: 'length',
      policy,
      version: 0,
      cachedTokens: 0,
    });
  }
}

/** Where a sequence belongs among others in order. */
function placeIn(known: readonly Int32Array[], text: Int32Array): number {
  let [low, high] = [0, known.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (inOrder(known[middle] as Int32Array, text) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** After everything that is ready to run has run. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

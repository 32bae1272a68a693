/**
 * What the rollout engine does with a step's calls, from their lengths alone: which sequences run together, how many
 * prompt tokens are computed, how many tokens of context each decode step reads.
 */
import type { Completion, CompletionRequest } from '../../engine/types.js';
import { sharedLength } from './prefix-rows.js';

/** Decode steps of the same sequences. */
export interface DecodePhase {
  steps: number;
  sequences: number;
  /** Tokens whose keys and values a step reads, at the middle of the phase; a prompt that several share once. */
  context: number;
  policies: number;
}

export interface DecodeWork {
  phases: DecodePhase[];
  prefillRows: number;
  /** Keys that the rows of prefill meet in attention. */
  prefillKeys: number;
  decodedTokens: number;
  /** Most tokens in the cache at a time, if nothing is dropped. */
  cachedTokens: number;
}

interface Running {
  request: CompletionRequest;
  left: number;
  total: number;
  finish(completion: Completion): void;
}

/** Gives the ids of a response: as many as `maxTokens` asks for, or fewer. */
export type Respond = (request: CompletionRequest) => Int32Array;

/** Runs calls against the clock of decode steps instead of a model. */
export class DecodeSchedule {
  readonly work: DecodeWork = {
    phases: [],
    prefillRows: 0,
    prefillKeys: 0,
    decodedTokens: 0,
    cachedTokens: 0,
  };
  readonly #respond: Respond;
  readonly #maxBatch: number;
  readonly #waiting: Running[] = [];
  #running: Running[] = [];
  readonly #responses = new Map<Running, Int32Array>();
  /** Sequences that were computed, of each policy: later prompts find their beginnings. */
  readonly #cached = new Map<string, Int32Array[]>();
  #busy = false;

  constructor(respond: Respond, maxBatch: number) {
    this.#respond = respond;
    this.#maxBatch = maxBatch;
  }

  complete(request: CompletionRequest): Promise<Completion> {
    const response = this.#respond(request);
    return new Promise((resolve) => {
      const call = { request, left: response.length, total: response.length, finish: resolve };
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
      while (this.#running.length < this.#maxBatch && this.#waiting.length > 0)
        this.#admit(this.#waiting.shift() as Running);
      this.#decode();
      await settled();
    }
    this.#busy = false;
  }

  #admit(call: Running): void {
    const { policy, prompt } = call.request;
    const known = this.#cached.get(policy) ?? [];
    // The last token is computed in any case: its logits are wanted.
    const shared = Math.min(
      prompt.length - 1,
      Math.max(0, ...known.map((text) => sharedLength(text, prompt))),
    );
    const rows = prompt.length - shared;
    this.work.prefillRows += rows;
    this.work.prefillKeys += (prompt.length * (prompt.length + 1) - shared * (shared + 1)) / 2;
    this.work.cachedTokens += rows + call.total;
    // A prompt that is known whole adds nothing.
    if (rows > 1) this.#cached.set(policy, [...known, prompt]);
    this.#running.push(call);
  }

  /** As many steps as the shortest sequence has tokens left. */
  #decode(): void {
    const steps = Math.min(...this.#running.map(({ left }) => left));
    const prompts = new Map<Int32Array, number>();
    let own = 0;
    for (const call of this.#running) {
      prompts.set(call.request.prompt, call.request.prompt.length);
      own += call.total - call.left + steps / 2;
    }
    const shared = [...prompts.values()].reduce((sum, length) => sum + length, 0);
    const policies = new Set(this.#running.map(({ request }) => request.policy)).size;
    this.work.phases.push({ steps, sequences: this.#running.length, context: shared + own, policies });
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
    this.#cached.set(policy, [...(this.#cached.get(policy) ?? []), text]);
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

/** After everything that is ready to run has run. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

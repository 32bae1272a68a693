/** Completions over the native rollout engine of one model: requests in, completions out. */
import { TroupeError } from '../config/errors.js';
import { isOutOfMemory } from './memory.js';
import type { NativeRolloutEngine, RolloutResult } from './native.js';
import type { PolicyState } from './policy-state.js';
import type { Completion, CompletionPart, CompletionRequest } from './types.js';

/** What a decode iteration says of a request: the end of it, or a part of what is to come. */
export interface Told {
  id: number;
  part?: CompletionPart;
  completion?: Completion;
  error?: Error;
}

export class Generation {
  readonly #engine: NativeRolloutEngine;
  readonly #endTokens: Int32Array;
  /** Policy of every request in flight. */
  readonly #inFlight = new Map<number, PolicyState>();

  constructor(engine: NativeRolloutEngine, endTokens: readonly number[]) {
    this.#engine = engine;
    this.#endTokens = Int32Array.from(endTokens);
  }

  get busy(): boolean {
    return this.#inFlight.size > 0;
  }

  submit(id: number, policy: PolicyState, request: CompletionRequest): void {
    const { temperature, topK, topP, minP, maxTokens, stop } = request.sampling;
    this.#engine.submit({
      id,
      policy: policy.native,
      prompt: request.prompt,
      maxTokens,
      temperature,
      topK,
      topP,
      minP,
      stopTokens: this.#endTokens,
      stopStrings: stop,
      counter: request.counter,
      ignoreStop: request.ignoreStop ?? false,
      stream: request.stream ?? false,
    });
    this.#inFlight.set(id, policy);
  }

  cancel(id: number): void {
    if (this.#inFlight.has(id)) this.#engine.cancel(id);
  }

  /** One decode iteration. A native failure ends every request in flight, not the engine. */
  step(): Told[] {
    try {
      return this.#engine.step().map((result) => this.#told(result));
    } catch (thrown) {
      const cause = isOutOfMemory(thrown) ? outOfMemory(thrown as Error) : thrown;
      const ids = [...this.#inFlight.keys()];
      for (const id of ids) this.#engine.cancel(id);
      this.#inFlight.clear();
      const error = cause instanceof Error ? cause : new Error(String(cause));
      return ids.map((id) => ({ id, error }));
    }
  }

  /** Bytes of the device's memory that are not for the next cache. */
  reserve(bytes: number): void {
    this.#engine.reserve(bytes);
  }

  clearCache(): void {
    this.#engine.clearCache(true);
  }

  statistics() {
    return this.#engine.statistics();
  }

  dispose(): void {
    this.#engine.dispose();
  }

  #told(result: RolloutResult): Told {
    if (result.finish === 'running') {
      return { id: result.id, part: { ids: result.ids, logprobs: result.logprobs } };
    }
    const policy = this.#inFlight.get(result.id);
    this.#inFlight.delete(result.id);
    if (policy === undefined || result.finish === 'error') {
      return { id: result.id, error: new TroupeError(result.error ?? 'the completion failed') };
    }
    const { id, ids, logprobs, finish, cachedTokens } = result;
    const version = policy.updatesAt(result.version);
    return { id, completion: { ids, logprobs, finish, policy: policy.name, version, cachedTokens } };
  }
}

/** The engine took less at a time before it came to this. */
function outOfMemory(cause: Error): TroupeError {
  return new TroupeError(
    `memory ran out in a decoding step of one sequence (${cause.message.split('\n')[0]})`,
    {
      hint: 'Set rollout.cacheBytes lower, which leaves more for the rest, or take a device with more memory.',
      cause,
    },
  );
}

/**
 * Admission of role calls in `deterministic` runs. Without it calls reach the engine in the order in which
 * episodes happen to ask, and a sample's kernels see other neighbours from run to run.
 *
 * The gate collects calls until every live episode waits for one, sends them together in logical order (their
 * counters), and hands out the answers, in the same order, only when all of them are there.
 */
import type { Completion, CompletionRequest } from '../engine/types.js';
import type { Complete } from './episode.js';

interface Waiting {
  episode: number;
  request: CompletionRequest;
  signal: AbortSignal | undefined;
  resolve(completion: Completion): void;
  reject(error: unknown): void;
}

function byCounter(a: Waiting, b: Waiting): number {
  for (let i = 0; i < a.request.counter.length; i++) {
    const difference = (a.request.counter[i] ?? 0) - (b.request.counter[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

export class Gate {
  readonly #complete: Complete;
  readonly #live = new Set<number>();
  #waiting: Waiting[] = [];
  #inFlight = false;

  constructor(complete: Complete) {
    this.#complete = complete;
  }

  /** Every episode of a wave is announced before any of them runs. */
  begin(episode: number): void {
    this.#live.add(episode);
  }

  end(episode: number): void {
    this.#live.delete(episode);
    this.#schedule();
  }

  complete(episode: number, request: CompletionRequest, signal?: AbortSignal): Promise<Completion> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ episode, request, signal, resolve, reject });
      this.#schedule();
    });
  }

  // A turn of the event loop later, so that an episode that asks for several calls at once has asked for all.
  #schedule(): void {
    setImmediate(() => void this.#sendWhenAllWait());
  }

  async #sendWhenAllWait(): Promise<void> {
    const waiting = new Set(this.#waiting.map((call) => call.episode));
    if (this.#inFlight || this.#waiting.length === 0 || waiting.size < this.#live.size) return;
    const wave = this.#waiting.sort(byCounter);
    this.#waiting = [];
    this.#inFlight = true;
    const answers = await Promise.allSettled(wave.map((call) => this.#complete(call.request, call.signal)));
    this.#inFlight = false;
    answers.forEach((answer, i) => {
      if (answer.status === 'fulfilled') wave[i]?.resolve(answer.value);
      else wave[i]?.reject(answer.reason);
    });
    this.#schedule();
  }
}

/**
 * Begins a rank's episodes problem by problem, while the engine's batch has room for more calls: what has not begun
 * another rank can take over (engine/deal.ts). The engine would let the others wait in any case.
 */
import { setImmediate as settled } from 'node:timers/promises';
import type { Deal } from '../engine/deal.js';
import type { Complete } from '../rollout/episode.js';

/** Calls under way. */
export class Room {
  readonly #direct: Complete;
  readonly #size: number;
  #calls = 0;
  #episodes = 0;
  /** Most calls that an episode had under way, on the average of those that ran. */
  #callsPerEpisode = 1;
  #wake: () => void = () => {};

  /** `size`: calls that the engine has in a batch. */
  constructor(direct: Complete, size: number) {
    this.#direct = direct;
    this.#size = size;
  }

  readonly complete: Complete = async (request, signal) => {
    this.#calls += 1;
    try {
      return await this.#direct(request, signal);
    } finally {
      this.#calls -= 1;
      this.#wake();
    }
  };

  async during<T>(episode: () => Promise<T>): Promise<T> {
    this.#episodes += 1;
    try {
      return await episode();
    } finally {
      this.#episodes -= 1;
      this.#wake();
    }
  }

  /** Episodes that there is room for; waits until it is one at least. An episode counts as a call if it has none. */
  async free(): Promise<number> {
    // Episodes that have just begun make their first calls.
    await settled();
    const used = () => Math.max(this.#calls, this.#episodes);
    if (this.#episodes > 0)
      this.#callsPerEpisode = Math.max(this.#callsPerEpisode, this.#calls / this.#episodes);
    while (used() >= this.#size) await new Promise<void>((resolve) => (this.#wake = resolve));
    return Math.max(1, Math.floor((this.#size - used()) / this.#callsPerEpisode));
  }
}

export interface Begun<T> {
  episodes: Promise<T>[];
  /** Of problems that were other ranks'. */
  takenOver: { problems: number; since: number | undefined };
}

/** Resolves when there is nothing left to begin on any rank. `run` begins one problem. */
export async function beginByRoom<T>(
  deal: Deal,
  room: Room,
  episodesPerProblem: number,
  run: (problem: number) => Promise<T>[],
): Promise<Begun<T>> {
  const episodes: Promise<T>[] = [];
  const takenOver: Begun<T>['takenOver'] = { problems: 0, since: undefined };
  // How many calls an episode makes at a time, the first problem shows.
  let most = 1;
  for (;;) {
    const problems = await deal.take(most);
    if (problems.length === 0) return { episodes, takenOver };
    if (deal.othersTurn) {
      takenOver.problems += problems.length;
      takenOver.since ??= performance.now();
    }
    for (const episode of problems.flatMap(run)) {
      // Whoever awaits them all hears of it; until then it is nobody's.
      episode.catch(() => undefined);
      episodes.push(episode);
    }
    most = Math.max(1, Math.floor((await room.free()) / episodesPerProblem));
  }
}

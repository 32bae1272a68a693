/**
 * Problems that the ranks of a run begin one after another. Each rank begins with its own; what others have not begun by
 * then it takes over, so that nobody waits for a rank that has longer ones. Who has begun what is counted in the group's
 * store.
 */

/** Adds to a count that all ranks share; resolves with what it comes to. */
export type Count = (name: string, amount: number) => Promise<number>;

export class Deal {
  /** Of each rank, from this one on. */
  readonly #lists: { name: string; problems: number[] }[];
  readonly #count: Count;
  #list = 0;

  /** All ranks give the same `name`, which no other deal has, and the same problems. */
  constructor(
    name: string,
    problems: readonly number[],
    place: { rank: number; size: number; ownerOf(problem: number): number },
    count: Count,
  ) {
    this.#count = count;
    this.#lists = Array.from({ length: place.size }, (_, i) => {
      const owner = (place.rank + i) % place.size;
      const its = problems.filter((problem) => place.ownerOf(problem) === owner);
      return { name: `${name} of rank ${owner}`, problems: its };
    });
  }

  /** Whether what `take` gave last was another rank's. */
  get othersTurn(): boolean {
    return this.#list > 0;
  }

  /** The next problems to begin: of this rank's own at most `most`, of others' one. None: all have begun. */
  async take(most: number): Promise<number[]> {
    for (; this.#list < this.#lists.length; this.#list++) {
      const { name, problems } = this.#lists[this.#list] ?? { name: '', problems: [] };
      if (problems.length === 0) continue;
      const amount = this.othersTurn ? 1 : most;
      const taken = await this.#count(name, amount);
      if (taken - amount < problems.length) return problems.slice(taken - amount, taken);
    }
    return [];
  }
}

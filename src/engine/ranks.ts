/**
 * The ranks of a run, as the main thread sees them: what each does of a common piece of work, and what all agree on.
 * A run of one process is the same with one rank, which sends nothing. The rest of the program says which part of its
 * work belongs to which problem, and knows no more of ranks than that (docs/distributed.md).
 *
 * Whatever one rank's part throws ends the piece of work on all of them, and so does a stop signal that one of them gets:
 * after each call here all ranks are at the same place. A rank that dies or hangs aborts `signal` on the others.
 */
import { setMaxListeners } from 'node:events';
import { deserialize, serialize } from 'node:v8';
import { TroupeError } from '../config/errors.js';
import { untilAborted } from '../config/user-code.js';
import { Deal } from './deal.js';
import type { Engine } from './engine.js';
import { whyNotNccl } from './gpu-exchange.js';
import type { CommandName, Commands } from './protocol.js';
import { addressTowards, type RankPlace } from './rank-place.js';
import { TurnWatch } from './turns.js';

export interface JoinOptions {
  /** Seconds after which a rank that is not heard of is taken for dead. */
  timeoutSeconds: number;
  /** Seconds after which an engine's thread that has not come back from a piece of its work is taken for hung. */
  stallSeconds?: number;
  /** Asks this rank to stop. */
  signal?: AbortSignal | undefined;
}

/** What a rank's part of a piece of work came to. */
type Outcome<T> = { value: T } | { stop: true } | { error: string };

/** A command that rank 0 has all ranks' engines do. */
interface Order {
  command: CommandName;
  argument: Commands[CommandName][0];
}

export class Ranks {
  readonly rank: number;
  readonly size: number;
  /** Aborted where this rank or another is asked to stop, and with the error as its reason where a rank is lost. */
  readonly signal: AbortSignal;
  /** By all ranks since the start: problems of others that a rank ran, and seconds from its first one on, added up. */
  readonly takenOver = { problems: 0, seconds: 0 };
  readonly #engine: Engine;
  readonly #ended = new AbortController();
  /** Name of the piece of work that rank 0 leads. */
  #leading = '';
  /** GPUs have to exchange by NCCL, or must not; undefined: they do where they can. */
  #nccl: boolean | undefined;
  readonly #shared = new Int32Array(new SharedArrayBuffer(SHARED_NUMBERS * 4));
  #timer: NodeJS.Timeout | undefined;
  #deals = 0;

  private constructor(engine: Engine, rank: number, size: number, signal: AbortSignal | undefined) {
    this.#engine = engine;
    this.rank = rank;
    this.size = size;
    this.signal = AbortSignal.any(signal === undefined ? [this.#ended.signal] : [this.#ended.signal, signal]);
    // Every completion in flight listens to it.
    setMaxListeners(0, this.signal, this.#ended.signal);
  }

  /** The only rank of its run. */
  static alone(engine: Engine, signal?: AbortSignal): Ranks {
    return new Ranks(engine, 0, 1, signal);
  }

  /** Meets the other ranks. Throws a TroupeError where one does not come in time. */
  static async join(engine: Engine, place: RankPlace, options: JoinOptions): Promise<Ranks> {
    const { rank, size, localRank, host, port, serve, prefix, nccl } = place;
    const { timeoutSeconds, stallSeconds = Number.POSITIVE_INFINITY, signal } = options;
    if (size === 1) return Ranks.alone(engine, signal);
    const ranks = new Ranks(engine, rank, size, signal);
    const interfaceName = process.env.GLOO_SOCKET_IFNAME ?? '';
    const waits = { seconds: timeoutSeconds, signal };
    const address = interfaceName === '' ? await addressTowards(place, waits) : '';
    ranks.#watch(timeoutSeconds, stallSeconds);
    const names = { prefix, address, interface: interfaceName };
    const meeting = { rank, size, host, port, serve, ...names, nccl: nccl === true };
    ranks.#nccl = nccl;
    try {
      await untilAborted(
        engine.send('join', { ...meeting, localRank, timeoutSeconds, shared: ranks.#shared }),
        signal,
      );
    } catch (error) {
      clearInterval(ranks.#timer);
      // There is nothing to save yet, and no way to call back a thread that waits for others.
      if (signal?.aborted) engine.abandon(signal.reason as Error);
      throw error;
    }
    return ranks;
  }

  /**
   * Before GPUs exchange anything: connects them by NCCL, where all can. `device`: what this rank's engine computes on.
   * Returns what a person should know of it.
   */
  async connectGpus(device: string): Promise<string | undefined> {
    if (this.size === 1 || this.#nccl === true) return undefined;
    const engine = this.#engine;
    const gpus = await this.together('how GPUs exchange', async () => ({
      device,
      problem: this.#nccl === false ? 'TROUPE_NCCL is 0.' : await engine.send('ncclProblem', null),
    }));
    const why = whyNotNccl(gpus) ?? (await this.#takeNccl(device));
    if (why === undefined || why === '') return undefined;
    return `what the ranks' GPUs exchange goes by way of the CPUs' memory, which is slow: ${why} (docs/distributed.md)`;
  }

  /** Why the ranks could not connect by NCCL, and then none uses it; undefined: they could. */
  async #takeNccl(device: string): Promise<string | undefined> {
    const problems = await this.together('NCCL', () => this.#engine.send('takeNccl', { device }));
    const failed = problems.findIndex((problem) => problem !== '');
    if (failed < 0) return undefined;
    await this.#engine.send('dropNccl', null);
    return `rank ${failed} could not connect by NCCL: ${problems[failed]}`;
  }

  /** Whether what belongs to problem number `index` is done by this rank. Whole problems: their episodes are compared. */
  owns(index: number): boolean {
    return this.ownerOf(index) === this.rank;
  }

  ownerOf(index: number): number {
    return index % this.size;
  }

  /**
   * The rank of each problem where all ranks are to have about as much to do: the costliest first, each to the rank that has
   * least so far (LPT, Graham 1969). The same on all ranks for the same costs.
   */
  shares(costs: ReadonlyMap<number, number>): (problem: number) => number {
    const load = new Array<number>(this.size).fill(0);
    const owners = new Map<number, number>();
    for (const [problem, cost] of [...costs].sort(([a, x], [b, y]) => y - x || a - b)) {
      const owner = load.indexOf(Math.min(...load));
      load[owner] = (load[owner] ?? 0) + cost;
      owners.set(problem, owner);
    }
    return (problem) => owners.get(problem) ?? this.ownerOf(problem);
  }

  /** Problems that the ranks begin one after another; all ranks make the same deals in the same order. */
  deal(problems: readonly number[]): Deal {
    const count = (name: string, amount: number) => this.#engine.send('count', { name, amount });
    const ownerOf = (problem: number) => this.ownerOf(problem);
    return new Deal(`deal ${this.#deals++}`, problems, { rank: this.rank, size: this.size, ownerOf }, count);
  }

  /** Every rank does `work`; returns what it came to on each, in their order. `what` names it in messages. */
  async together<T>(what: string, work: () => Promise<T>): Promise<T[]> {
    if (this.size === 1) return [await work()];
    const { outcome, thrown } = await this.#outcomeOf(work);
    const outcomes = await this.#exchange<Outcome<T>>(what, outcome, thrown);
    return this.#conclude(outcomes, outcome, thrown);
  }

  #conclude<T>(outcomes: readonly Outcome<T>[], own: Outcome<T>, thrown: unknown): T[] {
    if (outcomes.some((one) => 'stop' in one)) {
      this.#ended.abort();
      throw this.signal.reason;
    }
    if ('error' in own) throw thrown;
    return outcomes.map((one, rank) => {
      if ('value' in one) return one.value;
      throw new TroupeError('error' in one ? one.error : 'stopped', { where: `rank ${rank}` });
    });
  }

  async #outcomeOf<T>(work: () => Promise<T>): Promise<{ outcome: Outcome<T>; thrown: unknown }> {
    try {
      return { outcome: { value: await work() }, thrown: undefined };
    } catch (thrown) {
      const { aborted, reason } = this.signal;
      const stop = aborted && reason instanceof DOMException && reason.name === 'AbortError';
      const error = thrown instanceof Error ? thrown.message : String(thrown);
      return { outcome: stop ? { stop: true } : { error }, thrown };
    }
  }

  /** If it cannot be, the work's own error says more, unless that is only that the group has failed. */
  async #exchange<T>(name: string, value: T, thrown: unknown): Promise<T[]> {
    try {
      const all = await this.#engine.send('gather', { name, bytes: serialize(value) });
      return all.map((bytes) => deserialize(bytes) as T);
    } catch (error) {
      throw thrown === undefined || thrown === this.signal.reason ? error : thrown;
    }
  }

  /**
   * Does `work` on each item on the rank that `rankOf` says, the same on all. All ranks give the same items and get the
   * results of all, in the order of the items.
   */
  async each<Item, T>(
    what: string,
    items: readonly Item[],
    rankOf: (item: Item) => number,
    work: (own: Item[]) => Promise<T[]>,
  ): Promise<T[]> {
    const own = items.filter((item) => rankOf(item) === this.rank);
    const results = await this.together(what, () => work(own));
    const next = results.map((part) => part.values());
    return items.map((item) => next[rankOf(item)]?.next().value as T);
  }

  /** Rank 0 does `work`, in which it may have all do something (`everywhere`); all get what it came to. */
  async lead<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.rank > 0) return await this.#follow<T>(what);
    this.#leading = what;
    const [value] = await this.together(what, work);
    return value as T;
  }

  /** Does what rank 0 asks for until its work has ended. */
  async #follow<T>(what: string): Promise<T> {
    const own = { value: undefined as T };
    for (;;) {
      const said = await this.#exchange<Outcome<T> | Order>(what, own, undefined);
      const order = said[0];
      if (order === undefined || !('command' in order)) {
        return this.#conclude(said as Outcome<T>[], own, undefined)[0] as T;
      }
      // What breaks here is heard of from rank 0, whose work it breaks.
      await this.together(order.command, () => this.#engine.send(order.command, order.argument)).catch(
        () => {},
      );
    }
  }

  /** On rank 0, inside of what it leads: every rank's engine does the command. Returns what it came to here. */
  async everywhere<Name extends CommandName>(
    command: Name,
    argument: Commands[Name][0],
  ): Promise<Commands[Name][1]> {
    const work = () => this.#engine.send(command, argument);
    if (this.size === 1) return await work();
    await this.#exchange<Outcome<undefined> | Order>(this.#leading, { command, argument }, undefined);
    const [value] = await this.together(command, work);
    return value as Commands[Name][1];
  }

  /** Whether one of the ranks has been asked to stop; what all do next then is the same. */
  async stopped(): Promise<boolean> {
    const wants = await this.together('stop', async () => this.signal.aborted);
    if (wants.includes(true) && !this.signal.aborted) this.#ended.abort();
    return wants.includes(true);
  }

  /** Throws a TroupeError where one of a rank's values is another than rank 0's. A single rank is not asked for them. */
  async agree(what: string, values: () => Promise<Record<string, string>>): Promise<void> {
    if (this.size === 1) return;
    const [first = {}, ...others] = await this.together(what, values);
    for (const [i, other] of others.entries()) {
      const different = Object.keys(first).filter((name) => first[name] !== other[name]);
      if (different.length === 0) continue;
      const shown = different.map((name) => `${name} (${first[name]} and ${other[name]})`).join(', ');
      throw new TroupeError(`ranks 0 and ${i + 1} differ in ${shown}.`, {
        where: what,
        hint: 'All ranks of a run have to be started with the same files.',
      });
    }
  }

  /** `failed`: without waiting for the others. */
  async leave(failed = false): Promise<void> {
    clearInterval(this.#timer);
    if (this.size > 1)
      await this.#engine.send('leave', { together: !failed && this.whyBroken === undefined });
  }

  /** Says that this thread is alive, and looks whether the engine's is and the group. */
  #watch(timeoutSeconds: number, stallSeconds: number): void {
    const turns = new TurnWatch(this.#engine.turns);
    const look = () => {
      if (turns.stalled(performance.now()) > 1000 * stallSeconds) {
        // The others learn of it by the silence.
        clearInterval(this.#timer);
        const what = `the engine of rank ${this.rank} has not come back from its work for ${stallSeconds} s.`;
        const error = new TroupeError(what, { hint: 'distributed.stallSeconds says how long it may take.' });
        this.#engine.abandon(error);
        this.#ended.abort(error);
        return;
      }
      Atomics.add(this.#shared, TICKS, 1);
      const why = this.whyBroken;
      if (why !== undefined) this.#ended.abort(new TroupeError(why));
    };
    this.#timer = setInterval(look, Math.min(1000, timeoutSeconds * 50)).unref();
  }

  /** Why the group has failed, a sentence: nothing can be done together any more. undefined: it has not. */
  get whyBroken(): string | undefined {
    const length = Atomics.load(this.#shared, LENGTH);
    if (length === 0) return undefined;
    return Buffer.from(this.#shared.buffer, WHY * 4).toString('utf8', 0, length);
  }
}

/** As `Shared` in native/distributed/watch.h. */
const SHARED_NUMBERS = 128;
const TICKS = 0;
const LENGTH = 1;
const WHY = 2;

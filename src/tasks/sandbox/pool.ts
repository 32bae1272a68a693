/**
 * Sandboxes in supply: as many jobs run at once as there are processors, and the next sandboxes are started
 * while the present ones work. Every job gets fresh ones, and they end with it.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { TroupeError } from '../../config/errors.js';
import { findInstallation, type Installation, type UserMode } from './bubblewrap.js';
import { DEFAULT_LIMITS, type Limits } from './limits.js';
import { Sandbox } from './process.js';

export interface PoolOptions {
  limits?: Limits;
  /** Jobs at once. Default: the number of processors. */
  jobs?: number;
  /** Python interpreter. Default: python3 of the PATH. */
  python?: string;
  /** Packages that the interpreter must have, by the names that import them. */
  packages?: readonly string[];
}

/**
 * Ranges of user numbers that nothing assigns, the first for systems whose user map reaches so far, the second for
 * containers. Each live sandbox takes one at random: processes are limited by user, also between two runs.
 */
const USER_RANGES = [
  { first: 0x70000000, count: 0x0fffffff },
  { first: 60_600, count: 500 },
] as const;
const NOBODY = 65_534;

export class SandboxPool {
  readonly limits: Limits;
  readonly installation: Installation;
  readonly mode: UserMode;
  readonly #jobs: number;
  readonly #spare: Sandbox[] = [];
  readonly #live = new Set<Sandbox>();
  readonly #queue: (() => void)[] = [];
  #running = 0;
  #closed = false;

  /** Finds what is needed and starts a first sandbox; throws a TroupeError that says what is missing. */
  static async open(options: PoolOptions = {}): Promise<SandboxPool> {
    const installation = await findInstallation(options.python);
    const limits = options.limits ?? DEFAULT_LIMITS;
    const jobs = options.jobs ?? availableParallelism();
    const modes: UserMode[] =
      process.getuid?.() === 0 && installation.setpriv !== undefined
        ? ['other-user', 'namespace']
        : ['namespace'];
    let failure: unknown;
    for (const mode of modes) {
      const pool = new SandboxPool(installation, limits, mode, jobs);
      try {
        await pool.run(async (open) => checkPackages(await open(), installation, options.packages ?? []));
        return pool;
      } catch (error) {
        failure = error;
        await pool.close();
        if (error instanceof MissingPackages) break;
      }
    }
    throw failure;
  }

  private constructor(installation: Installation, limits: Limits, mode: UserMode, jobs: number) {
    this.installation = installation;
    this.limits = limits;
    this.mode = mode;
    this.#jobs = jobs;
  }

  /** Runs `work` when its turn comes. The sandboxes that it opens end when it ends. */
  async run<T>(work: (open: () => Promise<Sandbox>) => Promise<T>): Promise<T> {
    if (this.#running >= this.#jobs) await new Promise<void>((resolve) => this.#queue.push(resolve));
    else this.#running++;
    const opened: Sandbox[] = [];
    try {
      return await work(async () => {
        for (let tries = 2; ; tries--) {
          const sandbox = this.#take();
          opened.push(sandbox);
          try {
            await sandbox.ready;
            return sandbox;
          } catch (error) {
            // A machine under load may fail to start one, and start the next.
            if (tries === 0) throw error;
          }
        }
      });
    } finally {
      for (const sandbox of opened) sandbox.kill();
      const next = this.#queue.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }

  /** Ends every sandbox, and resolves when they are gone. */
  async close(): Promise<void> {
    this.#closed = true;
    const live = [...this.#live];
    for (const sandbox of live) sandbox.kill();
    await Promise.all(live.map(({ closed }) => closed));
  }

  #take(): Sandbox {
    let sandbox = this.#spare.shift();
    while (sandbox !== undefined && !sandbox.alive) sandbox = this.#spare.shift();
    sandbox ??= this.#start();
    while (!this.#closed && this.#spare.length < this.#jobs) this.#spare.push(this.#start());
    return sandbox;
  }

  #start(): Sandbox {
    const user = this.mode === 'other-user' ? unusedUser() : NOBODY;
    const sandbox = new Sandbox(this.installation, this.limits, this.mode, user);
    this.#live.add(sandbox);
    void sandbox.closed.then(() => this.#live.delete(sandbox));
    return sandbox;
  }
}

class MissingPackages extends TroupeError {}

const IMPORT_TIMEOUT = 60_000;

/** Throws a TroupeError for packages that programs could not import. */
async function checkPackages(
  sandbox: Sandbox,
  { python }: Installation,
  names: readonly string[],
): Promise<void> {
  if (names.length === 0) return;
  const reply = await sandbox.request({ operation: 'packages', names: [...names] }, IMPORT_TIMEOUT);
  const missing = reply.kind === 'value' && Array.isArray(reply.value) ? reply.value.map(String) : names;
  if (missing.length === 0) return;
  throw new MissingPackages(`${python.path} cannot import ${missing.join(', ')} inside the sandbox.`, {
    where: 'task.packages',
    hint: `Install what is missing where generated code may see it (${python.path} -m pip install …, not --user), or name another interpreter with task.python.`,
  });
}

function unusedUser(): number {
  const [large, small] = USER_RANGES;
  const { first, count } = mapsUser(large.first + large.count) ? large : small;
  return first + randomInt(count);
}

/** Whether this process's user namespace has a user of this number. */
function mapsUser(user: number): boolean {
  return readFileSync('/proc/self/uid_map', 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .some(([inside = 0, , length = 0]) => inside <= user && user < inside + length);
}

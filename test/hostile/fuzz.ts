/**
 * Gives one reader many damaged folders, in a child process (child.mjs), and gathers what it must not do: hang, crash,
 * take all memory, or throw anything but a sentence for people.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export interface Fault {
  seed: number;
  mutated: string;
  fault: string;
}

export interface Fuzzed {
  faults: Fault[];
  /** Seeds that were read to an end, by what came of them. */
  taken: number;
  refused: number;
}

/** Seconds that reading one folder may take, on a machine that others use too. */
const PATIENCE = 20;
/** Bytes that the child may hold. */
const MOST_MEMORY = 3e9;

interface Line {
  seed?: string;
  mutated?: string;
  ok?: string;
  fault?: string;
}

export async function fuzz(
  reader: string,
  corpus: string,
  scratch: string,
  seeds: readonly number[],
): Promise<Fuzzed> {
  const found: Fuzzed = { faults: [], taken: 0, refused: 0 };
  let left = [...seeds];
  while (left.length > 0) left = await oneChild(reader, corpus, scratch, left, found);
  return found;
}

/** Returns the seeds that are left where the child did not come to its end. */
async function oneChild(
  reader: string,
  corpus: string,
  scratch: string,
  seeds: readonly number[],
  found: Fuzzed,
): Promise<number[]> {
  const child = spawn(
    process.execPath,
    ['--max-old-space-size=1024', 'test/hostile/child.mjs', reader, corpus, scratch, ...seeds.map(String)],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, OMP_NUM_THREADS: '1' } },
  );
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-3000);
  });
  let under: Line | undefined;
  const guard = new Guard(child);
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as Line;
    guard.reset();
    if (line.seed !== undefined) under = line;
    else if (under !== undefined) {
      if (line.fault !== undefined) found.faults.push(faultOf(under, line.fault));
      else if (line.ok === 'taken') found.taken++;
      else found.refused++;
      under = undefined;
    }
  }
  const ending = await guard.end();
  if (ending === undefined) return [];
  if (under === undefined) throw new Error(`the child for ${reader} did not begin: ${ending}\n${said}`);
  const { seed } = under;
  found.faults.push(faultOf(under, `${ending}\n${said}`));
  return seeds.slice(seeds.indexOf(Number(seed)) + 1);
}

function faultOf({ seed, mutated = '' }: Line, fault: string): Fault {
  return { seed: Number(seed), mutated, fault };
}

/** Kills a child that hangs or grows. */
class Guard {
  readonly #child: ChildProcess;
  readonly #exit: Promise<string | undefined>;
  readonly #timer: NodeJS.Timeout;
  #since = Date.now();
  #why: string | undefined;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#exit = new Promise((resolve) => {
      child.once('close', (code, signal) => resolve(code === 0 ? undefined : `ended by ${signal ?? code}`));
    });
    this.#timer = setInterval(() => this.#look(), 500);
  }

  reset(): void {
    this.#since = Date.now();
  }

  /** How it ended; undefined: well. */
  async end(): Promise<string | undefined> {
    const ending = await this.#exit;
    clearInterval(this.#timer);
    return this.#why ?? ending;
  }

  #look(): void {
    if (Date.now() - this.#since > 1000 * PATIENCE) this.#kill(`hangs for ${PATIENCE} s`);
    else if (memoryOf(this.#child) > MOST_MEMORY) this.#kill(`holds more than ${MOST_MEMORY} bytes`);
  }

  #kill(why: string): void {
    this.#why ??= why;
    this.#child.kill('SIGKILL');
  }
}

function memoryOf({ pid }: ChildProcess): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

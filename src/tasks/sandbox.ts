/**
 * Running generated code: the face of the folder sandbox/, and the check that `troupe doctor` and code tasks
 * make before they rely on it. What the sandbox keeps out, and what not, is in docs/sandbox.md.
 */
import { TroupeError } from '../config/errors.js';
import { SandboxPool } from './sandbox/pool.js';

export type { Frame, Json, Reply } from './sandbox/frames.js';
export { limitsSchema } from './sandbox/limits.js';
export { SandboxPool } from './sandbox/pool.js';
export { type Sandbox, SandboxEnded } from './sandbox/process.js';

export interface SandboxStatus {
  /** Whether a program was run through a sandbox and gave the right result. */
  works: boolean;
  bubblewrap?: string;
  /** Path and version of the interpreter inside. */
  python?: string;
  /** What is weaker here than it should be. */
  warnings: string[];
  /** What is wrong and what to do, if it does not work. */
  problem?: string;
}

const PROBE = 'def answer(x):\n    return sum(range(x)) + 1\n';

/** Runs a small program through a sandbox. Never throws. */
export async function sandboxStatus(python?: string): Promise<SandboxStatus> {
  let pool: SandboxPool | undefined;
  try {
    pool = await SandboxPool.open({ jobs: 1, ...(python === undefined ? {} : { python }) });
    const value = await pool.run(async (open) => {
      const sandbox = await open();
      await sandbox.request({ operation: 'load', code: PROBE }, 10_000);
      const frame = { operation: 'ask', what: 'call', args: [{ $name: 'answer' }, 10] };
      return sandbox.request(frame, 10_000);
    });
    const right = value.kind === 'value' && value.value === 46;
    const { bubblewrap, python: interpreter } = pool.installation;
    return {
      works: right,
      bubblewrap: `${bubblewrap.path} ${bubblewrap.version}`,
      python: `${interpreter.path} ${interpreter.version}`,
      warnings: weaknesses(pool),
      ...(right ? {} : { problem: 'a program in the sandbox gave a wrong result.' }),
    };
  } catch (error) {
    const problem = error instanceof TroupeError ? error.message : String(error);
    return { works: false, warnings: [], problem };
  } finally {
    await pool?.close();
  }
}

function weaknesses({ mode, installation }: SandboxPool): string[] {
  const warnings: string[] = [];
  if (mode === 'namespace' && process.getuid?.() === 0) {
    warnings.push(
      'the number of processes is not limited: as root, that needs setpriv and a change of user.',
    );
  }
  if (!installation.bubblewrap.options.has('--size')) {
    warnings.push('the size of temporary files is not limited: that needs bubblewrap 0.8 or newer.');
  }
  return warnings;
}

/** What a run ran on: versions and machine, for environment.json of the run directory. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, hostname, platform, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { packageRoot } from '../config/package.js';

/** One process that worked on a run: the first, or one that resumed it. */
const environmentSchema = z.looseObject({
  /** ISO 8601, UTC. */
  started: z.string(),
  command: z.array(z.string()),
  troupe: z.string(),
  /** Commit of Troupe's own sources, with "+changes" where they differ from it; null outside of a checkout. */
  commit: z.string().nullable(),
  node: z.string(),
  /** Version of libtorch; null where the engine was not loaded. */
  libtorch: z.string().nullable(),
  devices: z.array(z.string()),
  /** The resolved configuration that it ran with; run-directory.ts adds it. */
  configuration: z.record(z.string(), z.unknown()).optional(),
  machine: z.looseObject({
    host: z.string(),
    system: z.string(),
    processor: z.string(),
    cores: z.number(),
    /** Bytes. */
    memory: z.number(),
  }),
});
/** What a process that worked on a run ran on. */
export type Environment = z.output<typeof environmentSchema>;

/** Of environment.json. */
export const environmentsSchema = z.array(environmentSchema);

/** `engine`: what the engine says about libtorch and its devices. */
export function describeEnvironment(engine: { libtorch: string | null; devices: string[] }): Environment {
  const [processor] = cpus();
  return {
    started: new Date().toISOString(),
    command: process.argv.slice(1),
    troupe: JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version,
    commit: commitOf(packageRoot()),
    node: process.versions.node,
    libtorch: engine.libtorch,
    devices: engine.devices,
    machine: {
      host: hostname(),
      system: `${platform()} ${release()} ${arch()}`,
      processor: processor?.model ?? 'unknown',
      cores: availableParallelism(),
      memory: totalmem(),
    },
  };
}

/** What computes and grades: "Troupe 0.1.0 at 40d45f86368c with libtorch 2.13.0"; in a checkout with its commit. */
export function programOf({ troupe, commit, libtorch }: Environment): string {
  const at = commit === null ? '' : ` at ${commit.replace(/^([0-9a-f]{12})[0-9a-f]+/, '$1')}`;
  return `Troupe ${troupe}${at}${libtorch === null ? '' : ` with libtorch ${libtorch}`}`;
}

function commitOf(folder: string): string | null {
  if (!existsSync(join(folder, '.git'))) return null;
  const git = (...args: string[]) => {
    return execFileSync('git', args, {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  };
  try {
    const commit = git('rev-parse', 'HEAD');
    return git('status', '--porcelain', '--untracked-files=no') === '' ? commit : `${commit}+changes`;
  } catch {
    // No git, or a checkout that it does not trust: a run goes on without its commit.
    return null;
  }
}

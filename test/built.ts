/**
 * The tests run what was built (vitest.config.ts), so it is built before them wherever it is older than the sources:
 * `npx vitest run FILE` tests what stands in the editor.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The sources that were changed since they were built, or were never built. */
function stale(): string[] {
  const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' });
  return sources.filter((name) => {
    if (!name.endsWith('.ts') || name.endsWith('.d.ts')) return false;
    const built = statSync(join(root, 'build/js', name.replace(/ts$/, 'js')), { throwIfNoEntry: false });
    return built === undefined || built.mtimeMs < statSync(join(root, 'src', name)).mtimeMs;
  });
}

export default function setup(): void {
  if (stale().length === 0) return;
  const { status } = spawnSync('npm', ['run', '-s', 'build:js'], { cwd: root, stdio: 'inherit' });
  if (status !== 0) throw new Error('The sources are no program: see above what tsc says of them.');
}

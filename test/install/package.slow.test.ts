/**
 * The package as somebody else's project has it: what `npm pack` makes, beside the files of docs/your-own.md, in a folder of
 * its own. Fails if something that they import is not exported, if they do not type-check, or if they do not train.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { findLibtorch } from '../../scripts/libtorch.mjs';
import { packageRoot } from '../../src/config/package.js';

const project = mkdtempSync(join(tmpdir(), 'troupe-package-'));
afterAll(() => rmSync(project, { recursive: true, force: true }));
const installed = join(project, 'node_modules', 'troupe');

function run(program: string, args: readonly string[], cwd = project) {
  const env = { ...process.env, OMP_NUM_THREADS: '1' };
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8', env });
  expect(status, `${program} ${args.join(' ')}\n${stdout}${stderr}`).toBe(0);
  return stdout;
}

/** The files that a page shows: blocks whose first line names one. */
function shownFiles(page: string): Map<string, string> {
  const text = readFileSync(join(packageRoot(), 'docs', page), 'utf8');
  const blocks = text.matchAll(/```(?:ts|yaml)\n((?:\/\/|#) ([\w-]+\.(?:ts|yaml)).*?)```/gs);
  return new Map([...blocks].map(([, body = '', name = '']) => [name, body]));
}

beforeAll(() => {
  const packed = run(
    'npm',
    ['pack', '--silent', '--ignore-scripts', '--pack-destination', project],
    packageRoot(),
  );
  mkdirSync(installed, { recursive: true });
  run('tar', ['-xzf', packed.trim(), '--strip-components=1', '-C', installed]);
  // What npm would install and build beside it.
  symlinkSync(join(packageRoot(), 'node_modules'), join(installed, 'node_modules'));
  symlinkSync(join(packageRoot(), 'node_modules', 'zod'), join(project, 'node_modules', 'zod'));
  cpSync(join(packageRoot(), 'build', 'Release'), join(installed, 'build', 'Release'), { recursive: true });
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module' }));
  const compilerOptions = {
    module: 'nodenext',
    target: 'es2023',
    strict: true,
    skipLibCheck: true,
    noUncheckedIndexedAccess: true,
    types: [],
    outDir: 'out',
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
  for (const [name, body] of shownFiles('your-own.md')) writeFileSync(join(project, name), body);
});

it('has prebuilds that look for libtorch where the install step links it, and nowhere else', () => {
  const root = packageRoot();
  const folder = join(project, 'configured');
  const options = {
    TROUPE_PREBUILD: 'ON',
    TROUPE_LIBTORCH: findLibtorch(root).folder,
    TROUPE_BUILT_FROM: 'nothing',
    TROUPE_NODE_ADDON_API: join(root, 'node_modules', 'node-addon-api'),
  };
  const definitions = Object.entries(options).map(([key, value]) => `-D${key}=${value}`);
  run('cmake', ['-S', root, '-B', folder, '-G', 'Ninja', ...definitions]);
  const commands = readFileSync(join(folder, 'build.ninja'), 'utf8').matchAll(/-rpath,(\S+)/g);
  const places = new Set([...commands].map(([, place]) => place));
  expect([...places]).toEqual(['"\\$$ORIGIN/../../../libtorch/lib"']);
});

it('type-checks and trains beside the files of docs/your-own.md', () => {
  expect([...shownFiles('your-own.md').keys()].sort()).toEqual([
    'best-of.ts',
    'brief.ts',
    'capped.ts',
    'main.ts',
    'run.yaml',
    'second-opinion.ts',
    'weekdays.ts',
  ]);
  run(process.execPath, [join(packageRoot(), 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.']);
  const printed = JSON.parse(run(process.execPath, ['out/main.js'])) as Record<string, unknown>;
  expect(printed).toMatchObject({ steps: 2, evaluated: ['step 2', 'base'] });
  expect(printed.rewards).toEqual([expect.any(Number), expect.any(Number)]);
  // Four episodes a step, each with two calls for each of one or two drafts.
  expect(printed.calls).toBeGreaterThanOrEqual(16);
  expect(printed.calls).toBeLessThanOrEqual(32);
});

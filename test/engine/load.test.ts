/** Loading the addon: where it is looked for, and that a failure names its cause and a remedy. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';
import { minorVersion, remedy } from '../../src/engine/load.js';

const root = mkdtempSync(join(tmpdir(), 'troupe-load-'));
for (const part of ['package.json', 'build/js/config', 'build/js/engine']) {
  cpSync(join(packageRoot(), part), join(root, part), { recursive: true });
}
symlinkSync(join(packageRoot(), 'node_modules'), join(root, 'node_modules'));
afterAll(() => rmSync(root, { recursive: true }));

/** Runs loadAddon in a copy of the package that holds no addon but what the test puts there. */
function load(): string {
  const code = `import(${JSON.stringify(join(root, 'build/js/engine/load.js'))}).then((m) => m.loadAddon())
    .then((addon) => console.log(JSON.stringify(addon)), (error) => console.log(error.name + ' ' + error.message))`;
  return spawnSync(process.execPath, ['-e', code], { encoding: 'utf8' }).stdout.trim();
}

function put(folder: string, content: string): void {
  mkdirSync(join(root, folder), { recursive: true });
  writeFileSync(join(root, folder, 'troupe.node'), content);
}

describe('loadAddon', () => {
  it('says that the addon was not built', () => {
    expect(load()).toMatch(/^TroupeError .*was not built\. Run 'npm run build:native'/);
  });

  it("prints the loader's own message for a damaged file", () => {
    put(
      'build/Release',
      'this is no library, but text that is long enough for a header of one, which has 64 bytes',
    );
    expect(load()).toMatch(/^TroupeError .*troupe\.node.*invalid ELF header.*damaged or made for another/);
  });

  it('takes the prebuild that the install step linked before a build', () => {
    put(`prebuilds/torch-2.13/prebuilds/${process.platform}-${process.arch}`, 'short');
    expect(load()).toMatch(/build\/Release/);
    symlinkSync('torch-2.13', join(root, 'prebuilds/addon'));
    expect(load()).toMatch(/prebuilds\/\S*\/prebuilds/);
    rmSync(join(root, 'prebuilds'), { recursive: true });
  });
});

describe('an addon of other sources', () => {
  const sources = ['CMakeLists.txt', 'native/a.cc', 'scripts/sources.cjs'];

  it('is refused, with what to run', () => {
    for (const file of sources) {
      mkdirSync(dirname(join(root, file)), { recursive: true });
      cpSync(join(packageRoot(), file === 'native/a.cc' ? 'CMakeLists.txt' : file), join(root, file));
    }
    rmSync(join(root, 'build/Release/troupe.node'), { force: true });
    symlinkSync(join(packageRoot(), 'build/Release/troupe.node'), join(root, 'build/Release/troupe.node'));
    expect(load()).toMatch(
      /^TroupeError .*build\/Release\/troupe\.node: the native addon was built of other sources than those in native\/\. Run 'npm run build:native' in Troupe's folder; after an update, 'npm ci'\.$/,
    );
  });
});

describe('remedies', () => {
  it.each([
    ['libtorch_cpu.so: cannot open shared object file: No such file or directory', /moved or removed/],
    [
      'libcudart.so.13: cannot open shared object file: No such file or directory',
      /library that the addon needs/,
    ],
    [
      '/troupe/build/Release/troupe.node: cannot open shared object file: No such file or directory',
      /damaged or made for another processor/,
    ],
    ['troupe.node: undefined symbol: _ZN2at4_ops4add', /another version of libtorch/],
    ["libstdc++.so.6: version `GLIBCXX_3.4.32' not found", /built on a newer system/],
    ['something new', /look at what it prints/],
  ])('%s', (message, expected) => {
    expect(remedy(message)).toMatch(expected);
    expect(remedy(message)).toMatch(/npm run build:native/);
  });

  it('compares minor versions', () => {
    expect(minorVersion('2.13.0+cpu')).toBe('2.13');
  });
});

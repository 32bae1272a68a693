/** Fails if a wrong key or value reaches the run, or if its error does not say where, what and what instead. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadRunConfig, presetNames } from '../../src/config/load.js';
import { packageRoot } from '../../src/config/package.js';
import { printConfig } from '../../src/config/print.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'troupe-config-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('nothing was thrown');
}

describe('layers', () => {
  test('without a file every key has its default', () => {
    const { config } = loadRunConfig(undefined);
    expect(config.rollout.sampling.temperature).toBe(1);
    expect(config.learning.groups).toEqual(['role']);
    expect(config.policies.defaults.lora.targets).toEqual(['q', 'k', 'v', 'o', 'gate', 'up', 'down']);
  });

  test('the default preset says what is the default anyway, so that an own file changes the default run', () => {
    const { config } = loadRunConfig('default');
    expect(config).toEqual(loadRunConfig(undefined).config);
    const own = loadRunConfig(write('own.yaml', 'steps: 5\nworkflow:\n  name: eval-opt\n')).config;
    expect(own).toEqual({ ...config, steps: 5, workflow: { ...config.workflow, name: 'eval-opt' } });
  });

  test('what suits the embedded models alone is no default for others', () => {
    const own = (path: string) => {
      const { workflow, policies, rollout } = loadRunConfig(undefined, [`model.path=${path}`]).config;
      return [workflow.prompts, policies.defaults.learningRate, rollout.sampling.maxTokens];
    };
    for (const path of [
      'troupe-0.3m',
      'troupe-1m',
      'models/troupe-1m',
      join(packageRoot(), 'models/troupe-1m'),
    ])
      expect(own(path), path).toEqual(['small', 4e-4, 8]);
    for (const path of ['smollm2-135m', folder, 'build/troupe-1m'])
      expect(own(path), path).toEqual(['full', 1e-5, 256]);
    const set = loadRunConfig(undefined, ['workflow.prompts=short', 'rollout.sampling.maxTokens=9']).config;
    expect([set.workflow.prompts, set.rollout.sampling.maxTokens]).toEqual(['short', 9]);
  });

  test('a file extends presets and files, overrides win, maps merge', () => {
    write('base.yaml', 'steps: 7\nrollout:\n  sampling: { temperature: 0.5 }\n');
    const file = write(
      'run.yaml',
      'extends: [study-math-voting-shared, ./base.yaml]\nrollout: { maxBatch: 9 }\n',
    );
    const { config, locate } = loadRunConfig(file, ['learning.groups=[role, slot]', 'rollout.maxBatch=10']);
    expect(config.steps).toBe(7);
    expect(config.policies.sharing).toBe('shared');
    expect(config.rollout.sampling).toMatchObject({ temperature: 0.5, maxTokens: 5120 });
    expect(config.rollout.maxBatch).toBe(10);
    expect(config.learning.groups).toEqual(['role', 'slot']);
    expect(locate(['rollout', 'sampling', 'temperature'])).toBe(`${join(folder, 'base.yaml')}:3`);
    expect(locate(['rollout', 'maxBatch'])).toBe('--set rollout.maxBatch=10');
    expect(locate(['seed'])).toBeUndefined();
  });

  test('a section that names another task, workflow or loss replaces the one below', () => {
    const file = write(
      'base.yaml',
      'task: { name: arithmetic, levels: [1] }\nworkflow: { name: voting, options: { voters: 5 }, prompts: small }\n' +
        'learning: { loss: { clipLow: 0.1 } }\n',
    );
    const other = (...set: string[]) => loadRunConfig(file, set).config;
    expect(other('task.name=math').task).toEqual({ name: 'math' });
    // In whichever order they stand.
    const files = { name: 'math', files: 'x.jsonl' };
    expect(other('task.files=x.jsonl', 'task.name=math').task).toEqual(files);
    expect(other('task.name=math', 'task.files=x.jsonl').task).toEqual(files);
    expect(other('task.module=mine.ts').task).toEqual({ name: 'arithmetic', module: 'mine.ts' });
    expect(other('task.levels=[2]').task).toEqual({ name: 'arithmetic', levels: [2] });
    expect(other('task.name=arithmetic').task).toEqual({ name: 'arithmetic', levels: [1] });
    expect(other('workflow.name=eval-opt').workflow).toEqual({
      name: 'eval-opt',
      options: {},
      prompts: 'small',
    });
    expect(other('learning.loss.module=mine.ts').learning.loss.clipLow).toBeUndefined();
    const module = write('module.yaml', 'extends: ./base.yaml\nworkflow: { module: ./mine.ts }\n');
    expect(loadRunConfig(module).config.workflow).toMatchObject({ name: 'voting', options: {} });
    expect(loadRunConfig(module, ['workflow.name=single']).config.workflow.module).toBeUndefined();
    // Nothing was named below: the default is.
    const plain = write('plain.yaml', 'task: { levels: [2] }\n');
    expect(loadRunConfig(plain, ['task.name=math']).config.task).toEqual({ name: 'math' });
  });

  test('null takes a key back to its default, where null is no value', () => {
    const file = write(
      'base.yaml',
      'steps: 7\ntask: { levels: [1] }\nrollout: { maxBatch: 9 }\npolicies: { defaults: { clipNorm: 2 } }\n',
    );
    const { config } = loadRunConfig(file, ['steps=null', 'task.levels=null', 'rollout=null']);
    expect(config).toMatchObject({ steps: 60, rollout: { maxBatch: 256 }, task: { name: 'arithmetic' } });
    expect(config.task).not.toHaveProperty('levels');
    expect(
      loadRunConfig(file, ['policies.defaults.clipNorm=null']).config.policies.defaults.clipNorm,
    ).toBeNull();
    expect(errorOf(() => loadRunConfig(file, ['stps=null']))).toContain('Did you mean "steps"?');
  });

  test('an override holds what it says and nothing else', () => {
    const { config } = loadRunConfig(undefined, [
      'policies.defaults.lora.targets=[q, v]',
      'policies.overrides.generator.lora.rank=8',
      'interventions.roles.generator.rate=2',
      'rollout.roles.generator.sampling.topK=5',
    ]);
    expect(config.policies.overrides).toEqual({ generator: { lora: { rank: 8 } } });
    expect(config.interventions.roles).toEqual({ generator: { rate: 2 } });
    expect(config.rollout.roles).toEqual({ generator: { sampling: { topK: 5 } } });
  });

  test('a circle of files is named', () => {
    write('a.yaml', 'extends: ./b.yaml\n');
    write('b.yaml', 'extends: ./a.yaml\n');
    expect(errorOf(() => loadRunConfig(join(folder, 'a.yaml')))).toMatch(/a\.yaml → .*b\.yaml → .*a\.yaml/);
  });

  test('./ is relative to the file that says it, other paths to where they exist', () => {
    mkdirSync(join(folder, 'model'));
    const file = write('run.yaml', 'model: { path: ./model }\nworkflow: { module: ../mine.ts }\n');
    const { config } = loadRunConfig(file);
    expect(config.model.path).toBe(join(folder, 'model'));
    expect(config.workflow.module).toBe(join(folder, '..', 'mine.ts'));
    expect(loadRunConfig(undefined, ['model.path=configs/presets']).config.model.path).toBe(
      join(packageRoot(), 'configs/presets'),
    );
    expect(loadRunConfig(undefined, ['model.path=smollm2']).config.model.path).toBe('smollm2');
  });

  test('but a text is what it says', () => {
    const file = write('run.yaml', 'rollout: { sampling: { stop: [./, ../x] } }\n');
    expect(loadRunConfig(file).config.rollout.sampling.stop).toEqual(['./', '../x']);
    const { config } = loadRunConfig(undefined, ['rollout.sampling.stop=[./a]']);
    expect(config.rollout.sampling.stop).toEqual(['./a']);
  });

  test.each(presetNames())('preset %s is valid, and its printed form reads back the same', (name) => {
    const { config } = loadRunConfig(name);
    const again = loadRunConfig(write('printed.yaml', printConfig(config))).config;
    expect(again).toEqual(config);
  });

  test('the presets hold the settings of the study', () => {
    const math = loadRunConfig('study-math-eval-opt-isolated').config;
    expect(math.policies.defaults).toMatchObject({
      parameters: 'lora',
      learningRate: 2e-5,
      weightDecay: 0.01,
    });
    expect(math.policies.defaults.lora).toMatchObject({ rank: 64, alpha: 32 });
    expect(math.learning.loss).toMatchObject({
      clipLow: 0.2,
      clipHigh: 0.28,
      dualClip: 3,
    });
    expect(math.learning).toMatchObject({ kl: { coefficient: 0 }, entropy: 0 });
    expect(math.learning.schedule.warmupSteps).toBe(15);
    expect(math.rollout).toMatchObject({ promptsPerStep: 64, episodesPerPrompt: 8, promptTokens: 30720 });
    const code = loadRunConfig('study-code-eval-opt-shared').config;
    expect(code.rollout).toMatchObject({
      promptTokens: 10240,
      sampling: { temperature: 0.7, maxTokens: 2048 },
    });
    expect(code.workflow.options).toEqual({ rounds: 2 });
    expect([code.steps, code.evaluation.every, code.evaluation.problems, code.checkpoints.every]).toEqual([
      500, 10, 1000, 5,
    ]);
  });
});

describe('errors', () => {
  test('an unknown key: where, which, what there is, what was meant', () => {
    const file = write('run.yaml', 'seed: 1\nlearning:\n  schedule:\n    warmupstep: 1\n');
    const message = errorOf(() => loadRunConfig(file));
    expect(message).toContain(`${file}:4: unknown key "learning.schedule.warmupstep"`);
    expect(message).toContain('kind');
    expect(message).toContain('Did you mean "warmupSteps"?');
  });

  test.each([
    [
      'model.dtype=float23',
      'model.dtype is "float23"; it takes bfloat16, float32 or float64. Did you mean "float32"?',
    ],
    ['steps=1.5', 'steps is 1.5; it takes a whole number of at least 0.'],
    ['learning.kl.coefficient=-1', 'learning.kl.coefficient is -1; it takes a number of at least 0.'],
    ['rollout.sampling.topP=2', 'rollout.sampling.topP is 2; it takes a number above 0 and of at most 1.'],
    [
      'policies.sharing=share',
      'policies.sharing is "share"; it takes shared or isolated, or a map from names to text. Did you mean "shared"?',
    ],
    [
      'gradients.groups=[rol]',
      'gradients.groups[0] is "rol"; it takes role, slot or turn. Did you mean "role"?',
    ],
    ['learning.groups=[rol]', 'Did you mean "role"?'],
    [
      'learning.reward=3',
      'learning.reward is 3; it takes outcome, own, or a map with name, module or python and its settings; or a list of these.',
    ],
    ['rollout.cacheBytes=many', 'bytes, such as 1048576 or "512 MiB"'],
    ['model.device=gpu', 'model.device is "gpu"; it takes auto, cpu, cuda or cuda:N.'],
    [
      'policies.overrides.generator.freeze=1',
      'policies.overrides.generator.freeze is 1; it takes true or false.',
    ],
    ['learning.loss=3', 'learning.loss is 3; it takes a map with the keys name'],
    ['seed=.nan', 'seed is NaN; it takes a whole number from 0 to 4294967295.'],
  ])('--set %s', (text, expected) => {
    const message = errorOf(() => loadRunConfig(undefined, [text]));
    expect(message).toContain(`--set ${text}: `);
    expect(message).toContain(expected);
  });

  test('several wrong keys come in one message', () => {
    const message = errorOf(() => loadRunConfig(undefined, ['sed=1', 'steps=-1', 'rollout.maxBatches=2']));
    expect(message).toContain('Did you mean "seed"?');
    expect(message).toContain('steps is -1');
    expect(message).toContain('Did you mean "maxBatch"?');
  });

  test('no such file or preset', () => {
    expect(errorOf(() => loadRunConfig('study-math-votng-shared'))).toContain(
      'Did you mean "study-math-voting-shared"?',
    );
  });

  test('broken YAML names the line', () => {
    expect(errorOf(() => loadRunConfig(write('run.yaml', 'seed: 1\nsteps: [1\n')))).toMatch(
      /run\.yaml:\d: not YAML/,
    );
    expect(errorOf(() => loadRunConfig(write('run.yaml', 'seed: 1\nseed: 2\n')))).toMatch(
      /run\.yaml:2: not YAML: .*unique\.$/,
    );
    expect(errorOf(() => loadRunConfig(write('run.yaml', '- 1\n')))).toContain('not a map');
  });

  test.each([
    [
      'multiply',
      `a: &a [${'x,'.repeat(99)}]\nb: &b [${'*a,'.repeat(99)}]\nc: &c [${'*b,'.repeat(99)}]\nd: *c\n`,
    ],
    ['hold themselves', 'task: &a { name: *a }\n'],
    ['hold themselves twice', 'task: &a [*a, *a]\n'],
    ['lead nowhere', 'task: *a\n'],
  ])('aliases that %s', (_, text) => {
    expect(errorOf(() => loadRunConfig(write('run.yaml', text)))).toMatch(/run\.yaml(:\d)?: .*\.$/);
  });

  test('brackets without end', () => {
    for (const [open, close] of [
      ['[', ']'],
      ['{', '}'],
    ] as const) {
      const text = `task: ${open.repeat(20_000)}${close.repeat(20_000)}\n`;
      expect(errorOf(() => loadRunConfig(write('run.yaml', text)))).toMatch(
        /run\.yaml(:\d)?: .*nests too deeply\.$/,
      );
    }
  });

  test('what every object has is no key of a schema', () => {
    for (const key of ['constructor', 'hasOwnProperty', 'toString'])
      expect(errorOf(() => loadRunConfig(undefined, [`${key}=null`]))).toContain(`unknown key "${key}"`);
  });

  test('a wrong value is named once', () => {
    expect(errorOf(() => loadRunConfig(undefined, ['seed=1e20'])).match(/seed is/g)).toHaveLength(1);
  });

  test('extends: null extends nothing', () => {
    expect(loadRunConfig(write('run.yaml', 'extends: null\nsteps: 2\n')).config.steps).toBe(2);
  });

  test('__proto__ is no key, wherever it stands', () => {
    for (const text of ['{"__proto__": {"seed": 3}}', 'rollout:\n  __proto__: { maxBatch: 3 }\n']) {
      expect(errorOf(() => loadRunConfig(write('run.yaml', text)))).toMatch(
        /run\.yaml:\d: "__proto__" is no key/,
      );
    }
    expect(errorOf(() => loadRunConfig(undefined, ['task={"__proto__": {"x": 1}}']))).toContain('is no key');
  });

  test.each(['steps', '=3', 'a..b=1', 'steps=[1', '__proto__.seed=3', 'rollout.__proto__={maxBatch: 3}'])(
    '--set %s is not an override',
    (text) => {
      expect(errorOf(() => loadRunConfig(undefined, [text]))).toMatch(/^--set: /);
    },
  );

  test('bytes take units', () => {
    expect(loadRunConfig(undefined, ['rollout.cacheBytes=1.5 GiB']).config.rollout.cacheBytes).toBe(
      1.5 * 2 ** 30,
    );
    expect(loadRunConfig(undefined, ['rollout.cacheBytes=512MB']).config.rollout.cacheBytes).toBe(2 ** 29);
  });
});

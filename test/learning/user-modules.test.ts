/**
 * Users' files that do what they should not, through the command line: each ends with one sentence that names the
 * file, exit code 1 and a checkpoint, or is put right and said; none ends the process without a word. What a file does
 * to its process (`alone`) needs one of its own; all else is tried in this one.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { command, fails, type Outcome, troupe } from '../cli/troupe.js';
import { needs } from '../needs.js';
import { rowsOfRun } from './trained-run.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-modules-'));
const config = join(folder, 'run.yaml');
let runs = 0;

beforeAll(() => {
  writeFileSync(
    config,
    `
steps: 1
model: { path: troupe-0.3m, dtype: float32 }
task: { name: arithmetic, levels: [1] }
workflow: { name: voting, prompts: small }
rollout: { promptsPerStep: 2, episodesPerPrompt: 2, sampling: { maxTokens: 4 } }
evaluation: { every: 1, problems: 2, greedy: false }
checkpoints: { every: 1 }
`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function written(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

interface Trained extends Outcome {
  run: string;
}

function arguments_(settings: Record<string, string>, options: readonly string[]): [string, string[]] {
  const run = join(folder, `run-${runs++}`);
  const set = Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  return [run, ['train', config, '--run', run, ...set, ...options]];
}

function withoutStacks(run: string, outcome: Outcome): Trained {
  expect(outcome.stderr).not.toMatch(/^ {4}at |node:internal|Node\.js v/m);
  return { ...outcome, run };
}

async function train(settings: Record<string, string>, ...options: string[]): Promise<Trained> {
  const [run, args] = arguments_(settings, options);
  return withoutStacks(run, await command(args));
}

/** In a process of its own. */
function trainAlone(settings: Record<string, string>, ...options: string[]): Trained {
  const [run, args] = arguments_(settings, options);
  return withoutStacks(run, troupe(args));
}

/** The run failed for the file: one last sentence, and what there was before is saved. */
function expectFailure({ status, stderr, run }: Trained, file: string, message: string): void {
  expect(status, stderr).toBe(1);
  expect(lastLine(stderr)).toMatch(/^troupe: /);
  expect(lastLine(stderr)).toContain(file);
  expect(lastLine(stderr)).toContain(message);
  expect(checkpoints(run)).toEqual(['step-000000']);
}

/** The last line: what a study shows of a cell that failed. */
const lastLine = (text: string) => text.trim().split('\n').at(-1);
const checkpoints = (run: string) => readdirSync(join(run, 'checkpoints'));

/** A workflow of one role; `body` runs in each episode before the call. */
const workflow = (body: string, more = '') => `
const ask = (question) => [{ role: 'user', content: question }];
export default {
  name: 'mine',
  roles: ['solver'],
  async run({ problem, call }) {
    ${body}
    const { text } = await call('solver', ask(problem.question));
    return { answer: text };
  },
  ${more}
};
`;

const task = (grade: string) => `
const problem = (i) => ({ id: 'p' + i, question: i + '+1', answer: String(i + 1) });
export default () => ({
  name: 'mine', kind: 'math',
  train: (seed, index) => problem(index),
  evaluation: (count) => [problem(100)].slice(0, count),
  grade: async (answers) => ${grade},
  extract: (text) => text,
});
`;

describe('a workflow that', () => {
  it.each([
    ['throws', workflow("throw new Error('boom');"), 'the workflow threw: boom'],
    ['throws what is no error', workflow("throw 'boom';"), 'the workflow threw: boom'],
    ['calls an unknown role', workflow("await call('genrator', ask('x'));"), 'no role is named "genrator"'],
    [
      'calls at a place that no column holds',
      workflow("await call('solver', ask('x'), { slot: 2 ** 40 });"),
      'at slot 1099511627776, turn 0; both are whole numbers from 0 to 2147483647',
    ],
    [
      'misspells where a call stands',
      workflow("await call('solver', ask('x'), { trun: 1 });"),
      'unknown key "trun"; the keys are slot, turn, sampling. Did you mean "turn"?',
    ],
    [
      'misspells how a call is sampled',
      workflow("await call('solver', ask('x'), { sampling: { temprature: 1 } });"),
      'unknown key "sampling.temprature"',
    ],
    [
      'samples at what is no temperature',
      workflow("await call('solver', ask('x'), { sampling: { temperature: '1' } });"),
      'sampling.temperature is "1"; it takes 0 (greedy), or a number',
    ],
    ['sends no messages', workflow("await call('solver', 'hello');"), 'a call takes a list of messages'],
    ['sends a list with holes', workflow("await call('solver', new Array(2));"), 'sent [ <2 empty items> ]'],
    [
      'overwrites its problem',
      workflow("problem.question = 'another';"),
      "Cannot assign to read only property 'question'",
    ],
    [
      'overwrites episodes in oracles',
      workflow('', 'oracles: (episodes) => { episodes[0].grade.reward = 9; return []; },'),
      "oracles threw: Cannot assign to read only property 'reward'",
    ],
    [
      'throws in formats',
      workflow('', "formats: { solver: () => { throw new Error('odd form'); } },"),
      'formats.solver threw: odd form',
    ],
    [
      'throws in oracles',
      workflow('', "oracles: () => { throw new Error('no oracle'); },"),
      'oracles threw: no oracle',
    ],
    [
      'throws a Proxy in oracles',
      workflow('', 'oracles: () => { throw new Proxy({}, { getPrototypeOf() { throw 1; } }); },'),
      'oracles threw: something that cannot be shown',
    ],
    [
      'promises its formats',
      workflow('', 'formats: { solver: async () => true },'),
      'formats.solver returned Promise { true }; it takes true or false',
    ],
    [
      'has strange oracles',
      workflow('', "oracles: () => [{ role: 'x' }],"),
      "oracles returned [ { role: 'x' } ]",
    ],
  ])('%s', async (what, text, message) => {
    const file = written(`${what.replaceAll(' ', '-')}.mjs`, text);
    expectFailure(await train({ 'workflow.module': file }), file, message);
  });

  it.each([
    ['never settles', workflow('await new Promise(() => {});'), 'waits for something that never comes'],
    ['calls process.exit', workflow('process.exit(0);'), 'called process.exit(0)'],
    ['changes the working directory', workflow("process.chdir('/');"), "called process.chdir('/')"],
    [
      'rejects late',
      workflow("setTimeout(() => { void Promise.reject(new Error('late')); }, 1);"),
      'a promise that nobody awaits failed: late',
    ],
    [
      'throws in a timer',
      workflow("setTimeout(() => { throw new Error('tick'); }, 1);"),
      'a callback threw: tick',
    ],
  ])('%s', (what, text, message) => {
    const file = written(`${what.replaceAll(' ', '-')}.mjs`, text);
    expectFailure(trainAlone({ 'workflow.module': file }), file, message);
  });

  it('breaks off later keeps the steps before it, and the message is in the stream', async () => {
    const text = workflow("if (n++ >= 6) throw new Error('on the ' + n + 'th');").replace(
      'const ask',
      'let n = 0;\nconst ask',
    );
    const file = written('later.mjs', text);
    const settings = { 'workflow.module': file, steps: '3', 'evaluation.every': '0' };
    const { status, stderr, run } = await train(settings);
    expect(status, stderr).toBe(1);
    expect(stderr).toContain('saved after step 1');
    expect(stderr).toContain('step 1: every one of 4 episodes broke off');
    expect(checkpoints(run)).toEqual(['step-000001']);
    const errors = rowsOfRun(run, 'episodes').map(({ error }) => error);
    expect(errors.filter((error) => error === null)).toHaveLength(6);
    expect(errors.at(-1)).toContain('the workflow threw: on the 10th');
  });

  it('breaks off now and then is said with the count of each kind', async () => {
    const text = workflow("if (n++ % 2 === 0) throw new Error('number ' + n);").replace(
      'const ask',
      'let n = 0;\nconst ask',
    );
    const { status, stderr, run } = await train({ 'workflow.module': written('some.mjs', text) });
    expect(status, stderr).toBe(0);
    expect(stderr).toMatch(
      /step 0: 2 of 4 episodes broke off: 2 × .*some\.mjs:8: the workflow threw: number \d+/,
    );
    expect(rowsOfRun(run, 'steps')[0]).toMatchObject({ episodes: 4, broken_episodes: 2 });
  });

  it('takes longer than its time', () => {
    const text = workflow('setInterval(() => {}, 50); await new Promise(() => {});');
    const file = written('slow.mjs', text);
    const { status, stderr } = trainAlone({ 'workflow.module': file, 'rollout.episodeSeconds': '0.3' });
    expect(status, stderr).toBe(1);
    expect(lastLine(stderr)).toContain(`${file}: the workflow took more than 0.3 seconds for an episode`);
  });

  it.each([
    ['an interval', 'setInterval(() => {}, 50);'],
    // Which holds what this test reads from.
    ['a process', "(await import('node:child_process')).spawn('sleep', ['600'], { stdio: 'inherit' });"],
  ])('leaves %s ends all the same with it, and is named', (what, text) => {
    const file = written(`${what.slice(3)}.mjs`, workflow(text));
    const { status, stderr } = trainAlone({ 'workflow.module': file });
    expect(status, stderr).toBe(0);
    expect(stderr).toContain(`${file}: left something running`);
  });

  it('never comes back is ended where it is, and what was done before is saved', () => {
    const text = workflow('if (n++ >= 2) spin();', '').replace(
      'const ask',
      'let n = 0;\nfunction spin() { for (;;) n += 1e-9; }\nconst ask',
    );
    const file = written('spins.mjs', text);
    const outcome = trainAlone({ 'workflow.module': file, 'run.blockedSeconds': '1' });
    expectFailure(outcome, file, 'the function spin has not come back for 1 seconds');
  });

  it('prints leaves the result alone, of whatever loads it', () => {
    const file = written('prints.mjs', `console.log('loaded');\n${workflow("console.log('hello');")}`);
    const { status, stdout, stderr, run } = trainAlone({ 'workflow.module': file }, '--json');
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ steps: 1, stopped: false });
    expect(stderr).toContain(`${file} prints to standard output`);
    expect(stderr).toContain('hello');
    const scored = troupe(['score', run, '--text', 'a b', '--json']);
    expect(scored.status, scored.stderr).toBe(0);
    expect(JSON.parse(scored.stdout)).toHaveProperty('logprobs');
    expect(scored.stderr).toContain('loaded');
  });
});

describe('a module that is no workflow', () => {
  const shape = (fields: string) =>
    `export default { name: 'mine', roles: ['a'], run: async () => ({ answer: '' }), ${fields} };`;
  it.each([
    ['names a role twice', shape("roles: ['a', 'a']"), 'names the role "a" twice'],
    ['has a role that leads elsewhere', shape("roles: ['../../a']"), 'has a role "../../a"'],
    ['has a role without a name', shape("roles: ['']"), 'has a role ""'],
    ['has options that are no schema', shape('options: { voters: 3 }'), 'it takes a zod schema'],
    ['has a format that is no function', shape('formats: { a: 3 }'), 'formats.a is 3'],
    ['has a format of another role', shape('formats: { b: () => true }'), 'no role is named "b"'],
    ['imports what is not there', "import 'no-such-package';", 'does not load: Cannot find package'],
  ])('%s', async (what, text, message) => {
    const file = written(`${what.replaceAll(' ', '-')}.mjs`, text);
    await fails(['config', config, '--set', `workflow.module=${file}`], [file, message]);
  });

  it.each([
    [
      'itself',
      'export const a = 1;\nexport default {;\n',
      /does-not-parse-itself\.mjs:2: the workflow module does not load/,
    ],
    [
      'in a file that it imports',
      "import './broken-helper.mjs';",
      /does-not-parse-in-a-file-that-it-imports\.mjs \(.*broken-helper\.mjs:3\): the workflow module does not/,
    ],
  ])('does not parse %s', (what, text, message) => {
    written('broken-helper.mjs', '\n\nconst = 3;\n');
    const file = written(`does-not-parse-${what.replaceAll(' ', '-')}.mjs`, text);
    const { status, stderr } = troupe(['config', config, '--set', `workflow.module=${file}`]);
    expect(status, stderr).toBe(1);
    expect(stderr).toMatch(message);
  });

  it.each([
    [
      'never ends to load',
      'await new Promise(() => {}); export default 1;',
      'waits for something that never',
    ],
    ['exits as it loads', 'process.exit(0);', 'called process.exit(0)'],
    ['never comes back as it loads', 'export default 1; for (;;);', 'has not come back for 1 seconds'],
  ])('%s', (what, text, message) => {
    const file = written(`${what.replaceAll(' ', '-')}.mjs`, text);
    const set = ['--set', `workflow.module=${file}`, '--set', 'run.blockedSeconds=1'];
    const { status, stdout, stderr } = troupe(['config', config, ...set]);
    expect(status, stderr).toBe(1);
    expect(stdout).toBe('');
    expect(lastLine(stderr)).toContain(file);
    expect(lastLine(stderr)).toContain(message);
  });
});

describe('another command', () => {
  it('holds to the time that its configuration gives users’ files', () => {
    const file = written('spins-in-eval.mjs', 'export default 1; for (;;);');
    const set = ['--set', `workflow.module=${file}`, '--set', 'run.blockedSeconds=1'];
    const { status, stdout, stderr } = troupe(['eval', config, ...set, '--json']);
    expect([status, stdout], stderr).toEqual([1, '']);
    expect(lastLine(stderr)).toContain(`${file}: a function has not come back for 1 seconds`);
  });

  it('that plans fails where every episode breaks off, and counts those that do', async () => {
    const file = written('plans.mjs', workflow("throw new Error('boom');"));
    const plan = (path: string) => ['plan', config, '--json', '--set', `workflow.module=${path}`];
    await fails(plan(file), [`every one of 4 episodes broke off: ${file}:7: the workflow threw: boom`]);
    const some = workflow("if (n++ === 0) throw new Error('first');").replace(
      'const ask',
      'let n = 0;\nconst ask',
    );
    const { status, stdout, stderr } = await command(plan(written('plans-some.mjs', some)));
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ calls: 3 });
    expect(stderr).toContain('1 of 4 episodes broke off: 1 × ');
  });

  it('that reads only what a run measured needs none of its modules', async () => {
    const file = written('gone.mjs', workflow(''));
    const { status, stderr, run } = await train({ 'workflow.module': file });
    expect(status, stderr).toBe(0);
    rmSync(file);
    const output = (name: string) => join(folder, `of-${name}`);
    for (const args of [
      ['export', run, '--parquet', output('export')],
      ['report', run, '--output', output('report.html')],
      ['alarms', run],
      ['tail', run, '--table', 'calls'],
    ]) {
      const outcome = await command(args);
      expect([outcome.status, outcome.stderr], args[0]).toEqual([0, '']);
    }
  });
});

describe('a task whose grader', () => {
  it.each([
    [
      'returns too few',
      task('answers.slice(1).map(() => ({ correct: true, reward: 1, reason: "ok" }))'),
      'grades for',
    ],
    ['returns NaN', task('answers.map(() => ({ correct: true, reward: NaN, reason: "ok" }))'), 'reward: NaN'],
    ['throws', task("{ throw new Error('no grade'); }"), 'grade threw: no grade'],
  ])('%s', async (what, text, message) => {
    const file = written(`grader-${what.replaceAll(' ', '-')}.mjs`, text);
    expectFailure(await train({ task: `{ module: ${file} }` }), file, message);
  });

  it('never settles', () => {
    const file = written('grader-never.mjs', task('new Promise(() => {})'));
    const message = 'grade waits for something that never comes';
    expectFailure(trainAlone({ task: `{ module: ${file} }` }), file, message);
  });

  it('never settles while something else goes on', async () => {
    const file = written('grader-late.mjs', task('new Promise((done) => setTimeout(done, 5000, []))'));
    const settings = { task: `{ module: ${file} }`, 'run.answerSeconds': '2' };
    expectFailure(await train(settings), file, 'grade took more than 2 seconds');
  });
});

describe('a loss that', () => {
  const loss = (body: string) => `export default ({ logprobs, advantages, weights }) => { ${body} };`;
  it.each([
    ['throws', loss("throw new Error('no loss');"), 'the loss threw: no loss'],
    ['exits', loss('process.exit(0);'), 'called process.exit(0)'],
    ['returns a number', loss('return 3;'), 'the loss has to return a scalar tensor'],
    ['has no gradient', loss('return logprobs.detach().sum();'), 'it has no gradient'],
    [
      'rejects late',
      loss("Promise.reject(new Error('late')); return logprobs.mul(advantages).mul(weights).sum().neg();"),
      'a promise that nobody awaits failed: late',
    ],
  ])('%s', async (what, text, message) => {
    const file = written(`loss-${what.replaceAll(' ', '-')}.mjs`, text);
    const settings = { 'learning.loss.module': file, 'workflow.name': 'single' };
    expectFailure(await train(settings), file, message);
  });

  it('never comes back ends the run, and what is saved is named', async () => {
    const file = written('loss-spins.mjs', loss('for (;;);'));
    const settings = { 'learning.loss.module': file, 'run.blockedSeconds': '1', 'workflow.name': 'single' };
    const { status, stderr } = await train(settings);
    expect(status).toBe(1);
    expect(lastLine(stderr)).toMatch(/^troupe: .*loss-spins\.mjs: the loss has not come back for 1 seconds/);
    expect(stderr).toContain('nothing is saved: --resume with --restart begins again');
  });
});

describe('a reward function that', () => {
  it('overwrites what it is given, tokens or a grade, changes nothing that is trained on', async () => {
    const text = (body: string) => `export default (call, episode) => { ${body} return call.slot; };`;
    const tokens = written('tokens.mjs', text('call.completion.ids.fill(1); call.prompt.fill(1);'));
    const plain = written('plain.mjs', text(''));
    const [changed, same] = [
      await train({ 'learning.reward.module': tokens }),
      await train({ 'learning.reward.module': plain }),
    ];
    expect([changed.status, same.status]).toEqual([0, 0]);
    const texts = ({ run }: Trained) => rowsOfRun(run, 'calls').map((row) => row.text);
    expect(texts(changed)).toEqual(texts(same));
    // What was decoded beside a call may round its numbers otherwise.
    const logprobs = ({ run }: Trained) =>
      rowsOfRun(run, 'calls').flatMap((row) => [row.rollout_logprob, row.trainer_logprob] as number[]);
    const expected = logprobs(same);
    for (const [i, value] of logprobs(changed).entries()) expect(value).toBeCloseTo(expected[i] as number, 3);
    const grade = written('grade.mjs', text('episode.grade.reward = 9;'));
    const { status, stderr } = await train({ 'learning.reward.module': grade });
    expect(status).toBe(1);
    expect(lastLine(stderr)).toContain("Cannot assign to read only property 'reward'");
  });

  it('fails on some calls leaves them in the stream without a reward', async () => {
    const text = "export default ({ slot }) => { if (slot === 1) throw new Error('slot 1'); return slot; };";
    const { status, stderr, run } = await train({ 'learning.reward.module': written('reward.mjs', text) });
    expect(status, stderr).toBe(0);
    expect(stderr).toMatch(
      /step 0: 4 of 16 rewards failed: .*reward\.mjs:1: the reward function threw on call generator\/1\/0/,
    );
    const calls = rowsOfRun(run, 'calls');
    expect(calls).toHaveLength(16);
    const without = calls.filter(({ reward }) => reward === null);
    expect(without.map(({ slot, advantage, trained }) => [slot, advantage, trained])).toEqual(
      Array.from({ length: 4 }, () => [1, null, false]),
    );
    expect(rowsOfRun(run, 'steps')[0]).toMatchObject({
      failed_rewards: 4,
      groups: 4,
      groups_without_variance: 2,
    });
  });

  it('fails on every call of a role stops the run', async () => {
    const text =
      "export default ({ role }) => { if (role === 'aggregator') throw new Error('no'); return 1; };";
    const file = written('role.mjs', text);
    const { status, stderr } = await train({ 'learning.reward.module': file });
    expect(status).toBe(1);
    expect(lastLine(stderr)).toContain(file);
    expect(lastLine(stderr)).toContain('None of the 4 calls of aggregator has a reward');
  });
});

describe('a Python reward', () => {
  beforeEach(needs('python'));

  it('is a column of its own beside others; what it prints is no result', () => {
    const file = written(
      'rewards.py',
      'import sys\ndef slots(slot, completions, **k):\n    print("from Python")\n    return [s if s < 2 else None for s in slot]\n',
    );
    const reward = `[outcome, { python: "${file}", function: slots, weight: 0.5, roles: [generator] }]`;
    const { status, stdout, stderr, run } = trainAlone({ 'learning.reward': reward }, '--json');
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ steps: 1 });
    expect(stderr).toContain('from Python');
    expect(stderr).toContain('step 0: slots says nothing (None) of 4 of 12 calls');
    const calls = rowsOfRun(run, 'calls');
    const rewards = rowsOfRun(run, 'rewards');
    expect(rewards).toHaveLength(16 + 12);
    for (const [i, call] of calls.entries()) {
      const episode = Math.floor(i / 4);
      const its = rewards.filter((row) => row.episode === episode && row.call === call.call);
      const expected = [{ name: 'outcome', weight: 1, value: call.episode_reward }];
      const slot = call.slot as number;
      if (call.role === 'generator')
        expected.push({ name: 'slots', weight: 0.5, value: slot < 2 ? slot : null });
      expect(its).toMatchObject(expected);
      const sum = its.reduce((total, { value, weight }) => total + (value as number) * (weight as number), 0);
      expect(call.reward).toBe(sum);
    }
  });

  it('that dies twice ends the run with a checkpoint', () => {
    const file = written('dies.py', 'import os\ndef f(trainer_state, slot):\n    os._exit(3)\n');
    const { status, stderr, run } = trainAlone({ 'learning.reward': `{ python: "${file}", function: f }` });
    expect(status).toBe(1);
    expect(stderr).toContain('dies.py: the Python process ended with exit code 3; it is started again, once');
    expect(lastLine(stderr)).toMatch(
      /^troupe: .*dies\.py: the Python process .* was started again before\.$/,
    );
    expect(checkpoints(run)).toEqual(['step-000000']);
  });
});

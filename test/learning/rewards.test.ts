/**
 * Fails if a reward's value reaches another call, if a weight or a role does not count, or if a Python file that hangs,
 * dies, prints, raises or returns the wrong thing does more than lose its values with a sentence.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { TroupeError } from '../../src/config/errors.js';
import { runSchema } from '../../src/config/schema.js';
import { silentRewards } from '../../src/learning/notices.js';
import { overlong } from '../../src/learning/rewards/built-in.js';
import { openRewards } from '../../src/learning/rewards.js';
import type { RewardedCall } from '../../src/learning/step-call.js';
import type { Episode } from '../../src/workflows/types.js';
import { needs } from '../needs.js';
import { episode } from './episodes.js';

const folder = mkdtempSync(join(tmpdir(), 'troupe-rewards-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function written(text: string, extension = 'py'): string {
  const file = join(folder, `file${files++}.${extension}`);
  writeFileSync(file, text);
  return file;
}

const ROLES = ['generator', 'aggregator'];

/** Opens `learning.reward` and rewards the episodes once for each of `steps`. */
async function rewarded(reward: unknown, episodes: Episode[], steps = [0]) {
  const { learning, rollout } = runSchema.parse({ learning: { reward } });
  const warnings: string[] = [];
  const rewards = await openRewards({
    learning,
    rollout,
    roles: ROLES,
    warn: (message) => warnings.push(message),
  });
  try {
    await rewards.start();
    const results: RewardedCall[][] = [];
    for (const step of steps) results.push(await rewards.of(episodes, { step, steps: 9 }));
    return { results, calls: results.at(-1) ?? [], warnings };
  } finally {
    await rewards.close();
  }
}

const valuesOf = (calls: RewardedCall[]) =>
  calls.map(({ values }) => values.map(({ name, value }) => [name, value]));
const rewardsOf = (calls: RewardedCall[]) =>
  calls.map(({ reward }) => (reward instanceof TroupeError ? reward.message : reward));
const errorOf = async (promise: Promise<unknown>) => (await promise.catch((error: Error) => error)) as Error;

const two = () => [
  episode(0, 0, 1, [{ own: 0 }, { role: 'aggregator', tokens: 5 }]),
  episode(1, 0, 0, [{ own: 1, tokens: 3 }]),
];

test('an episode that broke off gives its calls its outcome, or what each earned before', async () => {
  const broken = (): Episode => ({
    ...episode(0, 0, 0, [{ own: 1 }, { role: 'aggregator' }]),
    error: 'boom',
  });
  const whole = episode(1, 0, 1, [{ own: 0 }]);
  expect(rewardsOf((await rewarded('outcome', [broken(), whole])).calls)).toEqual([0, 0, 1]);
  const own = { name: 'outcome', broken: 'own' };
  expect(rewardsOf((await rewarded(own, [broken(), whole])).calls)).toEqual([1, 0, 1]);
});

test('overlong punishes as TRL does (golden/estimators.py), by the length that the role may have', async () => {
  const golden = JSON.parse(readFileSync(new URL('../golden/estimators.json', import.meta.url), 'utf8'));
  const { lengths, values } = golden.overlong as { lengths: number[]; values: number[] };
  expect(lengths.map((tokens) => overlong(tokens, 100, 20))).toEqual(values);
  // maxTokens is 256 here.
  const long = [episode(0, 0, 1, [{ tokens: 256 }, { role: 'aggregator', tokens: 206 }])];
  const reward = ['outcome', { name: 'overlong', buffer: 100, weight: 0.5 }];
  expect(rewardsOf((await rewarded(reward, long)).calls)).toEqual([1 - 0.5, 1 - 0.25]);
});

test('several rewards add up by their weights, each for the calls of its roles', async () => {
  const length = written('export default async ({ completion }) => completion.ids.length;', 'mjs');
  const { calls } = await rewarded(
    [
      'outcome',
      { name: 'own', weight: 10, roles: ['generator'] },
      { module: length, weight: -0.5, roles: ['aggregator'], label: 'length' },
    ],
    two(),
  );
  expect(valuesOf(calls)).toEqual([
    [
      ['outcome', 1],
      ['own', 0],
    ],
    [
      ['outcome', 1],
      ['length', 5],
    ],
    [
      ['outcome', 0],
      ['own', 1],
    ],
  ]);
  expect(rewardsOf(calls)).toEqual([1, 1 - 2.5, 10]);
});

test('one that overwrites its call or episode fails, and nothing is overwritten', async () => {
  const texts = (episodes: readonly Episode[]) => episodes.map(({ calls }) => calls.map(({ text }) => text));
  for (const line of ["call.text = '';", 'episode.calls.length = 0;', 'episode.calls = [];']) {
    const file = written(`export default (call, episode) => { ${line} return 1; };`, 'mjs');
    const episodes = two();
    const before = texts(episodes);
    const { calls } = await rewarded([{ module: file }], episodes);
    for (const reward of rewardsOf(calls)) expect(reward).toMatch(/threw on call .*: Cannot assign/);
    expect(texts(episodes)).toEqual(before);
  }
  const finds = written('export default (call, episode) => episode.calls.indexOf(call);', 'mjs');
  const { calls } = await rewarded([{ module: finds }], two());
  expect(rewardsOf(calls)).toEqual([0, 1, 0]);
});

test('one that fails takes the call with it and leaves the others', async () => {
  const picky = written(
    'export default ({ role }) => { if (role === "aggregator") throw new Error("no"); };',
    'mjs',
  );
  const { calls } = await rewarded(['outcome', { module: picky, label: 'picky' }], two());
  expect(rewardsOf(calls)).toEqual([
    expect.stringMatching(
      /returned undefined for call generator\/0\/0 on problem p0; it takes a finite number/,
    ),
    expect.stringMatching(/threw on call aggregator\/0\/0 on problem p0: no/),
    expect.stringMatching(/returned undefined for call generator\/0\/0 on problem p1/),
  ]);
  expect(calls[1]?.values[0]).toEqual({ name: 'outcome', weight: 1, value: 1 });
});

test.each([
  [['outcme'], 'learning.reward.0.name: no reward is named "outcme"'],
  [[{ name: 'own', roles: ['generatr'] }], 'no role is named "generatr"'],
  [[{ name: 'own', roles: ['generator'] }], 'has no reward for the role "aggregator"'],
  [['own', 'own'], 'is another reward with the name "own". Give it a label.'],
  [[{ weight: 2 }], 'has none of name, module and python; it takes one'],
  [[{ name: 'own', python: 'x.py' }], 'has name and python of name, module and python'],
  [[{ python: 'configs/examples/rewards.py' }], 'learning.reward.0.function is missing; it takes text'],
  [[{ name: 'own', wait: 2 }], 'unknown key "learning.reward.0.wait"'],
  [[{ python: 'none.py', function: 'f' }], 'none.py: no such file; the reward was to be imported from it'],
])('%j is refused', async (reward, message) => {
  expect((await errorOf(rewarded(reward, []))).message).toContain(message);
});

describe('a Python function', () => {
  beforeEach(needs('python'));

  const python = (text: string, more: object = {}) => [{ python: written(text), function: 'f', ...more }];

  test('gets what TRL gives it, and prints where it likes', async () => {
    const episodes = two();
    const [first, second] = episodes as [Episode, Episode];
    first.problem.columns = { answer: '#### 4', level: 3, prompt: 'raw', role: 'a column' };
    (first.calls[0] as { text: string }).text = 'four \ud800';
    first.calls[0]?.messages.push({ role: 'user', content: '2+2?' });
    second.problem.answer = '5';
    const file = `
import json, sys
print("on standard output")
sys.stdout.write("and again" * 10000 + chr(10))
def f(prompts, completions, completion_ids, trainer_state, **columns):
    print("while it is called")
    assert trainer_state.global_step == 4 and trainer_state.max_steps == 9
    assert [len(ids) for ids in completion_ids] == [2, 5, 3]
    assert prompts[0] == [{"role": "user", "content": "2+2?"}], prompts
    assert completions[0] == [{"role": "assistant", "content": "four \\ud800"}], completions
    assert columns["answer"] == ["#### 4", "#### 4", "5"], columns
    assert columns["level"] == [3, 3, None]
    assert columns["role"] == ["a column", "a column", "generator"]
    assert columns["slot"] == [0, 0, 0]
    assert "prompt" not in columns
    return [1, None, True]
`;
    const { calls } = await rewarded(python(file), episodes, [4]);
    expect(valuesOf(calls)).toEqual([[['f', 1]], [['f', null]], [['f', 1]]]);
    expect(rewardsOf(calls)).toEqual([1, expect.stringContaining('gave no value (f: None)'), 1]);
    expect(silentRewards(calls)).toBe('f says nothing (None) of 1 of 3 calls');
  });

  test('may be async, name only what it needs, take texts, and say nothing of some calls', async () => {
    const file = `
import asyncio
async def f(completions, slot):
    await asyncio.sleep(0.001)
    return (len(text) + 0.5 if text else None for text in completions)
`;
    const episodes = two();
    (episodes[0]?.calls[0] as { text: string }).text = 'abc';
    const { calls } = await rewarded(['outcome', ...python(file, { weight: 2, format: 'text' })], episodes);
    expect(rewardsOf(calls)).toEqual([1 + 2 * 3.5, 1, 0]);
  });

  test('that raises, or returns no list of the length, fails for every call of the batch, and goes on', async () => {
    const file = written(`
import json, sys
def raises(**k):
    x = 1
    return 1 / 0
def library(**k):
    return json.loads("{")
def leaves(**k):
    sys.exit(3)
def short(**k):
    return [1.0]
def number(**k):
    return 1
def metric(log_metric, *, solution, **k):
    return [0] * 3
class Silent(Exception):
    def __str__(self):
        raise ValueError
def silent(**k):
    raise Silent
def quotes(**k):
    raise ValueError("cannot read:\\n" + "lorem\\n" * 5000)
`);
    const functions = ['raises', 'library', 'leaves', 'short', 'number', 'metric', 'silent', 'quotes'];
    const { results, warnings } = await rewarded(
      functions.map((name) => ({ python: file, function: name })),
      two(),
      [0, 1],
    );
    const messages = [
      /file\d+\.py:5: raises raised ZeroDivisionError: division by zero\.$/,
      /\.py:7: library raised JSONDecodeError: Exp/,
      /\.py:9: leaves raised SystemExit: 3\.$/,
      /\.py: short returned 1 values for 3 completions\.$/,
      /\.py: number returned 1; it takes a list of numbers or None\.$/,
      /\.py: metric asks for log_metric, solution; what there is: .*prompts, completions, .*trainer_state\.$/,
      /\.py:20: silent raised Silent: its message cannot be read\.$/,
      /^.*\.py:22: quotes raised ValueError: cannot read: (?:lorem ){100,200}[^\n]{0,9}…\.$/,
    ];
    for (const { values } of results.flat()) {
      expect(values.map(({ name }) => name)).toEqual(functions);
      for (const [i, { error }] of values.entries()) expect(error?.message).toMatch(messages[i] as RegExp);
    }
    expect(warnings).toEqual([]);
  });

  test('that returns what is no number fails for those calls alone', async () => {
    const { calls } = await rewarded(python('def f(**k):\n    return [float("nan"), "2", 3]'), two());
    expect(rewardsOf(calls)).toEqual([
      expect.stringContaining(
        'f returned nan for call generator/0/0 on problem p0; it takes a finite number or None',
      ),
      expect.stringContaining("f returned '2' for call aggregator/0/0 on problem p0"),
      3,
    ]);
  });

  test.each([
    ['does not parse', 'def f(:\n', /file\d+\.py:1: the file raised SyntaxError/],
    ['does not import', 'import os\nimport nowhere_at_all\n', /\.py:2: the file raised ModuleNotFoundError/],
    ['lacks the function', 'def g(**k): pass\nf = 3\n', /has no function f; it has g\.$/],
  ])('whose file %s is refused at the start', async (_what, text, message) => {
    expect((await errorOf(rewarded(python(text), []))).message).toMatch(message);
  });

  /** Counts its calls in a file, which outlives the process. */
  const counting = (body: string) => `
import os, time
count = ${JSON.stringify(join(folder, 'count'))} + str(os.getppid()) + __name__
def f(prompts, **k):
    with open(count, "a") as file:
        file.write("x")
    calls = os.path.getsize(count)
    ${body}
    return [calls] * len(prompts)
`;

  test('that dies is started again, and asked the same again; the second time the run ends', async () => {
    const text = counting('if calls in (2, 4): os._exit(7)');
    const { results, warnings } = await rewarded(python(text), two(), [0, 1]);
    expect(results.map(rewardsOf)).toEqual([
      [1, 1, 1],
      [3, 3, 3],
    ]);
    expect(warnings).toEqual([
      expect.stringMatching(/\.py: the Python process ended with exit code 7; it is started again, once$/),
    ]);
    const again = await errorOf(rewarded(python(text), two(), [0, 1, 2]));
    expect(again.message).toMatch(
      /\.py: the Python process ended with exit code 7; it was started again before\.$/,
    );
  });

  test('that hangs is ended after its time', async () => {
    const text = counting('if calls == 1: time.sleep(60)');
    // As long as a sound answer may take on a busy machine: the second process has to give one in that time.
    const { calls, warnings } = await rewarded(python(text, { seconds: 2 }), two());
    expect(rewardsOf(calls)).toEqual([2, 2, 2]);
    expect(warnings).toEqual([
      expect.stringContaining('took more than 2 seconds for "f"; it is started again'),
    ]);
  });

  const channel = 'wrote something else than answers into its channel';
  test.each([
    ['writes a line into the channel', 'os.write(4, b"hello\\n")', channel],
    ['writes JSON into it', `os.write(4, b'{"value": 3}\\n'); os.read(5, 1)`, channel],
    ['closes it', 'os.closerange(3, 100)', 'the Python process ended with exit code 1'],
    [
      'closes it and goes on',
      'os.close(4); time.sleep(60)',
      'closed the channel that its answers go through',
    ],
    ['reads its standard input', 'input()', 'f raised EOFError'],
  ])('that %s ends with a sentence', async (_what, body, message) => {
    const text = `import os, time\nos.dup2(os.pipe()[0], 5)\ndef f(**k):\n    ${body}\n    return [0] * 3`;
    const failed = await rewarded(python(text), two()).then(({ calls }) => rewardsOf(calls)[0], String);
    expect(failed).toContain(message);
  });

  test('that leaves a process behind, which holds the channel, ends with it', async () => {
    const text = `import os, time
def f(prompts, **k):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return [child] * len(prompts)`;
    const { calls } = await rewarded(python(text), two());
    const child = Number(rewardsOf(calls)[0]);
    expect(child).toBeGreaterThan(1);
    // Reaped or not yet: it runs no more.
    const state = () => {
      const path = `/proc/${child}/stat`;
      return existsSync(path) ? readFileSync(path, 'utf8').replace(/.*\) /, '')[0] : 'gone';
    };
    await expect.poll(state).toMatch(/^(gone|Z|X)$/);
  });

  test('may have processes of multiprocessing do its work, however they are started', async () => {
    const text = `import multiprocessing
def length(text):
    return float(len(text))
def f(completions, **k):
    texts = [completion[0]["content"] for completion in completions]
    values = []
    for method in ("fork", "forkserver", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            values.append(pool.map(length, texts))
    assert values[0] == values[1] == values[2]
    return values[0]`;
    const episodes = two();
    (episodes[0]?.calls[0] as { text: string }).text = 'abc';
    const { calls, warnings } = await rewarded(python(text, { seconds: 30 }), episodes);
    expect(rewardsOf(calls)).toEqual([3, 0, 0]);
    expect(warnings).toEqual([]);
  });

  test('that waits in vain ends with the run', async () => {
    const { learning, rollout } = runSchema.parse({
      learning: { reward: python('import time\ndef f(**k): time.sleep(60)') },
    });
    const rewards = await openRewards({ learning, rollout, roles: ROLES });
    await rewards.start();
    const stop = new AbortController();
    const asked = rewards.of(two(), { step: 0, steps: 1, signal: stop.signal });
    setTimeout(() => stop.abort(new Error('stopped')), 50);
    expect((await errorOf(asked)).message).toBe('stopped');
    await rewards.close();
  });
});

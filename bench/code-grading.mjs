/**
 * Throughput of the code grader: problems a second with 20 tests each, for each style of tests, when every answer is
 * right, when every one is wrong (at its first test), and when half are. All problems share one pool of sandboxes.
 *
 *     node bench/code-grading.mjs [--problems 60] [--tests 20] [--rounds 3] [--jobs N]
 *
 * Needs `npm run build:js` and bubblewrap. No peer: what others measure runs answers without a sandbox.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createTask } from '../build/js/tasks/registry.js';

const { values: options } = parseArgs({
  options: {
    problems: { type: 'string', default: '60' },
    tests: { type: 'string', default: '20' },
    rounds: { type: 'string', default: '3' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    results: { type: 'string', default: join(dirname(fileURLToPath(import.meta.url)), 'results') },
  },
});
const [problems, tests, rounds, jobs] = ['problems', 'tests', 'rounds', 'jobs'].map((key) =>
  Number(options[key]),
);

const numbers = Array.from({ length: tests }, (_, i) => i + 2);

/** A row of each style, and a right and a wrong answer to it. */
const STYLES = {
  stdin: {
    row: (name) => ({
      problem: `Double a number (${name}).`,
      tests: numbers.map((x) => ({ type: 'stdin_stdout', input: `${x}\n`, output: `${2 * x}\n` })),
    }),
    right: () => 'print(2 * int(input()))',
    wrong: () => 'print(2 * int(input()) + 1)',
  },
  function: {
    row: (name) => ({
      problem: `Double a number (${name}).`,
      tests: { fn_name: name, inputs: numbers.map((x) => [x]), outputs: numbers.map((x) => 2 * x) },
    }),
    right: (name) => `def ${name}(x): return 2 * x`,
    wrong: (name) => `def ${name}(x): return 2 * x + 1`,
  },
  asserts: {
    row: (name) => ({
      text: `Double a number (${name}).`,
      test_list: numbers.map((x) => `assert ${name}(${x}) == ${2 * x}`),
    }),
    right: (name) => `def ${name}(x): return 2 * x`,
    wrong: (name) => `def ${name}(x): return 2 * x + 1`,
  },
};

const MIXES = { right: () => true, wrong: () => false, mixed: (i) => i % 2 === 0 };

function median(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

const folder = mkdtempSync(join(tmpdir(), 'troupe-code-'));
const rates = {};
try {
  for (const [style, { row, right, wrong }] of Object.entries(STYLES)) {
    const file = join(folder, `${style}.jsonl`);
    const names = Array.from({ length: problems }, (_, i) => `double_${i}`);
    writeFileSync(file, names.map((name) => `${JSON.stringify(row(name))}\n`).join(''));
    const task = await createTask({ name: 'code', files: file, holdout: 0, jobs });
    rates[style] = {};
    for (const [mix, isRight] of Object.entries(MIXES)) {
      const answers = names.map((_, i) => {
        const problem = task.train(0, i);
        const name = /double_\d+/.exec(problem.question)[0];
        return { problem, text: `\`\`\`python\n${(isRight(i) ? right : wrong)(name)}\n\`\`\`` };
      });
      const times = [];
      for (let round = 0; round < rounds; round++) {
        const start = performance.now();
        const grades = await task.grade(answers);
        times.push(performance.now() - start);
        const bad = grades.findIndex(({ correct }, i) => correct !== isRight(i));
        if (bad >= 0) throw new Error(`${style}, ${mix}: answer ${bad} was graded ${grades[bad].reason}`);
      }
      rates[style][mix] = Number(((problems * 1000) / median(times)).toFixed(1));
    }
    await task.close();
    console.log(style.padEnd(10), rates[style]);
  }
} finally {
  rmSync(folder, { recursive: true });
}
const machine = { processor: cpus()[0]?.model, processors: availableParallelism() };
mkdirSync(options.results, { recursive: true });
const result = { machine, problems, tests, jobs, 'problems a second': rates };
writeFileSync(join(options.results, 'code-grading.json'), `${JSON.stringify(result, null, 2)}\n`);

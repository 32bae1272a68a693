/**
 * Code problems from data rows, by the field names of the published sets: DeepCoder (problem, tests), APPS and TACO
 * (question, input_output), LiveCodeBench (question_content, public_test_cases, private_test_cases), code_contests
 * (description, public_tests, private_tests, generated_tests), open-r1/codeforces (description, official_tests,
 * generated_checker), LeetCode's (tests.functional), MBPP (text or prompt, test_list), MBPP as function completion and
 * HumanEval (prompt, entry_point, test), LeetCodeDataset (problem_description, entry_point, test), and verl (prompt,
 * reward_model.ground_truth with any of these tests in it). An example row of each is in docs/data.md. Reading the tests
 * themselves is in code-row-tests.ts.
 */
import { assertTests, definedFunctions, definedNames, testsOf } from './code-row-tests.js';
import type { CodeTests } from './code-tests.js';
import { BadRow, MissingColumn, questionOf, type Row, textOf, valueAt } from './rows.js';
import type { Problem } from './types.js';

const QUESTION = ['question', 'problem', 'question_content', 'text', 'description', 'prompt'];

/** A problem with `data.tests`. Throws a BadRow. */
export function codeProblem(row: Row, where: string): Problem {
  // Where a row has `tests`, or task.fields names them, nothing else is.
  const hasTests = valueAt(row, 'tests') !== undefined;
  if (!hasTests && textOf(row, ['entry_point']) !== undefined && textOf(row, ['test']) !== undefined) {
    return completionProblem(row, where);
  }
  const asked = questionOf(row, QUESTION) ?? untitled(row);
  if (asked === undefined) throw new MissingColumn('has no question (problem, question, text or prompt)');
  const list = valueAt(row, 'test_list');
  if (!hasTests && Array.isArray(list)) return assertListProblem(row, where, asked, list);
  refuseUnjudgeable(row);
  const tests = testsOf(row);
  if (tests.style === 'stdin' && tests.checker === undefined && ANY_ANSWER.test(asked)) {
    throw new BadRow('has several right outputs, and brings no checker');
  }
  const answer = solutionOf(row);
  return {
    id: where,
    question: `${statement(row, asked)}${startingCode(row, asked)}`,
    ...(answer === undefined ? {} : { answer }),
    data: { tests },
  };
}

/** How statements say that there are several right outputs. */
const ANY_ANSWER =
  /\b(?:print|output|find|choose|give|report) any (?:one )?(?:of|valid|correct|possible|suitable|such)\b|\b(?:print|output) any\b[.,]|\b(?:multiple|several|many) (?:possible |valid |correct |optimal |suitable )*(?:answers|solutions|outputs)\b/i;

/** What cannot be graded by input and output alone, or only by a checker that the row does not bring. */
function refuseUnjudgeable(row: Row): void {
  if (textOf(row, ['interaction_format']) !== undefined) throw new BadRow('is an interactive problem');
  for (const key of ['input_file', 'output_file']) {
    const file = textOf(row, [key]);
    if (file !== undefined && !/^std(?:in|out)$/.test(file))
      throw new BadRow(`has an ${key}, not standard input`);
  }
  const mode = textOf(row, ['input_mode']);
  if (mode !== undefined && mode !== 'stdio') throw new BadRow(`has the input mode ${mode}, not stdio`);
  const checker = valueAt(row, 'checker') ?? valueAt(row, 'special_judge');
  if (checker !== undefined && checker !== null && checker !== false && checker !== '') {
    throw new BadRow('needs a checker of a kind that is not known here');
  }
}

/** A row of tests alone, in sets that keep the question elsewhere. */
function untitled(row: Row): string | undefined {
  return textOf(row, ['title', 'question_title', 'name']);
}

/** open-r1/codeforces keeps the formats of input and output beside the description. */
function statement(row: Row, asked: string): string {
  const [input, output] = [textOf(row, ['input_format']), textOf(row, ['output_format'])];
  return [asked, input && `Input\n${input}`, output && `Output\n${output}`].filter(Boolean).join('\n\n');
}

function startingCode(row: Row, asked: string): string {
  const starter = textOf(row, ['starter_code']);
  return starter === undefined || asked.includes(starter)
    ? ''
    : `\n\nBegin with this code:\n\`\`\`python\n${starter}\n\`\`\``;
}

/** HumanEval's shape: a function's head and docstring to complete, and `check(candidate)`. */
function completionProblem(row: Row, where: string): Problem {
  const name = textOf(row, ['entry_point']) ?? '';
  const test = textOf(row, ['test']);
  const head = valueAt(row, 'prompt');
  const described = textOf(row, ['problem_description']);
  if (described !== undefined && test !== undefined) return describedProblem(row, where, described, test);
  if (typeof head !== 'string') throw new BadRow('has no prompt');
  if (test === undefined) throw new BadRow('has no test');
  const solution = valueAt(row, 'canonical_solution');
  const call = /^\s*check\(/m.test(test) ? '' : `\n\ncheck(${name})\n`;
  const tests: CodeTests = {
    style: 'asserts',
    code: `${test}${call}`,
    names: [name],
    functions: definedFunctions(head, [name]),
    context: head,
  };
  return {
    id: where,
    question: `Complete this Python function:\n\`\`\`python\n${head.trim()}\n\`\`\``,
    ...(typeof solution === 'string' ? { answer: `${head}${solution}` } : {}),
    data: { tests },
  };
}

/** LeetCodeDataset's shape: a statement, and `check(candidate)` for "Solution().twoSum"; `prompt` is the imports. */
function describedProblem(row: Row, where: string, described: string, test: string): Problem {
  const entry = textOf(row, ['entry_point']) ?? '';
  const name = /^\w+/.exec(entry)?.[0];
  if (name === undefined) throw new BadRow(`has an entry_point that is no name: ${entry.slice(0, 40)}`);
  const answer = textOf(row, ['completion']);
  const context = textOf(row, ['prompt']) ?? '';
  const tests: CodeTests = { style: 'asserts', code: `${test}\n\ncheck(${entry})\n`, names: [name], context };
  return {
    id: where,
    question: `${described}${startingCode(row, described)}`,
    ...(answer === undefined ? {} : { answer }),
    data: { tests },
  };
}

/** MBPP's shape: the question alone does not name the function, so its first test is shown. */
function assertListProblem(row: Row, where: string, asked: string, list: unknown[]): Problem {
  if (list.some((test) => typeof test !== 'string'))
    throw new BadRow('has a test in its test_list that is no text');
  const [first] = list;
  if (first === undefined) throw new BadRow('has an empty test_list');
  const setup = [valueAt(row, 'test_imports'), valueAt(row, 'test_setup_code')].flat();
  const lines = setup.filter((line): line is string => typeof line === 'string' && line !== '');
  const answer = textOf(row, ['code']);
  const code = `${[...lines, ...list].join('\n')}\n`;
  return {
    id: where,
    question: `${asked}\n\nThe code has to pass tests like this one:\n\`\`\`python\n${first}\n\`\`\``,
    ...(answer === undefined ? {} : { answer }),
    data: { tests: assertTests(code, definedNames(answer ?? '', code), lines.join('\n'), answer) },
  };
}

function solutionOf(row: Row): string | undefined {
  const solutions = listed(valueAt(row, 'solution') ?? valueAt(row, 'solutions'));
  const first = Array.isArray(solutions) ? solutions[0] : pythonSolution(solutions);
  if (typeof first !== 'string') return undefined;
  return /```python\n([\s\S]*?)```/.exec(first)?.[1] ?? first;
}

/** TACO and APPS keep the list as JSON text. */
function listed(solutions: unknown): unknown {
  if (typeof solutions !== 'string' || !/^\s*\[\s*"/.test(solutions)) return solutions;
  try {
    return JSON.parse(solutions);
  } catch {
    return solutions;
  }
}

/** code_contests: {language: [3, 2, …], solution: […]}, where 3 is Python 3. */
const PYTHON3 = 3;

function pythonSolution(solutions: unknown): unknown {
  if (typeof solutions !== 'object' || solutions === null) return solutions;
  const { language, solution } = solutions as Row;
  if (!Array.isArray(language) || !Array.isArray(solution)) return undefined;
  return solution[language.findIndex((one) => Number(one) === PYTHON3 || one === 'PYTHON3')];
}

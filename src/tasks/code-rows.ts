/**
 * Code problems from data rows. Understood are the field names of DeepCoder (problem, tests), APPS and TACO
 * (question, input_output), LiveCodeBench (question_content, public_test_cases), LeetCode's (tests.functional),
 * MBPP (text or prompt, test_list), MBPP as function completion and HumanEval (prompt, entry_point, test), and
 * of verl (prompt, reward_model.ground_truth with any of these tests in it).
 */
import { type CodeTests, parseJson, toChannel } from './code-tests.js';
import { BadRow, questionOf, type Row, textOf, valueAt } from './rows.js';
import type { Json } from './sandbox.js';
import type { Problem } from './types.js';

const QUESTION = ['problem', 'question', 'question_content', 'text', 'description', 'prompt'];
const TESTS = [
  'tests',
  'input_output',
  'test_cases',
  'reward_model.ground_truth',
  'private_test_cases',
  'public_test_cases',
];

/** A problem with `data.tests`. Throws a BadRow. */
export function codeProblem(row: Row, where: string): Problem {
  if (textOf(row, ['entry_point']) !== undefined) return completionProblem(row, where);
  const asked = questionOf(row, QUESTION);
  if (asked === undefined) throw new BadRow('has no question (problem, question, text or prompt)');
  const list = valueAt(row, 'test_list');
  if (Array.isArray(list)) return assertListProblem(row, where, asked, list.map(String));
  const tests = testsOf(row);
  const answer = solutionOf(row);
  const starter = textOf(row, ['starter_code']);
  const question =
    starter === undefined || asked.includes(starter)
      ? asked
      : `${asked}\n\nBegin with this code:\n\`\`\`python\n${starter}\n\`\`\``;
  return { id: where, question, ...(answer === undefined ? {} : { answer }), data: { tests } };
}

/** HumanEval's shape: a function's head and docstring to complete, and `check(candidate)`. */
function completionProblem(row: Row, where: string): Problem {
  const name = textOf(row, ['entry_point']) ?? '';
  const test = textOf(row, ['test']);
  const head = valueAt(row, 'prompt');
  if (typeof head !== 'string') throw new BadRow('has no prompt');
  if (test === undefined) throw new BadRow('has no test');
  const solution = valueAt(row, 'canonical_solution');
  const tests: CodeTests = {
    style: 'asserts',
    code: `${test}\n\ncheck(${name})\n`,
    names: [name],
    context: head,
  };
  return {
    id: where,
    question: `Complete this Python function:\n\`\`\`python\n${head.trim()}\n\`\`\``,
    ...(typeof solution === 'string' ? { answer: `${head}${solution}` } : {}),
    data: { tests },
  };
}

/** MBPP's shape: the question alone does not name the function, so its first test is shown. */
function assertListProblem(row: Row, where: string, asked: string, list: string[]): Problem {
  const [first] = list;
  if (first === undefined) throw new BadRow('has an empty test_list');
  const setup = [valueAt(row, 'test_imports'), valueAt(row, 'test_setup_code')].flat();
  const lines = setup.filter((line): line is string => typeof line === 'string' && line !== '');
  const tests: CodeTests = {
    style: 'asserts',
    code: `${[...lines, ...list].join('\n')}\n`,
    names: [],
    context: lines.join('\n'),
  };
  const answer = textOf(row, ['code']);
  return {
    id: where,
    question: `${asked}\n\nThe code has to pass tests like this one:\n\`\`\`python\n${first}\n\`\`\``,
    ...(answer === undefined ? {} : { answer }),
    data: { tests },
  };
}

function solutionOf(row: Row): string | undefined {
  const solutions = valueAt(row, 'solutions') ?? valueAt(row, 'solution');
  const first: unknown = Array.isArray(solutions) ? solutions[0] : solutions;
  if (typeof first !== 'string') return undefined;
  return /```python\n([\s\S]*?)```/.exec(first)?.[1] ?? first;
}

function testsOf(row: Row): CodeTests {
  const key = TESTS.find((name) => valueAt(row, name) !== undefined && valueAt(row, name) !== null);
  if (key === undefined) throw new BadRow(`has no tests (${TESTS.slice(0, 3).join(', ')}, …)`);
  const given = valueAt(row, key);
  const value = typeof given === 'string' ? parsed(given, key) : given;
  const name = textOf(row, ['metadata.func_name', 'fn_name', 'func_name']) ?? metadataName(row);
  if (Array.isArray(value)) return caseTests(value, name);
  if (typeof value === 'object' && value !== null) return objectTests(value as Row, name);
  throw new BadRow(`has ${key} that are neither a list nor an object`);
}

function parsed(text: string, key: string): unknown {
  try {
    return parseJson(text);
  } catch {
    throw new BadRow(`has ${key} that are not JSON`);
  }
}

/** LiveCodeBench keeps its metadata as JSON text. */
function metadataName(row: Row): string | undefined {
  const metadata = valueAt(row, 'metadata');
  if (typeof metadata !== 'string') return undefined;
  const value = parsed(metadata, 'metadata');
  return typeof value === 'object' && value !== null ? textOf(value as Row, ['func_name']) : undefined;
}

/** {functional: code} or {inputs: [...], outputs: [...], fn_name}. */
function objectTests(value: Row, outerName: string | undefined): CodeTests {
  const code = textOf(value, ['functional']);
  if (code !== undefined) return { style: 'asserts', code: `${code}\n`, names: [], context: '' };
  const { inputs, outputs } = value;
  if (!Array.isArray(inputs) || !Array.isArray(outputs) || inputs.length !== outputs.length) {
    throw new BadRow('has tests without equally many inputs and outputs');
  }
  const cases = inputs.map((input: unknown, i) => ({ input, output: outputs[i] as unknown }));
  return caseTests(cases, textOf(value, ['fn_name']) ?? outerName);
}

/** [{input, output, type, fn_name}, …], of programs or of functions. */
function caseTests(cases: unknown[], outerName: string | undefined): CodeTests {
  if (cases.length === 0) throw new BadRow('has no tests');
  const rows = cases.map((value) => (typeof value === 'object' && value !== null ? (value as Row) : {}));
  if (rows.some((one) => !('input' in one) || !('output' in one))) {
    throw new BadRow('has a test without input or output');
  }
  const types = new Set(rows.map((one) => textOf(one, ['type', 'testtype'])));
  const name = textOf(rows[0] ?? {}, ['fn_name', 'metadata.func_name']) ?? outerName;
  const isStdin = types.has('stdin_stdout') || types.has('stdin') || name === undefined;
  if (isStdin) {
    if (types.has('function_call') || types.has('functional')) {
      throw new BadRow('has function tests without a name, or mixed with others');
    }
    return {
      style: 'stdin',
      cases: rows.map((one) => ({ input: lines(one.input), output: lines(one.output) })),
    };
  }
  return {
    style: 'function',
    name,
    cases: rows.map((one) => ({ args: argumentsOf(one.input), outputs: resultsOf(one.output) })),
  };
}

/** Standard input or output; some sets keep a list of lines. */
function lines(value: unknown): string {
  return Array.isArray(value) ? value.map(String).join('\n') : String(value ?? '');
}

/** Arguments: a list of values, or text with one JSON value a line. */
function argumentsOf(input: unknown): Json[] {
  if (Array.isArray(input)) return input.map(toChannel);
  if (typeof input !== 'string') return [toChannel(input)];
  return input
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => toChannel(parsed(line, 'tests with arguments')));
}

/** Right results: the value; sets in the manner of APPS wrap it into a list of one. */
function resultsOf(output: unknown): Json[] {
  const value = typeof output === 'string' ? jsonOrText(output) : output;
  const wrapped = Array.isArray(value) && value.length === 1 && typeof output !== 'string';
  return wrapped ? [toChannel(value), toChannel(value[0])] : [toChannel(value)];
}

function jsonOrText(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return text;
  }
}

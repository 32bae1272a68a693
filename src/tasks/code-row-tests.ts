/** Reads the tests of data rows, in the forms that the published sets give them (see code-rows.ts). */
import { inflateSync } from 'node:zlib';
import type { Checker, CodeTests } from './code-tests.js';
import { parsePython, toChannel, written } from './code-values.js';
import { BadRow, MissingColumn, type Row, textOf, valueAt } from './rows.js';
import type { Json } from './sandbox.js';

const TESTS = [
  'tests',
  'input_output',
  'test_cases',
  'reward_model.ground_truth',
  'private_test_cases',
  'public_test_cases',
  'official_tests',
  'public_tests',
  'test',
];

/** The tests of a row. Throws a BadRow. */
export function testsOf(row: Row): CodeTests {
  const key = TESTS.find((name) => hasValue(valueAt(row, name)));
  if (key === undefined) throw new MissingColumn(`has no tests (${TESTS.slice(0, 3).join(', ')}, …)`);
  const tests = styled(row, key);
  const checker = checkerOf(row);
  if (checker === undefined) return tests;
  if (tests.style !== 'stdin') throw new BadRow('has a checker for tests that are not of standard input');
  return { ...tests, checker };
}

function hasValue(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}

function styled(row: Row, key: string): CodeTests {
  if (key === 'test') return assertTests(textOf(row, ['test']) ?? '', [], '');
  const name = textOf(row, ['fn_name', 'metadata.func_name', 'func_name']) ?? metadataName(row);
  if (key === 'private_test_cases' || key === 'public_test_cases') {
    const cases = ['public_test_cases', 'private_test_cases'].flatMap((part) =>
      listOf(valueAt(row, part), part),
    );
    return caseTests(cases, name);
  }
  if (key === 'public_tests' || key === 'official_tests') return separateTests(row, name);
  const value = contentOf(valueAt(row, key), key);
  if (Array.isArray(value)) {
    return value.length > 0 && value.every((one) => typeof one === 'string')
      ? assertTests(`${value.join('\n')}\n`, [], '')
      : caseTests(value, name);
  }
  if (typeof value === 'object' && value !== null) return objectTests(value as Row, name);
  throw new BadRow(`has ${key} that are neither a list nor an object`);
}

/** A value, or the JSON of one. */
function contentOf(given: unknown, key: string): unknown {
  return typeof given === 'string' ? parsed(given, key) : given;
}

function parsed(text: string, key: string): unknown {
  try {
    return parsePython(text);
  } catch {
    throw new BadRow(`has ${key} that are not JSON`);
  }
}

/** LiveCodeBench keeps its metadata as JSON text. */
function metadataName(row: Row): string | undefined {
  const metadata = valueAt(row, 'metadata');
  if (typeof metadata !== 'string' || metadata.trim() === '') return undefined;
  const value = parsed(metadata, 'metadata');
  return typeof value === 'object' && value !== null ? textOf(value as Row, ['func_name']) : undefined;
}

/** A list of cases; LiveCodeBench's private ones are JSON in a pickle, deflated, in base 64. */
function listOf(given: unknown, key: string): unknown[] {
  if (!hasValue(given)) return [];
  const text = typeof given === 'string' && !/^\s*\[/.test(given) ? unpacked(given, key) : given;
  const value = contentOf(text, key);
  if (!Array.isArray(value)) throw new BadRow(`has ${key} that are not a list`);
  return value;
}

/** Bytes of tests that are unpacked; a row is somebody else's, and zeros pack to a thousandth. */
const MOST_UNPACKED = 2 ** 29;

function unpacked(text: string, key: string): string {
  try {
    return pickledText(inflateSync(Buffer.from(text, 'base64'), { maxOutputLength: MOST_UNPACKED }));
  } catch (error) {
    throw new BadRow(`has ${key} that are neither JSON nor packed JSON (${(error as Error).message})`);
  }
}

/** The text in a pickle of one text (protocols 2 to 5 of Python's pickle); anything else throws. */
function pickledText(pickle: Buffer): string {
  const FRAME = 0x95;
  const MARKS: Record<number, (at: number) => [start: number, length: number]> = {
    140: (at) => [at + 1, pickle.readUInt8(at)],
    88: (at) => [at + 4, pickle.readUInt32LE(at)],
    141: (at) => [at + 8, Number(pickle.readBigUInt64LE(at))],
  };
  let at = pickle[0] === 0x80 ? 2 : 0;
  if (pickle[at] === FRAME) at += 9;
  const read = MARKS[pickle[at] ?? 0];
  if (read === undefined) throw new Error('a pickle of something else than text');
  const [start, length] = read(at + 1);
  if (start + length >= pickle.length) throw new Error('a pickle that is cut off');
  return pickle.toString('utf8', start, start + length);
}

/** code_contests: {input: […], output: […]} thrice; open-r1/codeforces: a list of {input, output} beside examples. */
function separateTests(row: Row, name: string | undefined): CodeTests {
  if (valueAt(row, 'official_tests_complete') === false) {
    throw new BadRow('has official tests that are not complete');
  }
  const keys = ['public_tests', 'private_tests', 'generated_tests', 'official_tests'];
  const cases = keys.flatMap((key) => {
    const value = contentOf(valueAt(row, key), key) ?? [];
    if (Array.isArray(value)) return value as unknown[];
    const { input, output } = value as Row;
    return zipped(input, output);
  });
  return caseTests(cases, name);
}

function zipped(inputs: unknown, outputs: unknown): Row[] {
  if (!Array.isArray(inputs) || !Array.isArray(outputs) || inputs.length !== outputs.length) {
    throw new BadRow('has tests without equally many inputs and outputs');
  }
  return inputs.map((input: unknown, i) => ({ input, output: outputs[i] as unknown }));
}

function checkerOf(row: Row): Checker | undefined {
  const code = textOf(row, ['generated_checker']);
  if (code !== undefined && /\b(?:eval|exec)\s*\(/.test(code)) {
    throw new BadRow('has a checker that would run what the answer prints');
  }
  return code === undefined ? undefined : { code };
}

/** {functional: code} or {inputs: [...], outputs: [...], fn_name}. */
function objectTests(value: Row, outerName: string | undefined): CodeTests {
  const code = textOf(value, ['functional']);
  if (code !== undefined) return assertTests(`${code}\n`, [], '');
  return caseTests(zipped(value.inputs, value.outputs), textOf(value, ['fn_name']) ?? outerName);
}

/** Tests that assert. `solution`: a right program. Throws a BadRow for code that checks nothing. */
export function assertTests(code: string, names: string[], context: string, solution = ''): CodeTests {
  if (!/\bassert|\braise\b|\bself\.(?:assert|fail)/.test(code))
    throw new BadRow('has test code that asserts nothing');
  return { style: 'asserts', code, names, functions: definedFunctions(solution, names), context };
}

/** Those of the names that Python code defines as functions at its outer level. */
export function definedFunctions(code: string, names: readonly string[]): string[] {
  const defined = new Set([...code.matchAll(/^(?:async +)?def +(\w+)/gm)].map(([, name]) => name));
  return names.filter((name) => defined.has(name));
}

/** Names that Python code defines at its outer level and `use` mentions. */
export function definedNames(code: string, use: string): string[] {
  const defined = [...code.matchAll(/^(?:(?:async +)?def|class) +(\w+)|^(\w+) *=(?!=)/gm)].map(
    ([, name, assigned]) => name ?? assigned ?? '',
  );
  return [...new Set(defined)].filter((name) => new RegExp(`\\b${name}\\b`).test(use));
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
  if (!isStdin) {
    // Sets in the manner of APPS wrap each result into a list of one.
    const wrapped = rows.every(({ output }) => Array.isArray(output) && output.length === 1);
    return {
      style: 'function',
      name,
      cases: rows.map((one) => ({ args: argumentsOf(one.input), outputs: resultsOf(one.output, wrapped) })),
    };
  }
  if (types.has('function_call') || types.has('functional')) {
    throw new BadRow('has function tests without a name, or mixed with others');
  }
  return {
    style: 'stdin',
    cases: rows.map((one) => ({ input: lines(one.input), output: lines(one.output) })),
  };
}

/** Standard input or output; some sets keep a list of lines. Throws a BadRow. */
function lines(value: unknown): string {
  return Array.isArray(value) ? value.map(line).join('\n') : line(value ?? '');
}

function line(value: unknown): string {
  const text = written(value);
  if (text === undefined) throw new BadRow('has an input or output that is neither text nor a number');
  return text;
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

/** Right results. Where every result may be wrapped, the row does not tell, and either is right. */
function resultsOf(output: unknown, wrapped: boolean): Json[] {
  const value = typeof output === 'string' ? jsonOrText(output) : output;
  return wrapped && Array.isArray(value) ? [toChannel(value), toChannel(value[0])] : [toChannel(value)];
}

/** JSON, a constant as Python writes it, or text as it stands. */
function jsonOrText(text: string): unknown {
  const constant = { True: true, False: false, None: null }[text.trim()];
  if (constant !== undefined) return constant;
  try {
    return parsePython(text);
  } catch {
    return text;
  }
}

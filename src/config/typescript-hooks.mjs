/**
 * Node's module hooks that let `import()` read TypeScript: types are stripped, not checked. Plain JavaScript,
 * because Node loads it itself in its hooks thread; registered by import-module.ts, from the sources as from
 * build/js. Files in node_modules are left alone.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** The program's own exports, for users' files that lie in no project where 'troupe' is installed. */
const OWN_EXPORTS = new URL('../../build/js/index.js', import.meta.url).href;

/** This program's own code, which users' files import. */
const OWN = ['../../src/', '../../build/'].map((folder) => new URL(folder, import.meta.url).href);

/** Hears of each import of one user's file by another, as [importing, imported] URLs. */
let port;

export function initialize(data) {
  port = data?.port;
}

export async function resolve(specifier, context, next) {
  const found = await find(specifier, context, next);
  if (isUsers(context.parentURL) && isUsers(found.url)) port?.postMessage([context.parentURL, found.url]);
  return found;
}

function isUsers(url = '') {
  const isOwn = OWN.some((folder) => url.startsWith(folder));
  return url.startsWith('file:') && !isOwn && !url.includes('/node_modules/');
}

/** './other.js' also finds other.ts, as TypeScript spells such imports; 'troupe' and 'zod' are always found. */
async function find(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (specifier === 'troupe') return next(OWN_EXPORTS, context);
    // Options of workflows and tasks are zod schemas: this program's zod, where the file has none of its own.
    if (/^zod(\/|$)/.test(specifier)) return next(specifier, { ...context, parentURL: import.meta.url });
    if (!/^\.\.?\/.*\.m?js$/.test(specifier)) throw error;
    return next(specifier.replace(/js$/, 'ts'), context).catch(() => {
      throw error;
    });
  }
}

export async function load(url, context, next) {
  const path = url.split('?')[0];
  if (!path.startsWith('file:') || !/\.m?ts$/.test(path) || path.includes('/node_modules/')) {
    return next(url, context);
  }
  const fileName = fileURLToPath(path);
  const source = await readFile(fileName, 'utf8');
  // Loaded with the first file that needs it: it is large.
  const { default: ts } = await import('typescript');
  const options = {
    module: ts.ModuleKind.ESNext,
    target: ts.ScriptTarget.ES2022,
    inlineSourceMap: true,
    verbatimModuleSyntax: true,
  };
  const result = ts.transpileModule(source, { fileName, compilerOptions: options, reportDiagnostics: true });
  const [problem] = result.diagnostics ?? [];
  if (problem !== undefined) throw new SyntaxError(describe(ts, problem, fileName));
  return { format: 'module', source: result.outputText, shortCircuit: true };
}

function describe(ts, problem, fileName) {
  const text = ts.flattenDiagnosticMessageText(problem.messageText, '\n');
  const line = problem.file?.getLineAndCharacterOfPosition(problem.start ?? 0).line ?? 0;
  return `${fileName}:${line + 1}: ${text}`;
}

/**
 * Fails if the package does not export what a user's file has to name, exports something without a docstring (they are its
 * reference), or exports what no page tells of.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { packageRoot } from '../../src/config/package.js';

const built = join(packageRoot(), 'build', 'js');
const entry = join(built, 'index.d.ts');
const program = ts.createProgram([entry], { module: ts.ModuleKind.NodeNext, skipLibCheck: true, types: [] });
const checker = program.getTypeChecker();

/** What a name stands for, behind its imports and exports. */
const target = (symbol: ts.Symbol) =>
  symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;

const file = program.getSourceFile(entry);
const module = file && checker.getSymbolAtLocation(file);
const exported = new Map(
  (module === undefined ? [] : checker.getExportsOfModule(module)).map((one) => [target(one), one.name]),
);

const isOwn = (symbol: ts.Symbol) =>
  symbol.declarations?.some(
    (one) => one.getSourceFile().fileName.startsWith(built) && !ts.isTypeParameterDeclaration(one),
  ) === true;

/** The package's own types that the declaration of an exported name refers to. */
function typesOf(symbol: ts.Symbol): ts.Symbol[] {
  const found = new Set<ts.Symbol>();
  const visit = (node: ts.Node) => {
    const name = ts.isTypeReferenceNode(node)
      ? node.typeName
      : ts.isExpressionWithTypeArguments(node)
        ? node.expression
        : undefined;
    const type = name && checker.getSymbolAtLocation(name);
    if (type !== undefined && isOwn(target(type))) found.add(target(type));
    ts.forEachChild(node, visit);
  };
  for (const declaration of symbol.declarations ?? []) visit(declaration);
  return [...found];
}

it('has a docstring for whatever it exports', () => {
  expect(exported.size).toBeGreaterThan(25);
  const undocumented = [...exported].filter(
    ([symbol]) => symbol.getDocumentationComment(checker).length === 0,
  );
  expect(undocumented.map(([, name]) => name)).toEqual([]);
});

it('exports every type that what it exports is made of', () => {
  const missing = [...exported].flatMap(([symbol, name]) =>
    typesOf(symbol).flatMap((type) => (exported.has(type) ? [] : [`${name}: ${type.name}`])),
  );
  expect(missing).toEqual([]);
});

it('exports nothing that the pages do not tell of, or that what they tell of is not made of', () => {
  const docs = join(packageRoot(), 'docs');
  const pages = readdirSync(docs).filter((name) => name.endsWith('.md'));
  const code = pages
    .flatMap((name) => [...readFileSync(join(docs, name), 'utf8').matchAll(/```.*?```|`[^`\n]+`/gs)])
    .join('\n');
  const told = [...exported].filter(([, name]) => new RegExp(`\\b${name}\\b`).test(code));
  expect(told.length).toBeGreaterThan(15);
  const reached = new Set<ts.Symbol>();
  const reach = (symbol: ts.Symbol) => {
    if (reached.has(symbol)) return;
    reached.add(symbol);
    for (const type of typesOf(symbol)) reach(type);
  };
  for (const [symbol] of told) reach(symbol);
  expect([...exported].flatMap(([symbol, name]) => (reached.has(symbol) ? [] : [name]))).toEqual([]);
});

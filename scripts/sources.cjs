/**
 * What the addon is built from, as a hash: it carries the one that it was built with, and loading it compares
 * (src/engine/load.ts). CommonJS, because the addon is loaded synchronously and Node 20 requires no ES modules.
 */
const { createHash } = require('node:crypto');
const { readdirSync, readFileSync } = require('node:fs');
const { join, relative } = require('node:path');

const SOURCE = /\.(h|cc|cu|cuh|cmake)$/;

/** Sixteen digits of SHA-256 of native/ and CMakeLists.txt in the package's folder. */
function sourcesHash(root) {
  const hash = createHash('sha256');
  const sources = readdirSync(join(root, 'native'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && SOURCE.test(entry.name))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
  for (const path of [join(root, 'CMakeLists.txt'), ...sources]) {
    const content = readFileSync(path);
    hash.update(`${relative(root, path)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex').slice(0, 16);
}

module.exports = { sourcesHash };

/** For programs of the tests in processes of their own: `node --import test/built-hooks.mjs FILE.ts`, on what was built. */
import { register } from 'node:module';

const root = new URL('..', import.meta.url).href;
register(new URL('src/config/typescript-hooks.mjs', root));
const redirect = `
  export function resolve(specifier, context, next) {
    const [, path] = /^(?:\\.\\.\\/)+src\\/(.*\\.js)$/.exec(specifier) ?? [];
    return next(path === undefined ? specifier : '${root}build/js/' + path, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(redirect)}`);

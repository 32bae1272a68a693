/** What a model is called, wherever it lies. */
import { basename } from 'node:path';

/**
 * The last part of a folder's path, or of a name on the hub, without its @REVISION; a folder of the hub's cache,
 * models--OWNER--NAME/snapshots/COMMIT, has the name two levels up.
 */
export function modelName(path: string): string {
  const cached = /models--[^/]+?--([^/]+)\/snapshots\/[^/]+\/?$/.exec(path)?.[1];
  const revised = /^(?:hf:)?[\w.-]+\/([\w.-]+)@[\w./-]+$/.exec(path)?.[1];
  return cached ?? revised ?? basename(path);
}

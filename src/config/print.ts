/** The resolved configuration as YAML: what `troupe config` prints and the run directory keeps. */
import { stringify } from 'yaml';
import type { RunConfig } from './schema.js';

/** YAML that `loadRunConfig` reads back to the same configuration. */
export function printConfig(config: RunConfig): string {
  return stringify(config, { lineWidth: 110 });
}

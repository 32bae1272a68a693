/** Options that several commands have. */
import { TroupeError } from '../config/errors.js';

/**
 * A text that may be given several times, one after each `--NAME`: without `nargs` the option would take the positional
 * arguments behind it too.
 */
export const repeated = (describe: string) =>
  ({ type: 'string', array: true, nargs: 1, default: [] as string[], describe }) as const;

const LAST_PORT = 65_535;

/** `--port`; `usual`: where it is not given. */
export const portOption = (usual: number) =>
  ({ type: 'number', default: usual, describe: 'Port on 127.0.0.1; 0 takes a free one' }) as const;

/** Throws a TroupeError for what is no port: yargs lets any number through. */
export function checkPort(port: number): void {
  if (Number.isInteger(port) && port >= 0 && port <= LAST_PORT) return;
  throw new TroupeError(`is ${port}; it takes a whole number from 0 to ${LAST_PORT}.`, { where: '--port' });
}

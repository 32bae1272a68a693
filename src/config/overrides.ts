/** `--set a.b=c`: one value of the configuration from the command line. The value is read as YAML. */
import { reasonOf, TroupeError } from './errors.js';
import { yamlOf } from './yaml.js';

export interface Override {
  path: string[];
  value: unknown;
  /** As it was typed. */
  text: string;
}

export function parseOverride(text: string): Override {
  const equals = text.indexOf('=');
  const path = text.slice(0, Math.max(equals, 0)).trim().split('.');
  if (equals < 1 || path.some((key) => !/^[\w-]+$/.test(key) || key === '__proto__')) {
    throw new TroupeError(
      `"${text}" sets nothing; it takes key=value, such as rollout.sampling.temperature=0.7.`,
      {
        where: '--set',
      },
    );
  }
  const written = text.slice(equals + 1);
  try {
    return { path, value: written.trim() === '' ? '' : yamlOf(written, text).value, text };
  } catch (error) {
    const reason = reasonOf((error as Error).cause ?? error);
    throw new TroupeError(`the value of "${text}" is not YAML: ${reason}.`, { where: '--set', cause: error });
  }
}

/** { a: { b: value } } */
export function overrideObject({ path, value }: Override): Record<string, unknown> {
  const [last, ...parents] = [...path].reverse();
  const innermost: Record<string, unknown> = { [last ?? '']: value };
  return parents.reduce<Record<string, unknown>>((inner, key) => ({ [key]: inner }), innermost);
}

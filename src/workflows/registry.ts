/** The workflows by name, each with the schema of its options, and users' files. */
import { TroupeError } from '../config/errors.js';
import { checkSchema, importUserModule } from '../config/import-module.js';
import { isFileName, unknownName } from '../config/nearest.js';
import { findPath } from '../config/package.js';
import { anySettings, checkEntry, type Entry, type Registry, type SectionPlace } from '../config/registry.js';
import type { RunConfig } from '../config/schema.js';
import { shownValue } from '../config/thrown.js';
import { shownFile } from '../config/user-code.js';
import { evalOpt } from './eval-opt.js';
import { orchWorkers } from './orch-workers.js';
import { findPromptFile, Prompts } from './prompts.js';
import { single } from './single.js';
import type { Workflow } from './types.js';
import { voting } from './voting.js';

/** A workflow and its options. */
interface Chosen {
  workflow: Workflow;
  options: Record<string, unknown>;
}

const own = [single, voting, evalOpt, orchWorkers];

export const workflows: Registry<Chosen> = {
  what: 'workflow',
  settings: 'options',
  entries: Object.fromEntries(own.map((workflow) => [workflow.name, entryOf(workflow)])),
  fromFile: async (file) => {
    const workflow = await importUserModule(file, {
      what: 'workflow',
      takes: 'an object { name, roles: [names], run: async function }',
      is: isWorkflow,
    });
    checkShape(workflow, shownFile(findPath(file)));
    return entryOf(workflow);
  },
};

function entryOf(workflow: Workflow): Entry<Chosen> {
  const make = (options: unknown) => ({ workflow, options: options as Record<string, unknown> });
  return { schema: workflow.options ?? anySettings, make };
}

/** A workflow as a run uses it. */
export interface OpenWorkflow {
  workflow: Workflow;
  /** Whom errors are about: "workflow voting", or the user's file. */
  where: string;
  options: Record<string, unknown>;
  /** undefined: it has no prompt file for this kind of task and makes its messages itself. */
  prompts: Prompts | undefined;
}

type Locate = SectionPlace['locate'];

/** `kind`: of the task. Throws a TroupeError for an unknown name, a wrong module or a wrong option. */
export async function openWorkflow(
  config: RunConfig['workflow'],
  kind: 'math' | 'code',
  locate?: Locate,
): Promise<OpenWorkflow> {
  const { workflow, where, options } = await checkWorkflow(config, locate);
  const file = findPromptFile(config.prompts, kind, workflow.name);
  if (file === undefined && own.includes(workflow)) {
    throw new TroupeError(`has no prompts for the workflow ${workflow.name} on ${kind} tasks.`, {
      where: config.prompts,
    });
  }
  return { workflow, where, options, prompts: file === undefined ? undefined : new Prompts(file) };
}

/** The workflow and its options, without its prompts. Throws as `openWorkflow` does. */
export async function checkWorkflow(
  config: RunConfig['workflow'],
  locate?: Locate,
): Promise<Omit<OpenWorkflow, 'prompts'>> {
  const { entry, settings, where } = await checkEntry(workflows, config, { path: ['workflow'], locate });
  return { ...(await entry.make(settings)), where };
}

/** What a user's workflow may leave out, and what its roles may be called. */
function checkShape({ roles, options, formats = {}, oracles }: Workflow, where: string): void {
  const twice = roles.find((role, i) => roles.indexOf(role) !== i);
  if (twice !== undefined) throw new TroupeError(`names the role "${twice}" twice.`, { where });
  const strange = roles.find((role) => !isFileName(role));
  if (strange !== undefined) {
    throw new TroupeError(`has a role "${strange}"; a role's name is one of a file too.`, { where });
  }
  checkSchema(options, where);
  for (const [role, format] of Object.entries(formats ?? {})) {
    if (!roles.includes(role)) throw unknownName('role', role, roles, `${where}: formats`);
    if (typeof format === 'function') continue;
    throw new TroupeError(`formats.${role} is ${shownValue(format)}; it takes a function.`, { where });
  }
  if (oracles !== undefined && typeof oracles !== 'function') {
    throw new TroupeError(`has oracles ${shownValue(oracles)}; it takes a function.`, { where });
  }
}

function isWorkflow(value: unknown): value is Workflow {
  const { name, roles, run } = (value ?? {}) as Partial<Workflow>;
  return (
    typeof name === 'string' &&
    Array.isArray(roles) &&
    roles.length > 0 &&
    [...roles].every((role) => typeof role === 'string') &&
    typeof run === 'function'
  );
}

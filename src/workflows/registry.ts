/** The workflow that a configuration names, its options checked: one of the four, or a user's file. */
import { checkSection, type KeyPath } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { importUserModule } from '../config/import-module.js';
import { isFileName, unknownName } from '../config/nearest.js';
import { findPath } from '../config/package.js';
import type { RunConfig } from '../config/schema.js';
import { shownFile, shownValue } from '../config/user-code.js';
import { evalOpt } from './eval-opt.js';
import { orchWorkers } from './orch-workers.js';
import { findPromptFile, Prompts } from './prompts.js';
import { single } from './single.js';
import type { Workflow } from './types.js';
import { voting } from './voting.js';

export const workflows: readonly Workflow[] = [single, voting, evalOpt, orchWorkers];

/** A workflow as a run uses it. */
export interface OpenWorkflow {
  workflow: Workflow;
  /** Whom errors are about: "workflow voting", or the user's file. */
  where: string;
  options: Record<string, unknown>;
  /** undefined: it has no prompt file for this kind of task and makes its messages itself. */
  prompts: Prompts | undefined;
}

type Locate = (path: KeyPath) => string | undefined;

/** `kind`: of the task. Throws a TroupeError for an unknown name, a wrong module or a wrong option. */
export async function openWorkflow(
  config: RunConfig['workflow'],
  kind: 'math' | 'code',
  locate?: Locate,
): Promise<OpenWorkflow> {
  const { workflow, where, options } = await checkWorkflow(config, locate);
  const file = findPromptFile(config.prompts, kind, workflow.name);
  if (file === undefined && workflows.includes(workflow)) {
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
  const workflow = await findWorkflow(config, locate);
  const where =
    config.module === undefined ? `workflow ${workflow.name}` : shownFile(findPath(config.module));
  if (workflow.options === undefined) return { workflow, where, options: config.options };
  const section = { path: 'workflow.options', ...(locate === undefined ? {} : { locate }) };
  return { workflow, where, options: checkSection(workflow.options, config.options, section) };
}

async function findWorkflow(config: RunConfig['workflow'], locate: Locate | undefined): Promise<Workflow> {
  if (config.module !== undefined) {
    const workflow = await importUserModule(config.module, {
      what: 'workflow',
      takes: 'an object { name, roles: [names], run: async function }',
      is: isWorkflow,
    });
    checkShape(workflow, shownFile(findPath(config.module)));
    return workflow;
  }
  const found = workflows.find((workflow) => workflow.name === config.name);
  if (found !== undefined) return found;
  const names = workflows.map((workflow) => workflow.name);
  throw unknownName('workflow', config.name, names, locate?.(['workflow', 'name']) ?? 'workflow.name');
}

/** What a user's workflow may leave out, and what its roles may be called. */
function checkShape({ roles, options, formats = {}, oracles }: Workflow, where: string): void {
  const twice = roles.find((role, i) => roles.indexOf(role) !== i);
  if (twice !== undefined) throw new TroupeError(`names the role "${twice}" twice.`, { where });
  const strange = roles.find((role) => !isFileName(role));
  if (strange !== undefined) {
    throw new TroupeError(`has a role "${strange}"; a role's name is one of a file too.`, { where });
  }
  if (options !== undefined && typeof options?.safeParse !== 'function') {
    throw new TroupeError(`has options ${shownValue(options)}; it takes a zod schema.`, { where });
  }
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
    roles.every((role) => typeof role === 'string') &&
    typeof run === 'function'
  );
}

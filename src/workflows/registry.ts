/** The workflow that a configuration names, its options checked: one of the four, or a user's file. */
import { checkSection, type KeyPath } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { importUserModule } from '../config/import-module.js';
import { unknownName } from '../config/nearest.js';
import { findPath } from '../config/package.js';
import type { RunConfig } from '../config/schema.js';
import { shownFile } from '../config/user-code.js';
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
    return importUserModule(config.module, {
      what: 'workflow',
      takes: 'an object { name, roles: [names], run: async function }',
      is: isWorkflow,
    });
  }
  const found = workflows.find((workflow) => workflow.name === config.name);
  if (found !== undefined) return found;
  const names = workflows.map((workflow) => workflow.name);
  throw unknownName('workflow', config.name, names, locate?.(['workflow', 'name']) ?? 'workflow.name');
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

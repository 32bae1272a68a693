/** The examples of a supervised start: what `supervisedCalls` makes of training problems of the configured parts. */
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import type { RunConfig } from '../config/schema.js';
import { createTask } from '../tasks/registry.js';
import type { Task } from '../tasks/types.js';
import { type OpenWorkflow, openWorkflow } from '../workflows/registry.js';
import { type SupervisedCall, supervisedCalls } from '../workflows/supervised.js';
import { randomStream } from './random.js';
import type { SftConfig } from './sft-schema.js';

export interface Part {
  task: Task;
  open: OpenWorkflow;
  weight: number;
  /** Roles whose examples are taken. */
  roles: readonly string[];
}

/** Episodes of a step that may give no example, for each that it takes. */
const TRIES = 1000;

/** Throws a TroupeError for a role that the part's workflow does not have. */
export async function openPart(part: SftConfig['data'][number]): Promise<Part> {
  const task = await createTask(part.task as RunConfig['task'], { strict: true });
  try {
    const open = await openWorkflow(part.workflow, task.kind);
    const known = open.workflow.roles;
    const roles = part.roles ?? known;
    const strange = roles.find((role) => !known.includes(role));
    if (strange !== undefined) throw unknownName('role', strange, known, 'data.roles');
    return { task, open, weight: part.weight, roles };
  } catch (error) {
    await task.close();
    throw error;
  }
}

function pickPart(parts: readonly Part[], random: () => number): Part {
  let rest = random() * parts.reduce((sum, part) => sum + part.weight, 0);
  for (const part of parts) {
    rest -= part.weight;
    if (rest < 0) return part;
  }
  return parts[parts.length - 1] as Part;
}

/**
 * At least `callsPerStep` examples from the training problems of this step. Throws a TroupeError where the parts give none:
 * no candidate is ever right with `wrongContext: 1`.
 */
export async function drawExamples(
  parts: readonly Part[],
  config: SftConfig,
  step: number,
): Promise<SupervisedCall[]> {
  const examples: SupervisedCall[] = [];
  for (let i = 0; examples.length < config.callsPerStep; i++) {
    if (i >= TRIES * config.callsPerStep) {
      throw new TroupeError(`${i} episodes gave ${examples.length} examples.`, {
        where: 'data',
        hint: 'Lower wrongContext, or teach other roles too.',
      });
    }
    const random = randomStream(config.seed, step, i);
    const { task, open, roles } = pickPart(parts, random);
    const problem = task.train(config.seed, step * config.callsPerStep + i);
    const options = { errorRate: config.wrongContext, random };
    const made = await supervisedCalls(open, problem, task, options);
    examples.push(...distinct(made.filter(({ role }) => roles.includes(role))));
  }
  return examples;
}

/** One of the examples that ask and answer the same: voting's generators do. */
function distinct(examples: readonly SupervisedCall[]): SupervisedCall[] {
  const text = ({ messages, response }: SupervisedCall) => JSON.stringify([messages, response]);
  return [...new Map(examples.map((example) => [text(example), example])).values()];
}

/** Types of workflows: how one task's episode routes role calls. A record here is written once, never changed. */
import type { z } from 'zod';
import type { Completion, Sampling } from '../engine/types.js';
import type { Grade, Problem, Task } from '../tasks/types.js';

/** One message of a call, as the chat template renders it. */
export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/** Where a call stands in its episode. */
export interface CallPlace {
  /** Parallel instance of the role, 0-based: voter 2 of 3 has slot 1. Default 0. */
  slot?: number;
  /** Round of the conversation, 0-based: a first revision has turn 1. Default 0. */
  turn?: number;
  /** Overrides of the run's sampling options for this call. */
  sampling?: Partial<Sampling>;
}

/** What a role answered. */
export interface Reply {
  text: string;
  finish: Completion['finish'];
  /** Index of the call in its episode. */
  call: number;
}

/** What a workflow function gets. */
export interface WorkflowContext {
  problem: Problem;
  task: Task;
  /** Sends the messages to the role's policy. Parallel calls: Promise.all. */
  call(role: string, messages: Message[], place?: CallPlace): Promise<Reply>;
  /** Renders the template `name` of the workflow's prompt file for this task, with the problem's fields added. */
  prompt(name: string, fields?: Record<string, unknown>): Message[];
  /** Counts something that the streams should show, e.g. count('judge.undecided'). */
  count(what: string): void;
  /**
   * Says that the workflow cannot read what call number `call` answered, such as a pick that names no candidate.
   * Counted as "ROLE.unparsed"; the call earns nothing (`learning.unread`).
   */
  unread(call: number): void;
  /** The workflow's own options from the configuration, e.g. { voters: 3 }. */
  options: Record<string, unknown>;
  /**
   * What call number `call` stands for, for the reward `own`: it says that `text` solves the problem, or with
   * `accepts` false that it does not. Graded after the episode; a call without a claim gets the outcome.
   */
  claim(call: number, text: string, accepts?: boolean): void;
}

/** What a workflow function returns. */
export interface WorkflowResult {
  /** Text that is graded. */
  answer: string;
}

/** A workflow: its roles and the function that runs one episode. A user's file exports one as default. */
export interface Workflow {
  name: string;
  /** Every role that the function may call. */
  roles: string[];
  /** What `workflow.options` of the configuration may hold, with defaults; without it, anything. */
  options?: z.ZodType<Record<string, unknown>>;
  run(context: WorkflowContext): Promise<WorkflowResult>;
  /** Whether a response of a role has the form that the workflow reads, by role. For the stream `signals`. */
  formats?: Record<string, (text: string, context: FormatContext) => boolean>;
  /** What the roles could have done, from graded episodes (oracles.ts). For the stream `signals`. */
  oracles?(episodes: readonly Episode[], options: Record<string, unknown>): RoleSignal[];
}

/** What telling the form of a response may need. */
export interface FormatContext {
  task: Task;
  /** The workflow's own options. */
  options: Record<string, unknown>;
}

/** One row of the stream `signals`, e.g. { role: 'aggregator', signal: 'regret', value: 0.1 }. */
export interface RoleSignal {
  /** null: about the workflow as a whole. */
  role: string | null;
  signal: string;
  /** null: could not be measured. */
  value: number | null;
}

/** One role call as recorded: everything that credit, training and the streams need. */
export interface RoleCall {
  role: string;
  slot: number;
  turn: number;
  policy: string;
  messages: Message[];
  prompt: Int32Array;
  /** How it was sampled: the run's settings, the role's, evaluation's, the call's own. */
  sampling: Sampling;
  completion: Completion;
  text: string;
  /** What the workflow claimed for this call (for the reward `own`), and whether the claim is right. */
  claimed?: { text: string; accepts: boolean };
  ownGrade?: Grade;
  /** Set if the workflow could not read it. */
  unread?: true;
}

/** One graded run of a workflow on one problem. */
export interface Episode {
  /** Step, index of the problem in the step, index of the sample of that problem. */
  step: number;
  problemIndex: number;
  sample: number;
  problem: Problem;
  calls: RoleCall[];
  answer: string;
  grade: Grade;
  counts: Record<string, number>;
  /** Set if the episode broke off; its calls get the outcome `grade` all the same. */
  error?: string;
}

/**
 * Runs one episode: gives the workflow its context, turns its calls into token requests, and records them. What
 * goes wrong in an episode (a prompt beyond the limit, a call that fails, a workflow that throws) breaks off that
 * episode alone. Grading comes after, for many episodes together (grading.ts).
 */
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import type { RunConfig } from '../config/schema.js';
import type { Completion, CompletionRequest } from '../engine/types.js';
import { policyOf, type ResolvedPolicy } from '../policies/routing.js';
import { rolePromptTokens, roleSampling } from '../policies/sampling.js';
import type { Problem, Task } from '../tasks/types.js';
import type { OpenWorkflow } from '../workflows/registry.js';
import type { CallPlace, Episode, Message, Reply, RoleCall, WorkflowContext } from '../workflows/types.js';
import type { PromptEncoder } from './conversation.js';

/** Sends one request to the engine. Aborting resolves with `finish: 'cancelled'`. */
export type Complete = (request: CompletionRequest, signal?: AbortSignal) => Promise<Completion>;

/** What all episodes of a run (or of an evaluation) have in common. */
export interface EpisodeSetting {
  open: OpenWorkflow;
  task: Task;
  policies: readonly ResolvedPolicy[];
  rollout: RunConfig['rollout'];
  /** Overrides of every role's sampling: evaluation's. */
  sampling?: RunConfig['evaluation']['sampling'];
  prompts: PromptEncoder;
}

export interface EpisodePlace {
  problem: Problem;
  step: number;
  /** Index of the problem in the step, and of the sample of that problem. */
  problemIndex: number;
  sample: number;
  /** Index of the episode in the step: with the step, what its random numbers come from. */
  index: number;
}

export type UngradedEpisode = Omit<Episode, 'grade'>;

/**
 * Resolves when the workflow has ended, well or not, and no call of it is under way. Rejects only if `signal`
 * was aborted, or if the engine failed in another way than refusing one request (a TroupeError): what such an
 * episode has is of no use, and neither would be the next one's.
 */
export async function runEpisode(
  place: EpisodePlace,
  setting: EpisodeSetting,
  complete: Complete,
  signal?: AbortSignal,
): Promise<UngradedEpisode> {
  const recorder = new Recorder(place, setting, complete, signal);
  let answer = '';
  let error: string | undefined;
  try {
    const result: unknown = await setting.open.workflow.run(recorder.context());
    answer = answerOf(result, setting.open.workflow.name);
  } catch (thrown) {
    error = thrown instanceof Error ? thrown.message : String(thrown);
  }
  const { calls, counts } = await recorder.close();
  signal?.throwIfAborted();
  recorder.throwEngineFailure();
  const { problem, step, problemIndex, sample } = place;
  return {
    step,
    problemIndex,
    sample,
    problem,
    calls,
    answer,
    counts,
    ...(error === undefined ? {} : { error }),
  };
}

/** Runs episodes side by side. `completeFor` gives each its way to the engine, by its index. */
export function runEpisodes(
  places: readonly EpisodePlace[],
  setting: EpisodeSetting,
  completeFor: (episode: number) => Complete,
  signal?: AbortSignal,
): Promise<UngradedEpisode[]> {
  return Promise.all(places.map((place) => runEpisode(place, setting, completeFor(place.index), signal)));
}

function answerOf(result: unknown, workflow: string): string {
  const answer = (result as { answer?: unknown } | undefined)?.answer;
  if (typeof answer === 'string') return answer;
  throw new TroupeError(`returned ${JSON.stringify(result)}; it takes { answer: text }.`, {
    where: `workflow ${workflow}`,
  });
}

/** The calls, counts and claims of one episode while it runs. */
class Recorder {
  readonly #place: EpisodePlace;
  readonly #setting: EpisodeSetting;
  readonly #complete: Complete;
  readonly #signal: AbortSignal | undefined;
  /** By the order of asking; undefined while under way, and for good where the call failed. */
  readonly #calls: (RoleCall | undefined)[] = [];
  readonly #pending: Promise<unknown>[] = [];
  readonly #places = new Set<string>();
  readonly #counts: Record<string, number> = {};
  #closed = false;
  #engineFailure: unknown;

  constructor(
    place: EpisodePlace,
    setting: EpisodeSetting,
    complete: Complete,
    signal: AbortSignal | undefined,
  ) {
    this.#place = place;
    this.#setting = setting;
    this.#complete = complete;
    this.#signal = signal;
  }

  context(): WorkflowContext {
    const { problem } = this.#place;
    const { task, open } = this.#setting;
    return {
      problem,
      task,
      options: open.options,
      call: (role, messages, place = {}) => {
        // Whoever still asks was left behind by the workflow: nobody would see an error, or it would end the process.
        if (this.#closed) return new Promise<never>(() => this.#count('call.late'));
        const reply = this.#call(role, messages, place);
        // The workflow may not await it; its failure must not end the process.
        this.#pending.push(reply.catch(() => undefined));
        return reply;
      },
      prompt: (name, fields = {}) => this.#prompt(name, fields),
      count: (what) => this.#count(what),
      claim: (call, text, accepts = true) => this.#claim(call, text, accepts),
      unread: (call) => this.#unread(call),
    };
  }

  /** Waits for calls that the workflow left behind, then takes no more. */
  async close(): Promise<{ calls: RoleCall[]; counts: Record<string, number> }> {
    this.#closed = true;
    await Promise.all(this.#pending);
    return { calls: this.#calls.filter((call) => call !== undefined), counts: this.#counts };
  }

  throwEngineFailure(): void {
    if (this.#engineFailure !== undefined) throw this.#engineFailure;
  }

  async #call(role: string, given: readonly Message[], place: CallPlace): Promise<Reply> {
    // A workflow may go on to push to its list.
    const messages = given.map(({ role: by, content }) => ({ role: by, content }));
    const { slot = 0, turn = 0 } = place;
    const roleIndex = this.#check(role, slot, turn);
    const index = this.#calls.push(undefined) - 1;
    const { policies, rollout, prompts, sampling: above = {} } = this.#setting;
    const sampling = roleSampling(rollout, role, { ...above, ...place.sampling });
    const { ids: prompt, broken } = prompts.encode(messages, this.#done());
    if (broken) this.#count('prefix.broken');
    this.#checkLength(role, prompt.length);

    const policy = policyOf(policies, role).name;
    const { step, index: episode } = this.#place;
    const request: CompletionRequest = {
      policy,
      prompt,
      sampling,
      counter: [step, episode, roleIndex, slot, turn],
    };
    const completion = await this.#send(request);
    const text = prompts.decode(completion.ids);
    this.#calls[index] = { role, slot, turn, policy, messages, prompt, completion, text };
    return { text, finish: completion.finish, call: index };
  }

  async #send(request: CompletionRequest): Promise<Completion> {
    try {
      return await this.#complete(request, this.#signal);
    } catch (error) {
      if (!(error instanceof TroupeError)) this.#engineFailure = error;
      throw error;
    }
  }

  /** Index of the role. Two calls of one place would draw the same random numbers. */
  #check(role: string, slot: number, turn: number): number {
    const { name, roles } = this.#setting.open.workflow;
    this.#signal?.throwIfAborted();
    const roleIndex = roles.indexOf(role);
    if (roleIndex < 0) throw unknownName('role', role, roles, `workflow ${name}`);
    const place = `${role}, slot ${slot}, turn ${turn}`;
    if (this.#places.has(place)) {
      throw new TroupeError(`called ${place} twice in one episode.`, {
        where: `workflow ${name}`,
        hint: 'Give every parallel call of a role its own slot and every later one its own turn.',
      });
    }
    this.#places.add(place);
    return roleIndex;
  }

  #checkLength(role: string, length: number): void {
    const limit = rolePromptTokens(this.#setting.rollout, role);
    if (length <= limit) return;
    this.#count('prompt.tooLong');
    throw new TroupeError(`the prompt of ${role} has ${length} tokens; the limit is ${limit}.`, {
      where: this.#place.problem.id,
      hint: 'rollout.promptTokens sets it.',
    });
  }

  #prompt(name: string, fields: Record<string, unknown>): Message[] {
    const { workflow, prompts } = this.#setting.open;
    if (prompts === undefined) {
      throw new TroupeError(`has no prompt file, so there is no template "${name}".`, {
        where: `workflow ${workflow.name}`,
        hint: 'Set workflow.prompts to a folder with KIND/WORKFLOW.yaml, or write the messages in the workflow.',
      });
    }
    // Not the right answer: a template could name it by mistake.
    const { answer: _, ...problem } = this.#place.problem;
    return prompts.render(name, { ...problem, ...fields });
  }

  #count(what: string): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
  }

  #claim(index: number, text: string, accepts: boolean): void {
    this.#answered(index).claimed = { text, accepts };
  }

  #unread(index: number): void {
    const call = this.#answered(index);
    call.unread = true;
    this.#count(`${call.role}.unparsed`);
  }

  /** What a workflow says something about. */
  #answered(index: number): RoleCall {
    const call = this.#calls[index];
    if (call !== undefined) return call;
    throw new TroupeError(`said something of call ${index}, which has not been answered.`, {
      where: `workflow ${this.#setting.open.workflow.name}`,
    });
  }

  #done(): RoleCall[] {
    return this.#calls.filter((call) => call !== undefined);
  }
}

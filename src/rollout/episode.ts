/**
 * Runs one episode: gives the workflow its context, turns its calls into token requests, and records them. What
 * goes wrong in an episode (a prompt beyond the limit, a call that fails, a workflow that throws) breaks off that
 * episode alone. Grading comes after, for many episodes together (grading.ts).
 */
import { z } from 'zod';
import { checkSection } from '../config/check.js';
import { TroupeError } from '../config/errors.js';
import { unknownName } from '../config/nearest.js';
import { readOnly } from '../config/read-only.js';
import { partialSampling } from '../config/schema/rollout.js';
import type { RunConfig } from '../config/schema.js';
import { shownValue } from '../config/thrown.js';
import { settled, userError } from '../config/user-code.js';
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
  const { workflow, where } = setting.open;
  let answer = '';
  let error: string | undefined;
  try {
    const running = Promise.race([workflow.run(recorder.context()), recorder.timeIsUp]);
    const result: unknown = await settled(running, {
      where,
      what: 'the workflow',
      signal,
      seconds: null, // Of its own time alone: OwnTime.
    });
    answer = answerOf(result, where);
  } catch (thrown) {
    error = userError(where, 'the workflow', thrown).message;
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

function answerOf(result: unknown, where: string): string {
  const answer = (result as { answer?: unknown } | undefined | null)?.answer;
  if (typeof answer === 'string') return answer;
  throw new TroupeError(`the workflow returned ${shownValue(result)}; it takes { answer: text }.`, { where });
}

/** Time of an episode's own, in which none of its calls is under way. */
class OwnTime {
  /** Rejects when the limit is reached; never without one. */
  readonly isUp: Promise<never>;
  #left: number;
  #since = 0;
  #calls = 0;
  #timer: NodeJS.Timeout | undefined;
  #reject: () => void = () => {};

  constructor(seconds: number | null, where: string) {
    this.#left = seconds === null ? Number.POSITIVE_INFINITY : seconds * 1000;
    this.isUp = new Promise((_resolve, reject) => {
      const hint = 'rollout.episodeSeconds sets the limit.';
      const message = `the workflow took more than ${seconds} seconds for an episode, its calls not counted.`;
      this.#reject = () => reject(new TroupeError(message, { where, hint }));
    });
    this.isUp.catch(() => undefined);
    this.#run();
  }

  callBegins(): void {
    if (this.#calls++ > 0) return;
    clearTimeout(this.#timer);
    this.#left -= performance.now() - this.#since;
  }

  callEnds(): void {
    if (--this.#calls === 0) this.#run();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#left = Number.POSITIVE_INFINITY;
  }

  #run(): void {
    this.#since = performance.now();
    if (this.#left < LONGEST_TIMER) this.#timer = setTimeout(this.#reject, this.#left).unref();
  }
}

/** `#check` says what is wrong with a slot and a turn. */
const placeSchema = z.strictObject({
  slot: z.unknown().optional(),
  turn: z.unknown().optional(),
  sampling: partialSampling.optional(),
}) as unknown as z.ZodType<CallPlace>;

/** Of a slot or a turn: what the streams' columns hold. */
const LAST_INDEX = 2 ** 31 - 1;
const isIndex = (value: unknown) =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= LAST_INDEX;

/** Node takes a longer time for none at all. */
const LONGEST_TIMER = 2 ** 31 - 1;

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
  readonly #counts = new Map<string, number>();
  readonly #ownTime: OwnTime;
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
    this.#ownTime = new OwnTime(setting.rollout.episodeSeconds, setting.open.where);
  }

  get timeIsUp(): Promise<never> {
    return this.#ownTime.isUp;
  }

  context(): WorkflowContext {
    const { task, open } = this.#setting;
    return {
      // Other samples have the same one, and it is graded by it.
      problem: readOnly(this.#place.problem),
      task,
      options: readOnly(open.options),
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
    this.#ownTime.stop();
    await Promise.all(this.#pending);
    return {
      calls: this.#calls.filter((call) => call !== undefined),
      counts: Object.fromEntries(this.#counts),
    };
  }

  throwEngineFailure(): void {
    if (this.#engineFailure !== undefined) throw this.#engineFailure;
  }

  async #call(role: string, given: readonly Message[], place: CallPlace): Promise<Reply> {
    const messages = this.#copied(given);
    const { slot = 0, turn = 0, sampling: own } = this.#checked(role, place);
    const roleIndex = this.#check(role, slot, turn);
    const index = this.#calls.push(undefined) - 1;
    const { policies, rollout, prompts, sampling: above = {} } = this.#setting;
    const sampling = roleSampling(rollout, role, { ...above, ...own });
    const { ids: prompt, broken } = prompts.encode(messages, this.#done(), role);
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
    this.#calls[index] = { role, slot, turn, policy, messages, prompt, sampling, completion, text };
    return { text, finish: completion.finish, call: index };
  }

  /** A key that is misspelt would change nothing, and nobody would know. */
  #checked(role: string, place: CallPlace): CallPlace {
    const { where } = this.#setting.open;
    return checkSection(placeSchema, place, { whole: `the place of a call of ${role}`, locate: () => where });
  }

  /** A workflow may go on to push to its list. */
  #copied(given: readonly Message[]): Message[] {
    const isMessage = (one: Message | undefined) =>
      typeof one?.role === 'string' && typeof one.content === 'string';
    // `every` passes over holes.
    if (Array.isArray(given) && [...given].every(isMessage)) {
      return given.map(({ role, content }) => ({ role, content }));
    }
    throw new TroupeError(`sent ${shownValue(given)}; a call takes a list of messages { role, content }.`, {
      where: this.#setting.open.where,
    });
  }

  async #send(request: CompletionRequest): Promise<Completion> {
    this.#ownTime.callBegins();
    try {
      return await this.#complete(request, this.#signal);
    } catch (error) {
      if (!(error instanceof TroupeError)) this.#engineFailure = error;
      throw error;
    } finally {
      this.#ownTime.callEnds();
    }
  }

  /** Index of the role. Two calls of one place would draw the same random numbers. */
  #check(role: string, slot: number, turn: number): number {
    const { where, workflow } = this.#setting.open;
    this.#signal?.throwIfAborted();
    const roleIndex = workflow.roles.indexOf(role);
    if (roleIndex < 0) throw unknownName('role', role, workflow.roles, where);
    if (!isIndex(slot) || !isIndex(turn)) {
      throw new TroupeError(
        `called ${role} at slot ${slot}, turn ${turn}; both are whole numbers from 0 to ${LAST_INDEX}.`,
        { where },
      );
    }
    const place = `${role}, slot ${slot}, turn ${turn}`;
    if (this.#places.has(place)) {
      throw new TroupeError(`called ${place} twice in one episode.`, {
        where,
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
      where: `problem ${this.#place.problem.id}`,
      hint: 'rollout.promptTokens sets it.',
    });
  }

  #prompt(name: string, fields: Record<string, unknown>): Message[] {
    const { where, prompts } = this.#setting.open;
    if (prompts === undefined) {
      throw new TroupeError(`has no prompt file, so there is no template "${name}".`, {
        where,
        hint: 'Set workflow.prompts to a folder with KIND/WORKFLOW.yaml, or write the messages in the workflow.',
      });
    }
    // Not the right answer, which its row may hold too: a template could name it by mistake.
    const { answer: _, columns: __, ...problem } = this.#place.problem;
    return prompts.render(name, { ...problem, ...fields });
  }

  #count(what: string): void {
    if (typeof what !== 'string') {
      throw new TroupeError(`counted ${shownValue(what)}; it takes a name.`, {
        where: this.#setting.open.where,
      });
    }
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  #claim(index: number, text: string, accepts: boolean): void {
    const call = this.#answered(index);
    if (typeof text !== 'string') {
      const { where } = this.#setting.open;
      throw new TroupeError(`claimed ${shownValue(text)} for call ${index}; it takes a text.`, { where });
    }
    call.claimed = { text, accepts };
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
      where: this.#setting.open.where,
    });
  }

  #done(): RoleCall[] {
    return this.#calls.filter((call) => call !== undefined);
  }
}

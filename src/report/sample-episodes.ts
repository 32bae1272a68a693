/**
 * Episodes that a page shows in full: at each step or evaluation the best and the worst of one problem, from the table
 * `calls` (of evaluations `evaluation_calls`), with what was asked and read from `episodes` and `prompts`
 * (`evaluation_prompts`), which older runs do not have.
 */
import type { Table } from 'apache-arrow';
import { columnsOf } from './table-rows.js';

export interface SampleCall {
  role: string;
  slot: number;
  turn: number;
  /** Null in evaluations, which learn nothing. */
  reward: number | null;
  advantage: number | null;
  tokens: number;
  finish: string;
  /** The messages that it answers. */
  prompt: string | null;
  /** Null where texts are not recorded. */
  text: string | null;
}

export interface SampleEpisode {
  step: number;
  problem: string;
  sample: number;
  reward: number;
  /** The grader's word for the verdict. */
  reason: string;
  /** Null where the run has no stream `episodes`. */
  question: string | null;
  rightAnswer: string | null;
  /** The final answer as the task reads it. */
  extracted: string | null;
  error: string | null;
  calls: SampleCall[];
}

export class SampleEpisodes {
  /** Whose episodes, as `episodes` names them. */
  readonly #phase: 'train' | 'evaluation';
  readonly #byStep = new Map<number, Sampled[]>();
  /** Looked into for the few episodes that are shown. */
  readonly #details: { episodes: Table[]; prompts: Table[] } = { episodes: [], prompts: [] };

  constructor(phase: 'train' | 'evaluation') {
    this.#phase = phase;
  }

  /** The rows of a step come together. */
  add(name: 'calls' | 'episodes' | 'prompts', table: Table): void {
    if (name !== 'calls') {
      this.#details[name].push(table);
      return;
    }
    const steps = new Map<number, Sampled[]>();
    for (const episode of episodesIn(table, this.#phase)) {
      const list = steps.get(episode.step) ?? [];
      steps.set(episode.step, list);
      list.push(episode);
    }
    for (const [step, episodes] of steps) this.#byStep.set(step, contrast(episodes, this.#phase));
  }

  /** Steps that have episodes, in order. */
  get steps(): number[] {
    return [...this.#byStep.keys()].sort((a, b) => a - b);
  }

  at(step: number): SampleEpisode[] {
    return (this.#byStep.get(step) ?? []).map((episode) => ({
      ...episode,
      ...this.#asked(episode),
      calls: episode.calls.map((call) => ({ ...call, prompt: this.#promptOf(step, call.promptIndex) })),
    }));
  }

  #asked({ step, problemIndex, sample }: Sampled): Asked {
    for (const table of this.#details.episodes) {
      const columns = columnsOf(table, ['step', 'phase', 'problem_index', 'sample'], TEXTS);
      for (let row = 0, rows = table.numRows; row < rows; row++) {
        if (columns.number('step', row) !== step || columns.text('phase', row) !== this.#phase) continue;
        if (columns.number('problem_index', row) !== problemIndex) continue;
        if (columns.number('sample', row) !== sample) continue;
        const [question = null, rightAnswer = null, extracted = null, error = null] = TEXTS.map((column) =>
          columns.text(column, row),
        );
        return { question, rightAnswer, extracted, error };
      }
    }
    return { question: null, rightAnswer: null, extracted: null, error: null };
  }

  #promptOf(step: number, index: number | null): string | null {
    if (index === null) return null;
    for (const table of this.#details.prompts) {
      const columns = columnsOf(table, ['step', 'prompt', 'text']);
      for (let row = 0, rows = table.numRows; row < rows; row++) {
        const found = columns.number('step', row) === step && columns.number('prompt', row) === index;
        if (found) return columns.text('text', row);
      }
    }
    return null;
  }
}

/** In the order of `Asked`. */
const TEXTS = ['question', 'right_answer', 'extracted', 'error'];
type Asked = Pick<SampleEpisode, 'question' | 'rightAnswer' | 'extracted' | 'error'>;

/** An episode as `calls` has it. */
interface Sampled extends Omit<SampleEpisode, keyof Asked | 'calls'> {
  problemIndex: number;
  calls: (Omit<SampleCall, 'prompt'> & { promptIndex: number | null })[];
}

function episodesIn(table: Table, phase: 'train' | 'evaluation'): Sampled[] {
  const columns = columnsOf(
    table,
    ['step', 'problem', 'problem_index', 'sample', 'role', 'slot', 'turn'],
    [
      'phase',
      'reward',
      'advantage',
      'response_tokens',
      'finish',
      'text',
      'episode_reward',
      'episode_reason',
      'prompt',
    ],
  );
  const number = (column: string, row: number) => columns.number(column, row) ?? 0;
  const text = (column: string, row: number) => columns.text(column, row) ?? '';
  const episodes = new Map<string, Sampled>();
  for (let row = 0, rows = table.numRows; row < rows; row++) {
    if ((columns.text('phase', row) ?? phase) !== phase) continue;
    const [step, sample] = [number('step', row), number('sample', row)];
    const problemIndex = number('problem_index', row);
    const key = `${step} ${problemIndex} ${sample}`;
    const episode = episodes.get(key) ?? {
      step,
      problemIndex,
      sample,
      problem: text('problem', row),
      reward: number('episode_reward', row),
      reason: text('episode_reason', row),
      calls: [],
    };
    episodes.set(key, episode);
    episode.calls.push({
      role: text('role', row),
      slot: number('slot', row),
      turn: number('turn', row),
      reward: columns.number('reward', row),
      advantage: columns.number('advantage', row),
      tokens: number('response_tokens', row),
      finish: text('finish', row),
      promptIndex: columns.number('prompt', row),
      text: columns.text('text', row),
    });
  }
  return [...episodes.values()];
}

/**
 * The best and the worst episode of the first problem whose episodes differ. Where none do, one; of an evaluation, which may
 * have one of each problem, the best and the worst of all.
 */
function contrast(episodes: readonly Sampled[], phase: 'train' | 'evaluation'): Sampled[] {
  const problems = new Map<string, Sampled[]>();
  for (const episode of episodes) {
    problems.set(episode.problem, [...(problems.get(episode.problem) ?? []), episode]);
  }
  const lists = [...problems.values(), ...(phase === 'evaluation' ? [episodes] : [])];
  for (const list of lists) {
    const best = list.reduce((one, other) => (other.reward > one.reward ? other : one));
    const worst = list.reduce((one, other) => (other.reward < one.reward ? other : one));
    if (best.reward > worst.reward) return [best, worst];
  }
  return episodes.slice(0, 1);
}

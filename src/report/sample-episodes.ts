/** Episodes that a page shows in full: at each step the best and the worst of one problem, from the table `calls`. */
import type { Table } from 'apache-arrow';
import { columnsOf } from './table-rows.js';

export interface SampleCall {
  role: string;
  slot: number;
  turn: number;
  reward: number;
  advantage: number;
  tokens: number;
  finish: string;
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
  calls: SampleCall[];
}

export class SampleEpisodes {
  readonly #byStep = new Map<number, SampleEpisode[]>();

  /** Rows of `calls`; those of a step come together. */
  add(table: Table): void {
    const steps = new Map<number, SampleEpisode[]>();
    for (const episode of episodesIn(table)) {
      const list = steps.get(episode.step) ?? [];
      steps.set(episode.step, list);
      list.push(episode);
    }
    for (const [step, episodes] of steps) this.#byStep.set(step, contrast(episodes));
  }

  /** Steps that have episodes, in order. */
  get steps(): number[] {
    return [...this.#byStep.keys()].sort((a, b) => a - b);
  }

  at(step: number): readonly SampleEpisode[] {
    return this.#byStep.get(step) ?? [];
  }
}

function episodesIn(table: Table): SampleEpisode[] {
  const columns = columnsOf(
    table,
    ['step', 'problem', 'problem_index', 'sample', 'role', 'slot', 'turn', 'reward', 'advantage'],
    ['response_tokens', 'finish', 'text', 'episode_reward', 'episode_reason'],
  );
  const number = (column: string, row: number) => columns.number(column, row) ?? 0;
  const text = (column: string, row: number) => columns.text(column, row) ?? '';
  const episodes = new Map<string, SampleEpisode>();
  for (let row = 0, rows = table.numRows; row < rows; row++) {
    const [step, sample] = [number('step', row), number('sample', row)];
    const key = `${step} ${number('problem_index', row)} ${sample}`;
    const episode = episodes.get(key) ?? {
      step,
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
      reward: number('reward', row),
      advantage: number('advantage', row),
      tokens: number('response_tokens', row),
      finish: text('finish', row),
      text: columns.text('text', row),
    });
  }
  return [...episodes.values()];
}

/** The best and the worst episode of the first problem whose episodes differ; one where none do. */
function contrast(episodes: readonly SampleEpisode[]): SampleEpisode[] {
  const problems = new Map<string, SampleEpisode[]>();
  for (const episode of episodes) {
    problems.set(episode.problem, [...(problems.get(episode.problem) ?? []), episode]);
  }
  for (const list of problems.values()) {
    const best = list.reduce((one, other) => (other.reward > one.reward ? other : one));
    const worst = list.reduce((one, other) => (other.reward < one.reward ? other : one));
    if (best.reward > worst.reward) return [best, worst];
  }
  return episodes.slice(0, 1);
}

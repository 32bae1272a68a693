/**
 * The records of a run that several ranks share: rank 0 writes them, with what all ranks have brought together, and
 * whatever it decides or reads back (a checkpoint, an alarm, a rollback) the others take from it.
 */
import { TroupeError } from '../config/errors.js';
import type { Ranks } from '../engine/ranks.js';
import type { Alarm } from '../judgement/alarms.js';
import type { Episode } from '../workflows/types.js';
import type { Evaluation } from './evaluate.js';
import type { Response, RestorePoint, RunRecorder, StartingPoint } from './recorder.js';
import type { StepRecord } from './steps.js';
import type { Trainer } from './trainer.js';

export class RankRecorder implements RunRecorder {
  readonly #ranks: Ranks;
  readonly #recorder: RunRecorder | undefined;

  /** `recorder`: rank 0's. */
  constructor(ranks: Ranks, recorder: RunRecorder | undefined) {
    this.#ranks = ranks;
    this.#recorder = recorder;
  }

  start(trainer: Trainer): Promise<StartingPoint> {
    return this.#lead('start of the run', (recorder) => recorder.start(trainer));
  }

  evaluation(step: number, evaluation: Evaluation): Promise<void> {
    return this.#lead('evaluation', (recorder) => recorder.evaluation(step, evaluation));
  }

  episodes(step: number, episodes: readonly Episode[]): Promise<void> {
    return this.#lead('episodes', (recorder) => recorder.episodes(step, episodes));
  }

  step(record: StepRecord): Promise<void> {
    return this.#lead('records of a step', (recorder) => recorder.step(record));
  }

  alarms(done: number, since: number): Promise<Alarm[]> {
    return this.#lead('alarms', (recorder) => recorder.alarms(done, since));
  }

  best(): Promise<RestorePoint | undefined> {
    return this.#lead('best checkpoint', (recorder) => recorder.best());
  }

  boundary(done: number, alarms: readonly Alarm[], response: Response): Promise<void> {
    return this.#lead('records of a boundary', (recorder) => recorder.boundary(done, alarms, response));
  }

  isBest(step: number): Promise<boolean> {
    return this.#lead('best checkpoint', (recorder) => recorder.isBest(step));
  }

  async checkpoint(trainer: Trainer, step: number): Promise<void> {
    const { whyBroken } = this.#ranks;
    if (whyBroken !== undefined) {
      throw new TroupeError(`${whyBroken} A part of the optimizer is lost with it.`, { where: 'checkpoint' });
    }
    await this.#checkEqual(trainer);
    await this.#lead('checkpoint', (recorder) => recorder.checkpoint(trainer, step));
  }

  saved(): string {
    return this.#recorder?.saved() ?? '';
  }

  progress(what: string): void {
    this.#recorder?.progress(what);
  }

  note(text: string): void {
    this.#recorder?.note(text);
  }

  #lead<T>(what: string, work: (recorder: RunRecorder) => Promise<T>): Promise<T> {
    return this.#ranks.lead(what, () => {
      if (this.#recorder === undefined) throw new Error('rank 0 has no recorder');
      return work(this.#recorder);
    });
  }

  /** Every rank makes the same steps with the same numbers: other parameters would be a fault of a machine or of ours. */
  async #checkEqual(trainer: Trainer): Promise<void> {
    if (this.#ranks.size === 1) return;
    const digest = ({ name }: { name: string }) => trainer.engine.send('digestPolicy', { policy: name });
    const digests = await this.#ranks.together('digests', () => Promise.all(trained(trainer).map(digest)));
    const [first = []] = digests;
    for (const [i, { name }] of trained(trainer).entries()) {
      const other = digests.findIndex((its) => its[i] !== first[i]);
      if (other < 0) continue;
      throw new TroupeError(`ranks 0 and ${other} have come to different parameters.`, {
        where: `policy ${name}`,
        hint: 'Use machines of one kind; on those, resume from the last checkpoint and report it.',
      });
    }
  }
}

const trained = ({ policies }: Trainer) => policies.filter(({ freeze }) => !freeze);

/** Writes a training run into its run directory: streams, timings, checkpoints; and tells a person how it goes. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Change } from '../config/changes.js';
import { percent } from '../config/percent.js';
import type { RunConfig } from '../config/schema.js';
import type { EngineStatistics } from '../engine/protocol.js';
import { type Alarm, findAlarms } from '../judgement/alarms.js';
import { History } from '../judgement/history.js';
import { accuracyOf } from '../judgement/paired.js';
import { type Verdict, verdict } from '../judgement/verdict.js';
import {
  bestCheckpoint,
  heldPolicyFile,
  listCheckpoints,
  policyFile,
  pruneCheckpoints,
  saveCheckpoint,
} from '../runs/checkpoint.js';
import {
  describeFileChanges,
  type FileDigest,
  keepFiles,
  readFileRecord,
  writeFileRecord,
} from '../runs/file-record.js';
import { keepModel } from '../runs/model-record.js';
import { Progress } from '../runs/progress.js';
import { addStreams } from '../runs/read-history.js';
import type { RunDirectory } from '../runs/run-directory.js';
import { Sinks } from '../runs/sinks/sinks.js';
import { keepSplit } from '../runs/split-record.js';
import { RunStreams } from '../streams/run-streams.js';
import type { Episode } from '../workflows/types.js';
import { describeAlarms, recordAlarms } from './alarms.js';
import type { Evaluation } from './evaluate.js';
import { saveLoopState } from './loop-state.js';
import {
  brokenOff,
  failedRewards,
  filteredCalls,
  idleGroups,
  memoryNotes,
  silentRewards,
  throwIfAllBrokeOff,
} from './notices.js';
import { besideNow, lateFiles, ownFiles } from './own-files.js';
import type { Response, RestorePoint, RunRecorder, StartingPoint } from './recorder.js';
import {
  type EpisodePhase,
  recordEpisodes,
  recordEvaluation,
  recordSignals,
  recordStep,
  type SignalSource,
} from './records.js';
import type { StepRecord } from './steps.js';
import type { Trainer } from './trainer.js';

export class DirectoryRecorder implements RunRecorder {
  readonly #directory: RunDirectory;
  readonly #config: RunConfig;
  #streams: RunStreams | undefined;
  #sinks: Sinks | undefined;
  #progress: Progress | undefined;
  #trainer: Trainer | undefined;
  #files: FileDigest[] = [];
  readonly #history = new History();
  /** Accuracy of the parameters as they are, where they were just evaluated. */
  #evaluated: { step: number; accuracy: number | null } | undefined;
  /** Lines that a person needs only once. */
  readonly #said = new Set<string>();
  #started = false;
  #before: EngineStatistics | undefined;
  /** Of the KV cache, as last told. */
  #toldTokens = 0;
  #takenOver = NONE_TAKEN_OVER;
  /** What the checkpoint that this process wrote last says of the loop. */
  #saved: string | undefined;
  #stepStarted = performance.now();
  #processorBefore = process.cpuUsage();
  /** Seconds of work between steps, written with the next step's timings. */
  #evaluationSeconds = 0;
  #checkpointSeconds = 0;

  constructor(directory: RunDirectory, config: RunConfig) {
    this.#directory = directory;
    this.#config = config;
  }

  async start(trainer: Trainer): Promise<StartingPoint> {
    const { folder, checkpoint, aside } = this.#directory;
    const words = {
      roles: trainer.open.workflow.roles,
      policies: trainer.policies.map(({ name }) => name),
    };
    this.#trainer = trainer;
    const split = await trainer.task.split?.();
    if (split !== undefined) keepSplit(folder, split, checkpoint !== undefined);
    await keepModel(folder, trainer.model.folder, checkpoint !== undefined);
    for (const { name, freeze } of checkpoint === undefined ? [] : trainer.policies) {
      if (!freeze) heldPolicyFile(checkpoint?.folder ?? '', name);
    }
    this.#streams = RunStreams.resume(folder, words, checkpoint?.streams, aside);
    const edited = await this.#keepFiles(trainer, checkpoint?.step ?? 0);
    if (checkpoint !== undefined) {
      addStreams(this.#history, folder);
      this.#evaluated = { step: checkpoint.step, accuracy: checkpoint.score };
    }
    this.#started = true;
    const done = checkpoint?.step ?? 0;
    const evaluated = this.#history.evaluations.some(({ step }) => step === done);
    const kept = { step: checkpoint === undefined ? -1 : done, evaluated };
    const sinks = Sinks.open(folder, this.#config.sinks, kept, aside);
    this.#sinks = sinks;
    this.#streams.observe = (table, rows) => {
      this.#history.add(table, rows);
      sinks.add(table, rows);
    };
    this.#progress = new Progress({ label: 'train', total: this.#config.steps, unit: 'step', done });
    if (edited.length > 0)
      this.note(
        `since the run last ran ${describeFileChanges(edited)}; it goes on with what is there now (changes.json)`,
      );
    if (existsSync(aside)) this.note(`what lay behind step ${done} was moved to ${aside}`);
    this.#before = await trainer.engine.send('statistics', null);
    this.#stepStarted = performance.now();
    this.#processorBefore = process.cpuUsage();
    return { step: done, ...(checkpoint && { checkpoint }) };
  }

  /** Those too that the last process loaded late, which this one may still load. */
  async #keepFiles(trainer: Trainer, step: number): Promise<Change[]> {
    const { folder } = this.#directory;
    const files = await ownFiles(trainer);
    const late = (readFileRecord(folder) ?? []).filter(({ late }) => late === true);
    const pairs = await besideNow(late, files);
    const later = pairs.filter(({ now }) => !files.includes(now));
    this.#files = [...files, ...later.map(({ now }) => ({ ...now, late: true as const }))];
    return keepFiles(folder, this.#files, step);
  }

  #keepLateFiles(trainer: Trainer): void {
    const late = lateFiles(trainer, this.#files);
    if (late.length === 0) return;
    this.#files = [...this.#files, ...late];
    writeFileRecord(this.#directory.folder, this.#files);
  }

  /** The rows belong to the boundary. */
  async evaluation(step: number, evaluation: Evaluation): Promise<void> {
    const { episodes, greedy: atZero } = evaluation;
    this.#episodes(step, 'evaluation', episodes);
    if (atZero !== undefined) this.#episodes(step, 'greedy', atZero.episodes);
    this.#evaluated = { step, accuracy: evaluation.accuracy.mean };
    recordEvaluation(this.#open(), step, evaluation);
    await this.#open().sync();
    this.#sinks?.write('evaluation');
    this.#evaluationSeconds += evaluation.seconds;
    const { mean, low, high, total } = evaluation.accuracy;
    const greedy =
      evaluation.greedy === undefined ? '' : `, greedy ${percent(evaluation.greedy.accuracy.mean)}`;
    this.#progress?.note(
      `step ${step}: accuracy ${percent(mean)} (95 % interval ${percent(low)} to ${percent(high)}, ${total} held-out episodes)${greedy}`,
    );
  }

  async episodes(step: number, episodes: readonly Episode[]): Promise<void> {
    this.#episodes(step, 'train', episodes);
    for (const line of filteredCalls(episodes, this.#config.rollout)) {
      if (!this.#said.has(line)) this.note(line);
      this.#said.add(line);
    }
  }

  #episodes(step: number, phase: EpisodePhase, episodes: readonly Episode[]): void {
    const where = phase === 'train' ? `step ${step}` : `evaluation after step ${step}`;
    recordEpisodes(this.#open(), step, phase, episodes, this.#source().task);
    throwIfAllBrokeOff(episodes, where);
    const broken = brokenOff(episodes);
    if (broken !== undefined) this.note(`${where}: ${broken}`);
    if (phase !== 'greedy') recordSignals(this.#open(), step, phase, episodes, this.#source());
  }

  progress(what: string): void {
    this.#progress?.within(what);
  }

  saved(): string {
    const last = listCheckpoints(this.#directory.folder).at(-1);
    return last === undefined
      ? 'nothing is saved: --resume with --restart begins again'
      : `the run goes on from step ${last.step}, which is saved`;
  }

  note(text: string): void {
    this.#progress?.note(text);
  }

  async step(record: StepRecord): Promise<void> {
    const streams = this.#open();
    const started = performance.now();
    recordStep(streams, record);
    await this.#timings(record, (performance.now() - started) / 1000);
    await streams.endStep();
    this.#sinks?.write('train');
    if (this.#trainer !== undefined) this.#keepLateFiles(this.#trainer);
    const reward = record.episodes.reduce((sum, { grade }) => sum + grade.reward, 0) / record.episodes.length;
    for (const { policy, result } of record.updates) {
      if (result.memoryRestarts === 0) continue;
      this.#progress?.note(
        `step ${record.step}: memory ran out ${result.memoryRestarts} times in the update of ${policy}: its ` +
          `micro-batches have at most ${result.microBatchRows} rows from now on`,
      );
    }
    const skipped = record.updates.filter(({ result }) => result.skipped !== undefined);
    for (const { result } of skipped)
      this.#progress?.note(`step ${record.step}: update skipped: ${result.skipped}`);
    const failed = failedRewards(record.calls);
    if (failed !== undefined) this.note(`step ${record.step}: ${failed}`);
    const silent = silentRewards(record.calls);
    if (silent !== undefined) this.note(`step ${record.step}: ${silent}`);
    const values = { reward: reward.toFixed(3), ...normsOf(record), ...idleGroups(record) };
    this.#progress?.update(record.step + 1, values);
  }

  async alarms(done: number, since: number): Promise<Alarm[]> {
    return findAlarms(this.#history, this.#config.alarms, { since }, done);
  }

  async best(): Promise<RestorePoint | undefined> {
    return bestCheckpoint(listCheckpoints(this.#directory.folder));
  }

  async boundary(done: number, alarms: readonly Alarm[], response: Response): Promise<void> {
    recordAlarms(this.#open(), alarms, response);
    await this.#open().endStep();
    const { restoredStep, rateFactor } = response;
    if (restoredStep !== null) this.#evaluated = undefined;
    if (alarms.length === 0) return;
    const after =
      restoredStep === null ? '' : `; back to step ${restoredStep}, learning rates × ${rateFactor}`;
    this.note(`step ${done}: alarm: ${describeAlarms(alarms)}${after}`);
  }

  async isBest(step: number): Promise<boolean> {
    if (this.#evaluated?.step !== step) return false;
    const { alarms, checkpoints } = this.#config;
    // A rollback may go back to where training began; else that is the model, which needs no checkpoint.
    const first = alarms.onAlarm === 'rollback' ? 0 : checkpoints.keepBest ? 1 : Number.POSITIVE_INFINITY;
    if (step < first) return false;
    const evaluations = this.#history.evaluations.filter((one) => one.step >= first);
    const accuracies = evaluations.map(({ correct }) => accuracyOf(correct) ?? 0);
    const last = accuracies.pop() ?? 0;
    return accuracies.every((accuracy) => accuracy < last);
  }

  async checkpoint(trainer: Trainer, step: number): Promise<void> {
    const started = performance.now();
    const place = JSON.stringify([step, saveLoopState(trainer.state)]);
    if (this.#saved === place) return;
    const score = this.#evaluated?.step === step ? this.#evaluated.accuracy : null;
    const state = { step, score, trainer: saveLoopState(trainer.state) };
    await saveCheckpoint(this.#directory.folder, this.#open(), state, async (folder) => {
      for (const { name, freeze } of trainer.policies) {
        if (freeze) continue;
        await trainer.ranks.everywhere('exportPolicy', {
          policy: name,
          folder: join(folder, 'policies', name),
        });
        await trainer.ranks.everywhere('savePolicy', { policy: name, file: policyFile(folder, name) });
      }
    });
    this.#saved = place;
    pruneCheckpoints(this.#directory.folder, this.#config.checkpoints.keep);
    this.#checkpointSeconds += (performance.now() - started) / 1000;
  }

  /** How the run went so far. */
  verdict(): Verdict {
    return verdict(this.#history, this.#config.alarms);
  }

  /** A new run that could not even start leaves nothing behind. */
  close(): void {
    this.#progress?.finish();
    this.#streams?.close();
    if (this.#started) this.#directory.release();
    else this.#directory.discard();
  }

  #source(): SignalSource {
    if (this.#trainer === undefined) throw new Error('the run was not started');
    const { open, task } = this.#trainer;
    return { open, task, history: this.#history };
  }

  #open(): RunStreams {
    if (this.#streams === undefined) throw new Error('the run was not started');
    return this.#streams;
  }

  async #timings(record: StepRecord, statisticsSeconds: number): Promise<void> {
    const statistics = await this.#trainer?.engine.send('statistics', null);
    const before = this.#before;
    if (statistics === undefined || before === undefined) return;
    const { notes, toldTokens } = memoryNotes(record.step, this.#toldTokens, before, statistics);
    this.#toldTokens = toldTokens;
    for (const note of notes) this.note(note);
    const processor = process.cpuUsage(this.#processorBefore);
    const results = record.updates.map(({ result }) => result);
    const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
    const [now, earlier] = [statistics.traffic ?? NO_TRAFFIC, before.traffic ?? NO_TRAFFIC];
    const { problems, seconds } = this.#trainer?.ranks.takenOver ?? NONE_TAKEN_OVER;
    const row = {
      step: record.step,
      ended: Date.now(),
      total_seconds: (performance.now() - this.#stepStarted) / 1000,
      processor_seconds: (processor.user + processor.system) / 1e6,
      rollout_seconds: record.rolloutSeconds,
      forward_seconds: sum(results.map((result) => result.forwardSeconds)),
      backward_seconds: sum(results.map((result) => result.backwardSeconds)),
      extra_rows_seconds: sum(
        results.map(({ extraRows, tokensComputed, forwardSeconds, backwardSeconds }) =>
          tokensComputed === 0 ? 0 : (extraRows / tokensComputed) * (forwardSeconds + backwardSeconds),
        ),
      ),
      optimizer_seconds: sum(results.map((result) => result.optimizerSeconds)),
      statistics_seconds: statisticsSeconds + sum(results.map((result) => result.statisticsSeconds)),
      evaluation_seconds: this.#evaluationSeconds,
      checkpoint_seconds: this.#checkpointSeconds,
      prefill_tokens: statistics.tokensPrefilled - before.tokensPrefilled,
      cached_tokens: statistics.tokensCached - before.tokensCached,
      decode_tokens: statistics.tokensDecoded - before.tokensDecoded,
      communication_seconds: now.seconds - earlier.seconds,
      waiting_seconds: now.waitingSeconds - earlier.waitingSeconds,
      communication_bytes: now.bytes - earlier.bytes,
      problems_taken_over: problems - this.#takenOver.problems,
      taken_over_seconds: seconds - this.#takenOver.seconds,
      memory: process.memoryUsage.rss(),
      memory_peak: statistics.peakMemory,
      device_memory_peak: statistics.devicePeak,
    };
    this.#takenOver = { problems, seconds };
    this.#open().append('timings', [row]);
    this.#before = statistics;
    this.#stepStarted = performance.now();
    this.#processorBefore = process.cpuUsage();
    this.#evaluationSeconds = 0;
    this.#checkpointSeconds = 0;
  }
}

const NONE_TAKEN_OVER = { problems: 0, seconds: 0 };

/** Of a run without other ranks. */
const NO_TRAFFIC = { seconds: 0, waitingSeconds: 0, bytes: 0, ncclBytes: 0 };

/** Gradient norm of each policy's last update of the step, for the progress line. */
function normsOf(record: StepRecord): Record<string, string> {
  return Object.fromEntries(
    record.updates.map(({ policy, result }) => [`‖g ${policy}‖`, result.gradients.totalNorm.toPrecision(2)]),
  );
}

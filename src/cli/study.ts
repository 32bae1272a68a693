/** `troupe study MATRIX`: trains every cell of a matrix, in slices or at one go, and compares them. */
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { divertOutput } from '../config/user-code.js';
import { StopSignals } from '../learning/stop-signals.js';
import { type Cell, loadStudy, type Study, selectCells } from '../learning/study/matrix.js';
import { resultsOf, writeResults } from '../learning/study/results.js';
import { type CellStatus, hasEnded, runCells } from '../learning/study/run-cells.js';
import { repeated } from './options.js';
import { StudyProgress } from './study-progress.js';
import { summaryLines } from './study-summary.js';

interface Arguments {
  matrix: string;
  folder: string | undefined;
  set: string[];
  only: string[];
  slice: string | undefined;
  jobs: number | undefined;
  devices: string | undefined;
  list: boolean;
  results: boolean;
}

export const studyCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('matrix', {
        type: 'string',
        demandOption: true,
        describe: 'File of the matrix (docs/study.md)',
      })
      .option('folder', { type: 'string', describe: 'Folder of the study; one that exists is continued' })
      .option('set', repeated('Override a key in every cell, e.g. --set steps=20'))
      .option('only', repeated('Only cells with this value, e.g. --only workflow=voting --only seed=0,1'))
      .option('slice', { type: 'string', describe: 'Only one part of the cells, e.g. 2/4' })
      .option('jobs', { type: 'number', describe: 'Cells at a time; default: 1, or the number of devices' })
      .option('devices', {
        type: 'string',
        describe: 'CUDA devices, dealt out to the jobs, e.g. 0,1,2,3',
      })
      .option('list', { type: 'boolean', default: false, describe: 'List the cells, run none' })
      .option('results', {
        type: 'boolean',
        default: false,
        describe: 'Write and show the results so far, run nothing',
      }),
  handler: async (args) => {
    const loaded = await load(args);
    const study = { ...loaded, folder: args.folder ?? loaded.folder };
    const cells = selectCells(study, args);
    if (args.list) list(study, cells);
    else if (args.results) finish(study);
    else await run(study, cells, args);
  },
};

/** Workflows are imported, which may be users' files that print. */
async function load({ matrix, set }: Arguments): Promise<Study> {
  using _output = divertOutput();
  return await loadStudy(matrix, set);
}

function list({ folder, cells: all }: Study, cells: readonly Cell[]): void {
  for (const cell of cells) console.log(`${hasEnded(folder, cell) ? 'ended   ' : 'waiting '} ${cell.id}`);
  console.log(`${cells.length} of ${all.length} cells, in ${folder}`);
}

async function run(study: Study, cells: readonly Cell[], args: Arguments): Promise<void> {
  const devices = args.devices?.split(',').filter((device) => device !== '') ?? [];
  const jobs = args.jobs ?? Math.max(1, devices.length);
  if (!Number.isInteger(jobs) || jobs < 1) {
    throw new TroupeError(`${args.jobs} is no number of cells at a time; it takes 1 to ${cpus().length}.`, {
      where: '--jobs',
    });
  }
  using signals = new StopSignals();
  const progress = new StudyProgress(study.folder);
  let statuses: CellStatus[];
  try {
    statuses = await runCells({
      folder: study.folder,
      cells,
      jobs,
      devices,
      command: [process.execPath, fileURLToPath(new URL('main.js', import.meta.url))],
      onChange: (all, changed) => progress.show(all, changed),
      signal: signals.abort,
    });
  } finally {
    progress.end();
  }
  finish(study);
  // An error that no code waited for stopped the cells, not a person.
  if (signals.abort.aborted && signals.received === undefined) throw signals.abort.reason;
  for (const { cell, error } of statuses.filter(({ state }) => state === 'failed')) {
    console.error(`${cell.id} failed: ${error} (${study.folder}/logs/${cell.id}.log)`);
    process.exitCode = 1;
  }
  for (const { cell, error } of statuses.filter(({ state }) => state === 'stopped')) {
    if (error !== undefined) console.error(`${cell.id} was stopped before it could save: ${error}`);
  }
  const left = study.cells.filter((cell) => !hasEnded(study.folder, cell)).length;
  if (left > 0) console.log(`${left} cells are left; the same command goes on with them.`);
}

/** The results of all cells, also those that ran elsewhere or before. */
function finish(study: Study): void {
  const results = resultsOf(study.folder, study.cells);
  if (results.length === 0) {
    console.log(`No cell of ${study.folder} has begun.`);
    return;
  }
  writeResults(study.folder, results, study.axes);
  for (const line of summaryLines(results, study.axes)) console.log(line);
  console.log(`tables   ${study.folder}/results.arrow, measures.arrow (docs/study.md)`);
  console.log(`pictures npx troupe report ${study.folder}`);
}

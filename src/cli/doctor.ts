/**
 * `troupe doctor`: what of this machine Troupe can use, and what is missing. Each part is looked at by itself, so
 * that one that fails does not hide the others.
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { cpus, freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { CommandModule } from 'yargs';
import { packageRoot } from '../config/package.js';
import { minorVersion } from '../engine/load.js';
import type { CudaProblems } from '../engine/native.js';
import type { Probe } from '../engine/probe.js';
import { type SandboxStatus, sandboxStatus } from '../tasks/sandbox.js';

const run = promisify(execFile);

/** Minor versions of libtorch that all tests were run with, and those that some were (docs/cuda.md says which). */
const TESTED = ['2.13'];
const TESTED_IN_PART = ['2.11', '2.14'];

type Tested = 'tested' | 'tested in part' | 'not tested';

export interface Report {
  troupe: string;
  node: string;
  libtorch: {
    /** null, with the loader's own words in `problem`, if the addon cannot be loaded. */
    version: string | null;
    tested: boolean;
    compiledAgainst: string | null;
    folder: string | null;
    problem: string | null;
  };
  /** "cpu", "cuda:0", …; the names of the processor and of the driver's GPUs beside them. */
  devices: string[];
  cuda: CudaProblems;
  processor: string;
  gpus: string[];
  threads: number | null;
  /** Whether the processor multiplies bfloat16 itself. */
  bf16: boolean | null;
  sandbox: SandboxStatus;
  /** Bytes. */
  memory: { free: number; total: number };
  /** Bytes free where the working directory lies. */
  disk: { free: number; folder: string };
  /** What to do, one sentence each; empty when all is well. */
  advice: string[];
}

interface Arguments {
  python: string | undefined;
  json: boolean;
}

export const doctorCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .option('python', { type: 'string', describe: 'Interpreter for the sandbox, as task.python' })
      .option('json', { type: 'boolean', default: false, describe: 'Print JSON' }),
  handler: async ({ python, json }) => {
    const report = await examine(python);
    console.log(json ? JSON.stringify(report) : printReport(report));
    if (report.libtorch.version === null) process.exitCode = 1;
  },
};

/** Looks at everything. Never throws. */
export async function examine(python?: string): Promise<Report> {
  const [probe, gpus, sandbox, disk] = await Promise.all([
    probeAddon(),
    listGpus(),
    sandboxStatus(python),
    statfs(process.cwd()),
  ]);
  return reportOf(probe, { gpus, sandbox, disk: { free: disk.bavail * disk.bsize, folder: process.cwd() } });
}

/** What was found, the addon's part of it or why it cannot be loaded first. */
export function reportOf(
  probe: Probe | Error,
  { gpus, sandbox, disk }: Pick<Report, 'gpus' | 'sandbox' | 'disk'>,
): Report {
  const found = probe instanceof Error ? undefined : probe;
  const version = found?.torchVersion ?? null;
  const report = {
    troupe: JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version as string,
    node: process.versions.node,
    libtorch: {
      version,
      tested: version !== null && testedWith(version) === 'tested',
      compiledAgainst: found?.compiledTorchVersion ?? null,
      folder: found?.library === undefined ? null : dirname(dirname(found.library)),
      problem: probe instanceof Error ? probe.message : null,
    },
    devices: found === undefined ? [] : ['cpu', ...found.cudaDevices],
    cuda: found?.cudaProblems ?? {},
    processor: cpus()[0]?.model.trim() ?? 'unknown processor',
    gpus,
    threads: found?.threads ?? null,
    bf16: found?.bf16 ?? null,
    sandbox,
    memory: memory(),
    disk,
  };
  return { ...report, advice: advise(report) };
}

function testedWith(version: string): Tested {
  if (TESTED.includes(minorVersion(version))) return 'tested';
  return TESTED_IN_PART.includes(minorVersion(version)) ? 'tested in part' : 'not tested';
}

/** Bytes, within the limit of a container: without one, Node gives 0 or a number beyond all memory. */
function memory(): Report['memory'] {
  const limit = process.constrainedMemory();
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem();
  return { free: Math.min(freemem(), total), total };
}

/** Loads the addon in a child process: a library that crashes must be a finding, not the end of the report. */
async function probeAddon(): Promise<Probe | Error> {
  const file = join(packageRoot(), 'build', 'js', 'engine', 'probe.js');
  if (!existsSync(file)) return new Error(`${file} is missing. Run 'npm run build' in ${packageRoot()}.`);
  try {
    return JSON.parse((await run(process.execPath, [file])).stdout) as Probe;
  } catch (error) {
    const { stderr, signal } = error as { stderr?: string; signal?: string };
    const what = signal ? `loading the addon ended with ${signal}` : stderr?.trim().split('\n').at(-1);
    return new Error(what || String(error));
  }
}

/** Names of the GPUs that the driver shows; empty without one. */
async function listGpus(): Promise<string[]> {
  try {
    const { stdout } = await run('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader']);
    return stdout.trim().split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

function advise({ libtorch, devices, cuda, gpus, sandbox }: Omit<Report, 'advice'>): string[] {
  const advice: string[] = [];
  if (libtorch.problem !== null) advice.push(libtorch.problem);
  if (libtorch.version !== null && !libtorch.tested) {
    const { version } = libtorch;
    advice.push(
      `libtorch ${version} was ${testedWith(version)} with Troupe; ${TESTED.join(', ')} was in whole.`,
    );
  }
  if (gpus.length > 0 && libtorch.version !== null && devices.length === 1) {
    advice.push(
      `The driver shows a GPU, but it is not used: ${cuda.device ?? 'libtorch sees none.'} Where libtorch is a build without CUDA, remove the folder libtorch/, or set LIBTORCH to a CUDA build, and run 'npm run build:native'.`,
    );
  }
  if (sandbox.problem !== undefined) advice.push(`Code tasks refuse to start: ${sandbox.problem}`);
  return advice.concat(sandbox.warnings.map((warning) => `In the sandbox, ${warning}`));
}

function cudaRow({ libtorch, devices, cuda }: Report): string {
  if (libtorch.version === null) return 'unknown';
  const missing = Object.values(cuda);
  if (missing.length > 0) return missing.join(' ');
  return devices.length > 1 ? "Troupe's own kernels, NCCL" : 'libtorch sees no GPU';
}

const GIBIBYTE = 2 ** 30;
const gibibytes = (bytes: number) => (bytes / GIBIBYTE).toFixed(1);

export function printReport(report: Report): string {
  const { libtorch, sandbox, memory, disk } = report;
  const bf16 = report.bf16 ? "the processor's own" : 'emulated: slower than float32';
  const rows: [string, string][] = [
    ['Troupe', `${report.troupe}, Node ${report.node}`],
    [
      'libtorch',
      libtorch.version === null
        ? 'cannot be loaded'
        : `${libtorch.version} (${testedWith(libtorch.version)}), ${libtorch.folder}`,
    ],
    ['devices', report.devices.join(', ') || 'none'],
    ['CUDA', cudaRow(report)],
    ['processor', report.processor],
    ['GPUs', report.gpus.join(', ') || 'none'],
    ['threads', String(report.threads ?? 'unknown')],
    ['bf16', report.bf16 === null ? 'unknown' : bf16],
    ['sandbox', sandbox.works ? `works: ${sandbox.bubblewrap}, ${sandbox.python}` : 'does not work'],
    ['memory', `${gibibytes(memory.free)} of ${gibibytes(memory.total)} GiB free`],
    ['disk', `${gibibytes(disk.free)} GiB free in ${disk.folder}`],
  ];
  const lines = rows.map(([name, value]) => `${name.padEnd(10)} ${value}`);
  return [...lines, ...report.advice.map((sentence) => `\n${sentence}`)].join('\n');
}

/**
 * Compiles every CUDA kernel with nvcc for the architectures of a prebuild and fails where one spills registers or needs
 * a stack: both are slow, and neither is meant. Needs no GPU. `node scripts/check-cuda.mjs [90]`
 */

import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNvcc } from './native.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, 'native', 'kernels', 'cuda');

function compile(nvcc, file, architectures, object) {
  const targets = architectures.map((a) => `-gencode=arch=compute_${a},code=sm_${a}`);
  const args = [
    '-std=c++17',
    '-O3',
    '-Xptxas',
    '-v',
    `-I${join(root, 'native')}`,
    ...targets,
    '-c',
    file,
    '-o',
    object,
  ];
  return new Promise((resolve) => {
    const child = spawn(nvcc, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    child.stderr.on('data', (data) => {
      text += data;
    });
    child.on('close', (status) => resolve({ status, text }));
  });
}

/** The kernels that ptxas reports a stack frame or spills of, with their architecture. */
function faults(text) {
  const found = [];
  let kernel = '';
  for (const line of text.split('\n')) {
    const name = /Compiling entry function '(\S+)' for '(\S+)'/.exec(line);
    if (name) kernel = `${name[1]} on ${name[2]}`;
    const bytes = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (bytes?.slice(1).some((number) => number !== '0')) found.push(`${kernel}: ${line.trim()}`);
  }
  return found;
}

async function main(architectures) {
  const nvcc = findNvcc();
  if (nvcc === undefined) {
    console.log('No nvcc: the CUDA kernels were not compiled for GPUs.');
    return 0;
  }
  const scratch = mkdtempSync(join(tmpdir(), 'troupe-cuda-'));
  const files = readdirSync(folder).filter((name) => name.endsWith('.cu'));
  const waiting = [...files];
  const failures = [];
  let kernels = 0;
  const work = async () => {
    for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
      const { status, text } = await compile(
        nvcc,
        join(folder, file),
        architectures,
        join(scratch, `${file}.o`),
      );
      if (status !== 0) failures.push(`${file} did not compile:\n${text}`);
      kernels += [...text.matchAll(/Compiling entry function/g)].length;
      failures.push(...faults(text).map((fault) => `${file}: ${fault}`));
    }
  };
  await Promise.all(cpus().map(work));
  rmSync(scratch, { recursive: true });
  for (const failure of failures) console.error(failure);
  console.log(
    `${files.length} files, ${kernels} kernels for sm_${architectures.join(', sm_')}: ${failures.length} that spill, need a stack or do not compile.`,
  );
  return failures.length;
}

const failures = await main(process.argv.length > 2 ? process.argv.slice(2) : ['80', '90', '100']);
process.exitCode = Math.min(failures, 1);

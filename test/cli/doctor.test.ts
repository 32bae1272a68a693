/** What `troupe doctor` says of the libtorch that it found, and of its CUDA. */
import { describe, expect, it } from 'vitest';
import { printReport, reportOf } from '../../src/cli/doctor.js';
import type { Probe } from '../../src/engine/probe.js';

const probe: Probe = {
  torchVersion: '2.13.0+cu130',
  compiledTorchVersion: '2.13.0',
  library: '/torch/lib/libtorch_cpu.so',
  cudaDevices: ['cuda:0'],
  cudaProblems: {},
  threads: 2,
  bf16: true,
};

/** The rows of the report by their names, and its advice. */
function doctor(over: Partial<Probe>, gpus = ['NVIDIA H100 80GB HBM3']) {
  const sandbox = { works: true, bubblewrap: 'bwrap', python: 'python3', warnings: [] };
  const report = reportOf({ ...probe, ...over }, {
    gpus,
    sandbox,
    disk: { free: 0, folder: '/' },
  } as Parameters<typeof reportOf>[1]);
  const [table = '', ...advice] = printReport(report).split('\n\n');
  const rows = Object.fromEntries(table.split('\n').map((row) => [row.slice(0, 10).trim(), row.slice(11)]));
  return { rows, advice, report };
}

describe('libtorch and CUDA', () => {
  it.each([
    ['2.10.0+cu128', 'not tested'],
    ['2.11.0+cu130', 'tested in part'],
    ['2.12.1+cu130', 'not tested'],
    ['2.13.0+cu130', 'tested'],
    ['2.14.1+cu130', 'tested in part'],
    ['2.15.0', 'not tested'],
  ])('%s is %s, whose CUDA is used all the same', (torchVersion, tested) => {
    const { rows, advice, report } = doctor({ torchVersion });
    expect(rows.libtorch).toBe(`${torchVersion} (${tested}), /torch`);
    expect(rows.CUDA).toBe("Troupe's own kernels, NCCL");
    expect(report.libtorch.tested).toBe(tested === 'tested');
    const sentence = `libtorch ${torchVersion} was ${tested} with Troupe; 2.13 was in whole.`;
    expect(advice).toEqual(tested === 'tested' ? [] : [sentence]);
  });

  it('what is missing for GPUs is said, whatever the version', () => {
    for (const torchVersion of ['2.11.0+cu130', '2.13.0+cu130', '2.14.1+cu130']) {
      const kernels = 'there is no /a/troupe_cuda.so: on GPUs plain ATen operators are used.';
      expect(doctor({ torchVersion, cudaProblems: { kernels } }).rows.CUDA).toBe(kernels);
      const device = 'there is no NVIDIA driver (libcuda.so.1).';
      const { rows, advice } = doctor({ torchVersion, cudaDevices: [], cudaProblems: { device } });
      expect(rows.CUDA).toBe(device);
      expect(advice.at(-1)).toContain(`The driver shows a GPU, but it is not used: ${device}`);
    }
  });
});

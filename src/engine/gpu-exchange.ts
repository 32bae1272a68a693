/**
 * How the GPUs of several ranks exchange tensors: by NCCL where all can, else by way of the CPUs' memory and gloo
 * (docs/distributed.md).
 */

/** Of one rank. */
export interface RankGpu {
  /** What it computes on. */
  device: string;
  /** Why NCCL is not to be had, a sentence; '' where it is. */
  problem: string;
}

/** Why not by NCCL, a sentence; '': no rank has a GPU; undefined: nothing is against it. */
export function whyNotNccl(ranks: readonly RankGpu[]): string | undefined {
  const onCpu = ranks.flatMap(({ device }, rank) => (device === 'cpu' ? [rank] : []));
  if (onCpu.length === ranks.length) return '';
  if (onCpu.length > 0) return `rank ${onCpu[0]} computes on the CPU.`;
  const without = ranks.findIndex(({ problem }) => problem !== '');
  return without < 0 ? undefined : `rank ${without} has no NCCL: ${ranks[without]?.problem}`;
}

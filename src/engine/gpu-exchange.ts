/**
 * How the GPUs of several ranks exchange tensors: by NCCL where each rank has NCCL and a GPU of its own, else by way of the
 * CPUs' memory and gloo (docs/distributed.md).
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';

/** What decides, of one rank. */
export interface RankGpu {
  /** Its GPU, which no two ranks may share; undefined: it computes on the CPU. */
  card: string | undefined;
  /** Why NCCL is not to be had, a sentence; '' where it is. */
  problem: string;
}

/** The GPU that this process calls `device` ("cuda:1"): its machine, and its number among all that are there. */
export function cardOf(device: string, environment: NodeJS.ProcessEnv): string | undefined {
  if (!device.startsWith('cuda')) return undefined;
  const index = Number(device.split(':')[1] ?? 0);
  const visible = environment.CUDA_VISIBLE_DEVICES?.split(',')[index]?.trim();
  return `${machine()} ${visible ?? index}`;
}

/** The same for all processes of a machine, whatever container they are in, and for no other machine. */
function machine(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return hostname();
  }
}

/** What all ranks do, given what each of them is; `notice`: what a person should know of it. */
export function exchangeOf(ranks: readonly RankGpu[]): { nccl: boolean; notice?: string } {
  const cards = ranks.map(({ card }) => card);
  if (cards.every((card) => card === undefined)) return { nccl: false };
  const why = whyNotNccl(ranks, cards);
  if (why === undefined) return { nccl: true };
  const notice = `what the ranks' GPUs exchange goes by way of the CPUs' memory, which is slow: ${why} (docs/distributed.md)`;
  return { nccl: false, notice };
}

function whyNotNccl(ranks: readonly RankGpu[], cards: readonly (string | undefined)[]): string | undefined {
  const onCpu = cards.indexOf(undefined);
  if (onCpu >= 0) return `rank ${onCpu} computes on the CPU.`;
  const without = ranks.findIndex(({ problem }) => problem !== '');
  if (without >= 0) return `rank ${without} has no NCCL: ${ranks[without]?.problem}`;
  const second = cards.findIndex((card, rank) => cards.indexOf(card) < rank);
  if (second < 0) return undefined;
  return `ranks ${cards.indexOf(cards[second])} and ${second} compute on one GPU.`;
}

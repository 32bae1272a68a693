/**
 * A flat vector, as long as a policy's parameters, of which each rank has one part (ZeRO-1: masters, moments, averages of
 * gradients). A rank that trains alone has all of it. Every call that says so is a collective.
 */
import type { NativeParameterSet } from './native-model.js';
import type { ProcessGroup } from './process-group.js';
import { scope } from './scope.js';
import { noGrad, Tensor } from './tensor.js';

/** Elements that travel at a time: bounds what a rank holds beside its own part. */
const PIECE = 2 ** 24;

/** Elements [from, to) of the whole vector; a rank's part of it is where its shard overlaps, with padding at the end. */
export interface Range {
  from: number;
  to: number;
}

export class Sharding {
  readonly group: ProcessGroup;
  readonly #set: NativeParameterSet;

  constructor(set: NativeParameterSet, group: ProcessGroup) {
    this.#set = set;
    this.group = group;
  }

  get whole(): Range {
    return { from: 0, to: this.#set.size };
  }

  /** The two ranges of the optimizer: with weight decay and without. */
  get ranges(): [Range, Range] {
    const { decaySize, size } = this.#set;
    return [
      { from: 0, to: decaySize },
      { from: decaySize, to: size },
    ];
  }

  /** Length of this rank's part. */
  lengthOf(range: Range): number {
    const { shardBegin, shardSize } = this.#set;
    const to = range.to === this.#set.size ? Number.POSITIVE_INFINITY : range.to;
    return Math.max(0, Math.min(to, shardBegin + shardSize) - Math.max(range.from, shardBegin));
  }

  /** This rank's parts of the two ranges, as views of its shard. */
  parts(shard: Tensor): [Tensor, Tensor] {
    const decayed = this.lengthOf(this.ranges[0]);
    return [shard.narrow(0, 0, decayed), shard.narrow(0, decayed, this.#set.shardSize - decayed)];
  }

  /** Elements of the whole vector [size], from every rank's shard. A collective. */
  gathered(name: string, shard: Tensor): Tensor {
    const { size, shardBegin, shardSize } = this.#set;
    if (this.group.size === 1) return shard.narrow(0, 0, size);
    const { dtype, device } = shard;
    const buffer = Tensor.zeros([shardSize * this.group.size], { dtype, device });
    noGrad(() => buffer.narrow(0, shardBegin, shardSize).copy_(shard));
    this.group.allGather(name, [buffer]);
    return buffer.narrow(0, 0, size);
  }

  /** Gives `take` the range's elements in order, piece by piece, of which this rank has `part`. A collective. */
  forPieces(name: string, range: Range, part: Tensor, take: (piece: Tensor) => void): void {
    const { shardBegin, shardSize } = this.#set;
    const { rank, size } = this.group;
    const origin = Math.max(range.from, shardBegin);
    for (let owner = 0; owner < size; owner++) {
      const end = Math.min(range.to, (owner + 1) * shardSize);
      for (let at = Math.max(range.from, owner * shardSize); at < end; at += PIECE) {
        const length = Math.min(PIECE, end - at);
        scope(() => {
          const piece = owner === rank ? part.narrow(0, at - origin, length) : emptyLike(part, length);
          this.group.broadcast(name, [piece], owner);
          take(piece);
        });
      }
    }
  }

  /**
   * This rank's part, like `shard`, of a range that rank 0 has whole: `source` [to − from], undefined on the others. A
   * collective.
   */
  scattered(name: string, range: Range, source: Tensor | undefined, shard: Tensor): Tensor {
    if (this.group.size === 1) return source as Tensor;
    const { shardBegin, shardSize } = this.#set;
    const part = emptyLike(shard, this.lengthOf(range));
    for (let at = range.from; at < range.to; at += PIECE) {
      const length = Math.min(PIECE, range.to - at);
      scope(() => {
        const piece = emptyLike(shard, length);
        noGrad(() => source && piece.copy_(source.narrow(0, at - range.from, length)));
        this.group.broadcast(name, [piece], 0);
        const begin = Math.max(at, shardBegin);
        const count = Math.min(at + length, shardBegin + shardSize) - begin;
        if (count <= 0) return;
        const into = part.narrow(0, begin - Math.max(range.from, shardBegin), count);
        noGrad(() => into.copy_(piece.narrow(0, begin - at, count)));
      });
    }
    return part;
  }
}

const emptyLike = ({ dtype, device }: Tensor, length: number) => Tensor.zeros([length], { dtype, device });

/** What tensors take of a device's memory. */

/** Bytes of each of `count` tensors. */
export interface Tensors {
  bytes: number;
  count: number;
}

export interface MemoryNeed {
  name: string;
  tensors: Tensors[];
}

/** Bytes on a device whose allocator takes `block(bytes)` for a tensor. */
export const bytesOf = ({ tensors }: MemoryNeed, block: (bytes: number) => number): number =>
  tensors.reduce((sum, { bytes, count }) => sum + count * block(bytes), 0);

/** What the CPU's allocator takes: eight steps to each power of two, from 2 MiB on in huge pages (`size_class` in native/memory). */
export function cpuBlock(bytes: number): number {
  const least = bytes < 2 ** 16 ? 1 : bytes < 2 ** 21 ? 2 ** 14 : 2 ** 21;
  const unit = Math.max(least, 2 ** Math.floor(Math.log2(Math.max(1, bytes))) / 8);
  return Math.ceil(bytes / unit) * unit;
}

export const one = (name: string, bytes: number): MemoryNeed => ({ name, tensors: [{ bytes, count: 1 }] });

export const totalOf = (needs: readonly MemoryNeed[], block: (bytes: number) => number): number =>
  needs.reduce((sum, need) => sum + bytesOf(need, block), 0);

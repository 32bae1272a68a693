/** What tests see and say of products that recur (native/kernels/cuda/measured_products.cc). */
import { native } from '../../src/engine/native.js';
import type { NativeTensor } from '../../src/engine/native-model.js';

/** As kernels::MeasuredProduct. */
export interface MeasuredProduct {
  inputs: number;
  outputs: number;
  rows: number;
  offered: number;
  refused: number;
  wrong: number;
  /** −1: the usual way. */
  chosen: number;
  /** Microseconds; 0: nothing was to be compared. */
  usual: number;
  taken: number;
}

export interface ProductKernels {
  linear(x: NativeTensor, weight: NativeTensor): NativeTensor;
  recurringLinear(x: NativeTensor, weight: NativeTensor, alike: NativeTensor[]): NativeTensor;
  measuredProducts(): MeasuredProduct[];
  dispose(): void;
}

export interface PlantedProduct {
  kind: 'right' | 'wrong' | 'incomplete' | 'refuses' | 'refuses later';
  microseconds: number;
  /** Of one that refuses later: which call is the first that it refuses. */
  calls?: number;
}

const addon = native() as unknown as {
  kernels(name: string): ProductKernels;
  plantProducts(usual: number, products: PlantedProduct[]): void;
  plantedRuns(): number[];
};

export const productKernels = (name: string): ProductKernels => addon.kernels(name);

/** On the emulation: the ways to compute every product beside the usual one, which takes 100 µs. */
export const plantProducts = (...products: PlantedProduct[]) => addon.plantProducts(100, products);

/** How often each of them was taken, measuring included. */
export const plantedRuns = () => addon.plantedRuns();

/** What was measured of each, and how often. */
export function measured(name: string): MeasuredProduct[] {
  const kernels = productKernels(name);
  try {
    return kernels.measuredProducts();
  } finally {
    kernels.dispose();
  }
}

/**
 * Inverse frequencies of rotary embeddings with their scalings, as transformers' modeling_rope_utils computes
 * them: default, linear, llama3 (Llama 3.1) and yarn (arXiv 2309.00071).
 */
import { z } from 'zod';

const positive = z.number().positive();

const defaultRope = z.object({ rope_type: z.literal('default'), rope_theta: positive });
const linearRope = z.object({ rope_type: z.literal('linear'), rope_theta: positive, factor: positive });
const llama3Rope = z.object({
  rope_type: z.literal('llama3'),
  rope_theta: positive,
  factor: positive,
  low_freq_factor: positive,
  high_freq_factor: positive,
  original_max_position_embeddings: positive,
});
const yarnRope = z.object({
  rope_type: z.literal('yarn'),
  rope_theta: positive,
  factor: positive,
  original_max_position_embeddings: positive,
  attention_factor: positive.nullish(),
  beta_fast: positive.nullish(),
  beta_slow: positive.nullish(),
  mscale: z.number().nullish(),
  mscale_all_dim: z.number().nullish(),
  truncate: z.boolean().nullish(),
});

/** The `rope_parameters` entry of transformers 5, which the reader makes of transformers 4's keys too. */
export const ropeSchema = z.discriminatedUnion('rope_type', [defaultRope, linearRope, llama3Rope, yarnRope]);
export type RopeParameters = z.output<typeof ropeSchema>;

export interface Rope {
  /** [headDim / 2], radians per position. */
  inverseFrequencies: Float64Array;
  /** Factor on cos and sin. */
  scaling: number;
}

export function rope(parameters: RopeParameters, headDim: number): Rope {
  const base = Float64Array.from(
    { length: headDim / 2 },
    (_, i) => parameters.rope_theta ** ((-2 * i) / headDim),
  );
  switch (parameters.rope_type) {
    case 'default':
      return { inverseFrequencies: base, scaling: 1 };
    case 'linear':
      return { inverseFrequencies: base.map((frequency) => frequency / parameters.factor), scaling: 1 };
    case 'llama3':
      return { inverseFrequencies: base.map((frequency) => llama3(frequency, parameters)), scaling: 1 };
    case 'yarn':
      return yarn(base, headDim, parameters);
  }
}

/** Long wavelengths are stretched by `factor`, short ones kept, those between interpolated. */
function llama3(frequency: number, parameters: z.output<typeof llama3Rope>): number {
  const { factor, low_freq_factor: low, high_freq_factor: high } = parameters;
  const turns = (parameters.original_max_position_embeddings * frequency) / (2 * Math.PI);
  if (turns > high) return frequency;
  if (turns < low) return frequency / factor;
  const smooth = (turns - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

function yarn(base: Float64Array, headDim: number, parameters: z.output<typeof yarnRope>): Rope {
  const { rope_theta: theta, factor, original_max_position_embeddings: context } = parameters;
  const dimension = (rotations: number) =>
    (headDim * Math.log(context / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const truncate = parameters.truncate ?? true;
  const lowest = dimension(parameters.beta_fast ?? 32);
  const highest = dimension(parameters.beta_slow ?? 1);
  const low = Math.max(truncate ? Math.floor(lowest) : lowest, 0);
  const high = Math.min(truncate ? Math.ceil(highest) : highest, headDim - 1);
  // As the source does, so that the ramp has no division by zero.
  const span = high === low ? 0.001 : high - low;
  const inverseFrequencies = base.map((frequency, i) => {
    const kept = 1 - Math.min(1, Math.max(0, (i - low) / span));
    return (frequency / factor) * (1 - kept) + frequency * kept;
  });
  return { inverseFrequencies, scaling: parameters.attention_factor ?? yarnScaling(parameters) };
}

function yarnScaling({ factor, mscale, mscale_all_dim: mscaleAll }: z.output<typeof yarnRope>): number {
  const scale = (m: number) => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
  return mscale && mscaleAll ? scale(mscale) / scale(mscaleAll) : scale(1);
}

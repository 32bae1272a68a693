/**
 * What a policy would have said in each place of given texts: log p of what stands there, and the likeliest tokens. For
 * programs that score answers (learning/serving); the training step needs neither.
 */
import type { NextTurn, RowLimit } from './memory.js';
import type { NativePolicy } from './native-model.js';
import { scope } from './scope.js';
import { noGrad, Tensor } from './tensor.js';
import { packed } from './training.js';
import type { LikeliestTokens, TrainCall } from './types.js';

/** Rows of one pass: its activations live at once. */
const ROWS = 4096;

type Asked = Pick<TrainCall, 'prompt' | 'response' | 'temperature'>;

/** One record per call, in their order. Throws the kernels' sentence for a token that is not in the vocabulary. */
export async function likeliestTokens(
  policy: NativePolicy,
  calls: readonly Asked[],
  { count, limit }: { count: number; limit: RowLimit },
  nextTurn: NextTurn,
): Promise<LikeliestTokens[]> {
  const none = { advantage: 0, weight: 0, group: 0 };
  const asCalls = calls.map((call) => ({ ...call, ...none, rolloutLogprobs: new Float32Array() }));
  return await limit.inMicroBatches(asCalls, ROWS, (part) => measured(policy, part, count), nextTurn);
}

function measured(policy: NativePolicy, calls: readonly TrainCall[], count: number): LikeliestTokens[] {
  return noGrad(() =>
    scope(() => {
      const batch = packed(policy, calls, 1);
      try {
        const outputs = policy.likeliestTokens(batch, 1, count);
        const logprobs = Float32Array.from(Tensor.wrap(outputs.logprobs).toArray());
        const ids = Int32Array.from(Tensor.wrap(outputs.ids).toArray());
        const values = Float32Array.from(Tensor.wrap(outputs.values).toArray());
        return calls.map((_, i) => {
          const from = batch.callStarts[i] ?? 0;
          const to = batch.callStarts[i + 1] ?? 0;
          return {
            logprobs: logprobs.slice(from, to),
            ids: ids.slice(from * count, to * count),
            values: values.slice(from * count, to * count),
          };
        });
      } finally {
        batch.dispose();
      }
    }),
  );
}

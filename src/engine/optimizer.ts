/** temporary */
import { native } from './native.js';
import { Tensor } from './tensor.js';

interface Group {
  parameters: Tensor[];
  gradients: Tensor[];
  learningRate: number;
  weightDecay: number;
}
export class AdamW {
  readonly #groups: Group[];
  readonly #o: { betas: [number, number]; eps: number };
  readonly #state: Tensor[][];
  stepCount = 0;
  constructor(groups: Group[], options: { betas: [number, number]; eps: number }) {
    this.#groups = groups;
    this.#o = options;
    this.#state = groups.map(({ parameters }) =>
      parameters.flatMap((p) => [Tensor.zeros(p.shape), Tensor.zeros(p.shape)]),
    );
  }
  setLearningRate(rate: number): void {
    for (const group of this.#groups) group.learningRate = rate;
  }
  step(): void {
    this.stepCount++;
    for (const [i, group] of this.#groups.entries()) {
      const [m, v] = this.#state[i] as [Tensor, Tensor];
      const step = Tensor.from([this.stepCount], []);
      native().call('aten::_fused_adamw_', '', [
        group.parameters.map((t) => t.native),
        group.gradients.map((t) => t.native),
        [m.native],
        [v.native],
        [],
        [step.native],
        group.learningRate,
        this.#o.betas[0],
        this.#o.betas[1],
        group.weightDecay,
        this.#o.eps,
        false,
        false,
      ]);
      step.dispose();
    }
  }
  state(): Record<string, Tensor> {
    return Object.fromEntries(
      this.#state.flatMap(([m, v], i) => [
        [`exp_avg_${i}`, m as Tensor],
        [`exp_avg_sq_${i}`, v as Tensor],
      ]),
    );
  }
  loadState(state: Record<string, Tensor>, stepCount: number): void {
    for (const [name, tensor] of Object.entries(this.state())) tensor.copy_(state[name] as Tensor);
    this.stepCount = stepCount;
  }
}
export function clipGradNorm(gradients: Tensor[], maxNorm: number): number {
  const [g] = gradients as [Tensor];
  const norm = Math.sqrt(g.mul(g).sum().item());
  if (norm > maxNorm) g.mul_(maxNorm / norm);
  return norm;
}

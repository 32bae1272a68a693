/** Measured times of a step's parts (step-probe.ts), and what follows from them for other sizes. */

/** Seconds by rows, with rising rows. */
export type Curve = { rows: number; seconds: number }[];

/** Of an update of one rank: two micro-batches of some and of more rows, or one; what comes after the last. */
export interface TrainingCosts {
  batches: { rows: number; forward: number; backward: number }[];
  statistics: number;
  optimizer: number;
  /** Gradients and parameters between ranks, as far as they are waited for beside all that. */
  exchange: number;
  /** Accumulators that are zeroed and given back, messages. */
  rest: number;
}

/** Everything in seconds; linear in the layers of the model. */
export interface StepCosts {
  /** Of an iteration of the rollout in which sequences decode, each with `context` tokens before it. */
  decode: Curve;
  context: number;
  /** Of each token more that one of them has. */
  perKey: number;
  /** Of one in which prompts are computed. */
  prefill: Curve;
  /** Of the first one after an update. */
  packing: number;
  /** Of a call beside its iterations: its messages to the engine and back, its place in the cache. */
  perCall: number;
  /** Of the whole rollout, where it is short enough to be run; else the times above say what it takes. */
  rollout?: number;
  /** Of what ranks tell each other of their calls. */
  records: number;
  /** By policy. */
  training: Record<string, TrainingCosts>;
}

/** Between points by a straight line, and beyond the last along the one through the last two. */
export function at(curve: Curve, rows: number): number {
  const [first, ...rest] = curve;
  if (first === undefined) return 0;
  if (rest.length === 0) return (first.seconds * rows) / first.rows;
  const next = Math.max(
    1,
    curve.findIndex((point) => point.rows >= rows),
  );
  const right = curve[rows > (curve.at(-1)?.rows ?? 0) ? curve.length - 1 : next] as Curve[number];
  const left = curve[curve.indexOf(right) - 1] as Curve[number];
  const share = (rows - left.rows) / (right.rows - left.rows);
  return Math.max(0, left.seconds + share * (right.seconds - left.seconds));
}

/** Of a model of `layers`, from those of two with fewer: everything is a constant and a part for each layer. */
export function withLayers(
  layers: number,
  [fewer, a]: readonly [number, StepCosts],
  [more, b]: readonly [number, StepCosts],
): StepCosts {
  const share = (layers - fewer) / (more - fewer);
  const line = (x: number, y: number) => Math.max(0, x + share * (y - x));
  // Sizes were chosen as the smaller model allows; the larger may have fewer of them.
  const curve = (x: Curve, y: Curve): Curve =>
    y.map(({ rows, seconds }) => ({ rows, seconds: line(at(x, rows), seconds) }));
  const of = (costs: TrainingCosts, part: 'forward' | 'backward'): Curve =>
    costs.batches.map(({ rows, [part]: seconds }) => ({ rows, seconds }));
  const training = Object.entries(b.training).map(([name, y]): [string, TrainingCosts] => {
    const x = a.training[name] ?? y;
    const forward = curve(of(x, 'forward'), of(y, 'forward'));
    const backward = curve(of(x, 'backward'), of(y, 'backward'));
    return [
      name,
      {
        batches: forward.map(({ rows, seconds }, i) => ({
          rows,
          forward: seconds,
          backward: backward[i]?.seconds ?? 0,
        })),
        statistics: line(x.statistics, y.statistics),
        optimizer: line(x.optimizer, y.optimizer),
        exchange: line(x.exchange, y.exchange),
        rest: line(x.rest, y.rest),
      },
    ];
  });
  return {
    decode: curve(a.decode, b.decode),
    context: b.context,
    perKey: line(a.perKey, b.perKey),
    prefill: curve(a.prefill, b.prefill),
    packing: line(a.packing, b.packing),
    perCall: b.perCall,
    records: b.records,
    training: Object.fromEntries(training),
  };
}

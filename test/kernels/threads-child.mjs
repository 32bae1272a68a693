/** Prints digests of what kernels compute of fixed inputs, as JSON: for threads.test.ts, which starts it. */
import { createHash } from 'node:crypto';
import { native } from '../../build/js/engine/native.js';
import { Tensor } from '../../build/js/engine/tensor.js';

const addon = native();
const kernels = addon.kernels('cpu');

let state = 1;
function tensor(...shape) {
  const values = Float64Array.from({ length: shape.reduce((product, n) => product * n, 1) }, () => {
    state = (Math.imul(1103515245, state) + 12345) & 0x7fffffff;
    return state / 2 ** 31 - 0.5;
  });
  return Tensor.from(values, shape, { dtype: 'float32' }).native;
}

const digest = (handle) =>
  createHash('sha256')
    .update(Buffer.from(addon.read(handle).buffer))
    .digest('hex')
    .slice(0, 16);

function attention(trees, length, queryHeads, keyHeads) {
  const nodes = Array.from({ length: trees }, (_, i) => [i * length, length, -1]).flat();
  const rows = trees * length;
  const [q, grad] = [tensor(rows, queryHeads, 16), tensor(rows, queryHeads, 16)];
  const [k, v] = [tensor(rows, keyHeads, 16), tensor(rows, keyHeads, 16)];
  const result = kernels.treeAttention(q, k, v, nodes, 0.25, grad);
  return Object.fromEntries(Object.entries(result).map(([name, value]) => [name, digest(value)]));
}

function lossHead(rows, vocabulary, size) {
  const [hidden, weight] = [tensor(rows, size), tensor(vocabulary, size)];
  const indices = Array.from({ length: rows }, (_, i) => i);
  const entries = {
    rows: indices,
    targets: indices.map((i) => (i * 37) % vocabulary),
    temperatures: Float64Array.from(indices, () => 1),
  };
  const forward = kernels.tokenLogprobs(hidden, weight, entries);
  const zeros = (...shape) => Tensor.zeros(shape, { dtype: 'float32' }).native;
  const [gradHidden, gradWeight] = [zeros(rows, size), zeros(vocabulary, size)];
  const gradient = { gradLogprobs: tensor(rows), ...forward, hidden, weight, entries };
  kernels.tokenLogprobsBackward({ ...gradient, groups: [0, rows], gradHidden, gradWeight: [gradWeight] });
  return { logprobs: digest(forward.logprobs), dH: digest(gradHidden), dW: digest(gradWeight) };
}

const measured = {
  manyTrees: attention(8, 48, 4, 2),
  ungrouped: attention(3, 200, 2, 2),
  fewTrees: attention(3, 200, 4, 2),
  lossHead: lossHead(64, 3001, 32),
};
console.log(JSON.stringify(measured));

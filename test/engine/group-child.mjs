/**
 * One rank of groups, run by process-group.test.ts: node group-child.mjs SCENARIOS OPTIONS. Scenario after scenario has
 * a group of its own; prints what came of each as a line of JSON, or the error's message.
 */
import { ProcessGroup } from '../../build/js/engine/process-group.js';
import { scope } from '../../build/js/engine/scope.js';
import { liveTensors, Tensor } from '../../build/js/engine/tensor.js';

const [names, options] = process.argv.slice(2);
const { rank, ports, device = 'cpu', ...rest } = JSON.parse(options);

function sumOn(where, name, group) {
  return scope(() => {
    const sum = Tensor.full([2], rank + 1, { device: where });
    group.allReduce(name, [sum]);
    return sum.toArray();
  });
}

const scenarios = {
  collectives(group) {
    const n = group.size;
    return scope(() => {
      const sum = Tensor.from(Float64Array.of(rank + 1, 10 * rank), [2]);
      const flat = Tensor.from(Float32Array.of(rank, 2, 3), [3]);
      group.allReduce('sums', [sum, flat]);
      const most = Tensor.from(BigInt64Array.of(BigInt(rank), -BigInt(rank)), [2]);
      group.allReduce('maxima', [most], 'max');
      const parts = Tensor.from(Float32Array.from({ length: 2 * n }, (_, i) => i * (rank + 1)));
      group.reduceScatter('parts', [parts]);
      const part = parts.narrow(0, 2 * rank, 2);
      const all = Tensor.zeros([2 * n]);
      all.narrow(0, 2 * rank, 2).copy_(Tensor.from(Float32Array.of(rank, rank + 0.5)));
      group.allGather('all', [all]);
      const given = Tensor.from(Float32Array.of(rank, 7));
      group.broadcast('last', [given], n - 1);
      group.barrier('barrier');
      group.count('counts', 2);
      group.barrier('counted');
      const counted = group.count('counts', 0);
      const words = group.gather('words', Buffer.from('x'.repeat(3 * rank)));
      const { bytes, seconds } = group.traffic;
      return {
        sum: sum.toArray(),
        flat: flat.toArray(),
        most: most.toArray().map(Number),
        part: part.toArray(),
        all: all.toArray(),
        given: given.toArray(),
        counted,
        words: words.map((word) => Buffer.from(word).toString()),
        measured: bytes > 0 && seconds > 0,
      };
    });
  },
  /** The last rank says another collective than the others. */
  apart(group) {
    group.barrier(rank === group.size - 1 ? 'another' : 'one');
  },
  /** The last rank ends in good order, but early. */
  early(group) {
    if (rank < group.size - 1) group.barrier('too late');
  },
  dies(group) {
    if (rank === group.size - 1) process.kill(process.pid, 'SIGKILL');
    group.barrier('after the death');
  },
  stops(group) {
    if (rank === group.size - 1) process.kill(process.pid, 'SIGSTOP');
    group.barrier('behind the last');
  },
  /** It keeps the store, too. */
  firstStops(group) {
    if (rank === 0) process.kill(process.pid, 'SIGSTOP');
    group.barrier('behind the first');
  },
  oneDevice(group) {
    return sumOn(device, 'on one device', group);
  },
  /** The last rank is on the CPU, whatever the others are on. */
  elsewhere(group) {
    return sumOn(rank === group.size - 1 ? 'cpu' : device, 'on two devices', group);
  },
  /** Alive and late: the others wait for longer than the timeout. */
  late(group) {
    if (rank === 0)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1.5 * 1000 * rest.timeoutSeconds);
    group.barrier('for the late');
    return 'met';
  },
};

for (const [i, name] of names.split(',').entries()) {
  try {
    const group = new ProcessGroup({ rank, port: ports[i], ...rest });
    try {
      const before = liveTensors();
      const result = scenarios[name](group);
      console.log(JSON.stringify({ result, leaked: liveTensors() - before }));
    } finally {
      group.dispose();
    }
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, kind: error.name }));
  }
}

/**
 * What streaming costs `troupe serve`: tokens a second of parallel chat choices as whole answers and as streams of single
 * tokens, in turn. node bench/serving.mjs [--tiny] [--rounds N] [--model NAME]
 */
import { parseArgs } from 'node:util';
import { Engine } from '../build/js/engine/engine.js';
import { loadServed } from '../build/js/learning/serving/served.js';
import { ApiServer } from '../build/js/learning/serving/server.js';

const { values } = parseArgs({
  options: {
    tiny: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '5' },
    model: { type: 'string', default: 'troupe-1m' },
    choices: { type: 'string', default: '32' },
  },
});
const [model, n, tokens, rounds] = values.tiny
  ? ['troupe-0.3m', 2, 8, 1]
  : [values.model, Number(values.choices), 200, Number(values.rounds)];

const engine = new Engine();
const served = await loadServed(engine, model, { set: [], warn: () => {} });
const server = await ApiServer.start(served, 0);

/** Tokens a second, and how many events came. At a high temperature few choices end before their length. */
async function measured(stream) {
  const name = served.models.keys().next().value;
  const ask = { model: name, prompt: '7+8', n, seed: 1, temperature: 1000, max_tokens: tokens };
  const started = performance.now();
  const response = await fetch(`${server.url}/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...ask, stream, ...(stream && { stream_options: { include_usage: true } }) }),
  });
  const text = await response.text();
  const seconds = (performance.now() - started) / 1000;
  const events = text.split('\n\n').filter((event) => event.startsWith('data: {'));
  const { usage } = JSON.parse(stream ? events.at(-1).slice(6) : text);
  return { rate: usage.completion_tokens / seconds, events: events.length };
}

await measured(true);
const rates = { whole: [], streamed: [] };
let events = 0;
for (let round = 0; round < rounds; round++) {
  rates.whole.push((await measured(false)).rate);
  const streamed = await measured(true);
  rates.streamed.push(streamed.rate);
  events = streamed.events;
}
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
for (const [name, list] of Object.entries(rates)) {
  console.log(`${name.padEnd(9)} ${median(list).toFixed(0)} tokens/s (median of ${list.length})`);
}
console.log(`${events} events for ${n} choices of ${tokens} tokens at most`);
await server.close();
await engine.close();

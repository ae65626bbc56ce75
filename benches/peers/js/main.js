// The JavaScript SDK on Node, in the words of benches/worker: main.js METRIC [KEY=VALUE...]
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createPlugin } from '@extism/extism';

class Unsupported extends Error {}

const now = () => process.hrtime.bigint();
const nanoseconds = (since) => Number(now() - since);

function readOptions(words) {
  const options = { call: 'empty', size: '0', count: '1', wasi: '0' };
  for (const word of words) {
    const at = word.indexOf('=');
    options[word.slice(0, at)] = word.slice(at + 1);
  }
  return options;
}

function inputOf(options) {
  if (options.text !== undefined) return new TextEncoder().encode(options.text);
  const words = new TextEncoder().encode('Hello, World! ');
  return Uint8Array.from({ length: Number(options.size) }, (_, i) => words[i % words.length]);
}

let ticks = [0n, 0n];

const pluginOptions = (options) => ({
  useWasi: options.wasi === '1',
  config: { key: '12345678' },
  functions: {
    'extism:host/user': {
      tick: () => { ticks = [ticks[1], now()]; },
      add_one: (_, number) => number + 1n,
      use_block: () => { throw new Unsupported(); }, // it has no free
    },
  },
});

const fresh = (options, wasm) => createPlugin({ wasm: [wasm] }, pluginOptions(options));

async function first(options, wasm, input) {
  const plugin = await fresh(options, wasm);
  if (options.call) await plugin.call(options.call, input);
  return plugin;
}

// Puts a custom section, which no other has had, behind the module.
let serial = 0;
function distinct(bytes) {
  const label = new TextEncoder().encode(`${process.pid} ${now()} ${serial++}`);
  const copy = new Uint8Array(bytes.length + label.length + 4);
  copy.set(bytes);
  copy.set([0, label.length + 2, 1, 'n'.charCodeAt(0)], bytes.length);
  copy.set(label, bytes.length + 4);
  return copy;
}

async function timed(iterations, before, work) {
  let total = 0;
  for (let i = 0; i < iterations; i++) {
    const prepared = before();
    const begin = now();
    const plugin = await work(prepared);
    total += nanoseconds(begin);
    await plugin.close();
  }
  return total;
}

async function metric(name, options) {
  const bytes = new Uint8Array(readFileSync(options.file));
  const input = inputOf(options);
  switch (name) {
    case 'call': {
      const plugin = await first(options, { data: bytes }, input);
      return async (iterations) => {
        const begin = now();
        for (let i = 0; i < iterations; i++) await plugin.call(options.call, input);
        return nanoseconds(begin);
      };
    }
    case 'loop': {
      if (options.call === 'use_block') throw new Unsupported();
      const plugin = await fresh(options, { data: bytes });
      return async (iterations) => {
        const numbers = new BigUint64Array([BigInt(iterations), BigInt(options.count)]);
        await plugin.call(options.call, new Uint8Array(numbers.buffer));
        return Number(ticks[1] - ticks[0]);
      };
    }
    case 'first':
    case 'again':
      if (name === 'again') await (await first(options, { data: bytes }, input)).close();
      return (iterations) => timed(iterations, () => bytes, (data) => first(options, { data }, input));
    case 'never':
      return (iterations) => timed(iterations, () => distinct(bytes), (data) => first(options, { data }, input));
    case 'new': {
      const module = new WebAssembly.Module(bytes);
      return (iterations) => timed(iterations, () => module, (module) => first(options, { module }, input));
    }
    case 'scaling': {
      const callers = await Promise.all(Array.from({ length: Number(options.count) }, () => startCaller(options)));
      const run = async (some, iterations) => {
        const begin = now();
        await Promise.all(some.map((caller) => caller(iterations)));
        return nanoseconds(begin);
      };
      return async (iterations) => {
        const one = await run(callers.slice(0, 1), iterations);
        return (callers.length * one) / (await run(callers, iterations));
      };
    }
    default:
      throw new Unsupported();
  }
}

// A thread with a plug-in of its own, which calls it as often as it is told to.
function startCaller(options) {
  const worker = new Worker(new URL(import.meta.url), { workerData: options });
  const answer = () => new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  return answer().then(() => (iterations) => {
    worker.postMessage(iterations);
    return answer();
  });
}

if (isMainThread) {
  const [name, ...words] = process.argv.slice(2);
  try {
    const measure = await metric(name, readOptions(words));
    console.log('ready JavaScript');
    for await (const line of createInterface({ input: process.stdin })) {
      console.log((await measure(Number(line))).toFixed(3));
    }
    process.exit(0);
  } catch (error) {
    console.log(error instanceof Unsupported ? 'unsupported' : `error ${String(error).split('\n')[0]}`);
    process.exit(1);
  }
} else {
  const measure = await metric('call', workerData);
  parentPort.on('message', async (iterations) => parentPort.postMessage(await measure(iterations)));
  parentPort.postMessage('ready');
}

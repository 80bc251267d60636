// How long a phone waits for the page: from a tap on the link until it says "Online", in headless Chromium with the
// network of DevTools' emulation, 150 ms and 1.6 Mbit/s. `node visits.mjs [RELAY...]` compares relays in turns; each is a
// program, by default the one under test.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { launch } from './browser.mjs';
import { pairing } from './chat.mjs';
import { link } from './browser.mjs';
import { Relay, binary } from './relay.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 9);
const BYTES_A_SECOND = 1_600_000 / 8;
const NETWORK = { offline: false, latency: 150, downloadThroughput: BYTES_A_SECOND, uploadThroughput: BYTES_A_SECOND };

// What is asked of the network by the page and by its worker: `requests` and `bytes`, heads included.
class Traffic {
  requests = 0;
  bytes = 0;

  handle(method, params) {
    if (method === 'Network.requestWillBeSent') this.requests += 1;
    if (method === 'Network.loadingFinished') this.bytes += params.encodedDataLength;
  }
}

async function emulate(send) {
  await send('Network.enable');
  await send('Network.emulateNetworkConditions', NETWORK);
}

// The worker's own requests pass the same network.
async function emulateWorker(browser) {
  const cdp = await browser.newBrowserCDPSession();
  const { targetInfos } = await cdp.send('Target.getTargets');
  let id = 0;
  for (const { targetId } of targetInfos.filter(({ type }) => type === 'service_worker')) {
    const { sessionId } = await cdp.send('Target.attachToTarget', { targetId, flatten: false });
    await emulate((method, params = {}) => cdp.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id: ++id, method, params }) }));
  }
  return cdp;
}

// Opens the address in a new page: milliseconds until it is online, and what it took.
export async function visit(context, address) {
  const page = await context.newPage();
  const traffic = new Traffic();
  const cdp = await context.newCDPSession(page);
  for (const event of ['Network.requestWillBeSent', 'Network.loadingFinished']) cdp.on(event, (params) => traffic.handle(event, params));
  await emulate((method, params) => cdp.send(method, params));
  await page.addInitScript(() => {
    const look = new MutationObserver(() => {
      if (globalThis.onlineAfter || !/^Online/.test(document.getElementById('presence-text')?.textContent)) return;
      globalThis.onlineAfter = performance.now();
    });
    look.observe(document, { childList: true, subtree: true, characterData: true });
  });
  await page.goto(address, { waitUntil: 'commit' });
  const ms = await (await page.waitForFunction(() => globalThis.onlineAfter)).jsonValue();
  const painted = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  return { page, ms, painted, traffic };
}

async function round(relay) {
  const browser = await launch();
  const { token, secret, agent } = await pairing(relay);
  try {
    const context = await browser.newContext({ viewport: { width: 360, height: 740 } });
    const first = await visit(context, link(relay, token, secret));
    // What the worker keeps is kept before the next visit.
    await first.page.evaluate(async () => (await navigator.serviceWorker.ready).active.state);
    await first.page.waitForFunction(() => navigator.serviceWorker.controller);
    await first.page.close();
    const worker = await emulateWorker(browser);
    const later = await visit(context, `http://127.0.0.1:${relay.port}/`);
    await worker.detach();
    return { first, later };
  } finally {
    await agent.close();
    await browser.close();
  }
}

function median(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

async function main(programs) {
  const results = new Map(programs.map((program) => [program, []]));
  for (let count = 0; count < ROUNDS; count++) {
    for (const [program, rounds] of results) {
      process.env.CORALMUX_RELAY = program;
      const relay = await Relay.start('--phone-rate', '0');
      try {
        rounds.push(await round(relay));
      } finally {
        await relay.stop();
      }
    }
  }
  for (const [program, rounds] of results) {
    console.log(program);
    for (const name of ['first', 'later']) {
      const of = (value) => rounds.map((both) => value(both[name]));
      const [ms, painted] = [of(({ ms }) => ms), of(({ painted }) => painted)].map((values) => Math.round(median(values)));
      const { requests, bytes } = rounds[0][name].traffic;
      console.log(`  ${name.padEnd(5)} visit: online after ${ms} ms (${Math.round(Math.min(...of(({ ms }) => ms)))} to ${Math.round(Math.max(...of(({ ms }) => ms)))}), painted after ${painted} ms, ${requests} requests, ${bytes} bytes`);
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const given = process.argv.slice(2).map((program) => resolve(program));
  await main(given.length ? given : [binary()]);
}

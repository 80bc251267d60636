// Makes the files that a release leaves behind, for upgrade.test.mjs and src/store/tests.rs: with the programs of that
// release in one folder, `CORALMUX_RELAY=FOLDER/coralmux-relay node make-data.mjs ../data/VERSION`.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Phone, launch } from './browser.mjs';
import { Client } from './client.mjs';
import { Kept, flagsOf, linksOf } from './kept.mjs';
import { Program } from './program.mjs';
import { binary } from './relay.mjs';

const LIMITS = {
  message_bytes_max: 1048576,
  phone_per_minute: 7,
  agent_per_minute: 0,
  stream_per_second: 50,
  daily_quota_bytes: 1000000,
  monthly_quota_bytes: 20000000,
};

// All that the page keeps in a browser; images as base64.
async function storageOf(page) {
  return page.evaluate(async () => {
    const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
    const base64 = async (blob) => btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
    const databases = [];
    for (const { name, version } of await indexedDB.databases()) {
      const database = await done(indexedDB.open(name, version));
      const stores = [];
      for (const store of database.objectStoreNames) {
        const { keyPath, autoIncrement, indexNames } = database.transaction(store).objectStore(store);
        const read = () => database.transaction(store).objectStore(store);
        const indexes = [...indexNames].map((index) => ({ name: index, keyPath: read().index(index).keyPath }));
        const records = await done(read().getAll());
        for (const record of records) {
          const images = (record.images ?? []).map(async (image) => ({ type: image.type, base64: await base64(image) }));
          record.images = await Promise.all(images);
        }
        stores.push({ name: store, keyPath, autoIncrement, indexes, records });
      }
      databases.push({ name, version, stores });
    }
    return { localStorage: { ...localStorage }, databases };
  });
}

const target = process.argv[2];
const directory = mkdtempSync(join(tmpdir(), 'coralmux-data-'));
const state = join(directory, 'agent.json');
const browser = await launch();
const relay = await Kept.start(directory);
try {
  const made = async (body) => (await relay.api('POST', '/api/v1/pair', body)).token;
  const tokens = {
    used: await made({ label: 'used' }),
    unused: await made(),
    registered: (await relay.api('POST', '/api/v1/register')).token,
    expired: await made({ label: 'expired', expires_in_sec: 1 }),
    limited: await made({ label: 'limited', limits: LIMITS }),
  };

  const agent = await Client.authed(relay.url, tokens.used, 'agent');
  const phone = await Client.authed(relay.url, tokens.used, 'phone');
  for (let number = 0; number < 20; number++) phone.send('chat.send', { text: 'x'.repeat(1000) });
  await agent.expect('status');
  for (let number = 0; number < 20; number++) await agent.expect('chat.send');
  for (const client of [agent, phone]) await client.close();

  const pairing = ['--relay', relay.url, '--state', state];
  const real = new Program(binary('coralmux-agent'), [...pairing, '--echo']);
  await real.says(/connected/i);
  tokens.agent = JSON.parse(readFileSync(state)).token;
  const links = linksOf(pairing);
  const page = await Phone.open(browser, links.browser);
  await page.secure('Encrypted, verified');
  await page.attachPixel();
  await page.say('kept');
  await page.shows('.message.agent[data-state="done"] .body', 'said: kept');
  await delay(1000); // until the page has written it
  const storage = await storageOf(page.page);
  await page.close();
  await real.stop();

  await delay(2000); // until usage has been written
  const { tokens: views } = await relay.api('GET', '/api/v1/tokens');
  const used_bytes = views.find(({ label }) => label === 'used').usage.day_bytes;
  const version = execFileSync(binary(), ['--version'], { encoding: 'utf8' }).trim();
  const flags = { 'coralmux-relay': flagsOf('coralmux-relay'), 'coralmux-agent': flagsOf('coralmux-agent') };
  const unix_ms = Date.now();
  await relay.stop();

  mkdirSync(target, { recursive: true });
  for (const name of ['relay.db', 'relay.db.admin-key', 'agent.json']) copyFileSync(join(directory, name), join(target, name));
  const write = (name, what) => writeFileSync(join(target, name), `${JSON.stringify(what, null, 2)}\n`);
  write('made.json', { version, unix_ms, tokens, used_bytes, limits: LIMITS, relay: relay.url, links, flags });
  write('page.json', storage);
} finally {
  relay.program.process.kill('SIGKILL');
  await browser.close();
  rmSync(directory, { recursive: true });
}

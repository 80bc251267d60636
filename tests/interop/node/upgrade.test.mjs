// What earlier releases left behind, under today's programs: their stores, admin keys, agents' states, pages' storage, flags
// and links. ../data/README.md says how the files were made.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Phone, launch } from './browser.mjs';
import { Client } from './client.mjs';
import { Kept, flagsOf, linksOf } from './kept.mjs';
import { Program } from './program.mjs';
import { ROOT, binary } from './relay.mjs';

const DATA = join(ROOT, 'tests/interop/data');
const versions = readdirSync(DATA, { withFileTypes: true }).filter((entry) => entry.isDirectory());

let browser;

before(async () => {
  browser = await launch();
});

after(() => browser?.close());

// Puts what a page kept into this browser, as the page's own scripts would.
async function putStorage(page, storage) {
  await page.evaluate(async ({ localStorage: texts, databases }) => {
    for (const [key, text] of Object.entries(texts)) localStorage.setItem(key, text);
    const done = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const blob = async ({ type, base64 }) =>
      new Blob([Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0))], { type });
    for (const { name, version, stores } of databases) {
      const request = indexedDB.open(name, version);
      request.onupgradeneeded = () => {
        for (const { name: store, keyPath, autoIncrement, indexes } of stores) {
          const made = request.result.createObjectStore(store, { keyPath, autoIncrement });
          for (const index of indexes) made.createIndex(index.name, index.keyPath);
        }
      };
      const database = await done(request);
      for (const { name: store, records } of stores) {
        for (const record of records) {
          record.images = await Promise.all(record.images.map(blob));
          await done(database.transaction(store, 'readwrite').objectStore(store).put(record));
        }
      }
      database.close();
    }
  }, storage);
}

for (const { name: version } of versions) {
  const read = (name) => JSON.parse(readFileSync(join(DATA, version, name), 'utf8'));
  const made = read('made.json');

  test(`${version}: every flag is still there`, () => {
    for (const [program, flags] of Object.entries(made.flags)) {
      const today = flagsOf(program);
      assert.ok(flags.length > 10);
      assert.deepEqual(flags.filter((flag) => !today.includes(flag)), [], program);
    }
  });

  test(`${version}: store, agent and page go on where they were`, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'coralmux-upgrade-'));
    cpSync(join(DATA, version), directory, { recursive: true });
    const relay = await Kept.start(directory);
    const state = join(directory, 'agent.json');
    let agent;
    try {
      // The admin key that it had made is that of today's relay, and each token has what it was given.
      const { tokens } = await relay.api('GET', '/api/v1/tokens');
      const view = (label) => tokens.find((token) => token.label === label);
      assert.equal(tokens.length, Object.keys(made.tokens).length);
      assert.deepEqual(view('limited').limits, made.limits);
      assert.ok(Date.parse(view('expired').expires_at) < made.unix_ms);
      assert.equal(tokens.filter((token) => token.unused_expires_at).length, 1, 'the registered one');

      for (const name of ['used', 'unused', 'registered', 'limited']) {
        const client = await Client.authed(relay.url, made.tokens[name], 'phone');
        await client.close();
      }
      const late = await Client.open(relay.url);
      late.send('auth', { token: made.tokens.expired, role: 'phone' });
      assert.equal((await late.expect('auth.fail')).code, 'UNAUTHORIZED');

      // The agent shows the links that it showed, and is the agent of its token.
      assert.deepEqual(linksOf(['--relay', made.relay, '--state', state]), made.links);
      agent = new Program(binary('coralmux-agent'), ['--relay', relay.url, '--state', state, '--echo']);
      await agent.says(/connected/i);
      assert.equal(JSON.parse(readFileSync(state, 'utf8')).token, made.tokens.agent);

      // The page is paired, has the conversation with its image, and continues it.
      // From another document of the same origin, for which the browser also asks for an icon that is not there.
      const phone = await Phone.open(browser, `${relay.http}/livez`);
      await putStorage(phone.page, read('page.json'));
      phone.faults = [];
      await phone.page.goto(`${relay.http}/`);
      await phone.secure('Encrypted, verified');
      await phone.shows('.message.agent .body', 'said: kept');
      assert.equal(await phone.page.locator('.message.me img').count(), 1);
      await phone.say('again');
      await phone.shows('.message.agent[data-state="done"] .body', 'You said: again');

      // Both know devices now: it becomes one by itself, with all that was said.
      await agent.says(/ is a device now/);
      const pairing = (one) => one.page.evaluate(() => JSON.parse(localStorage.getItem('coralmux.pairing')));
      while (!(await pairing(phone)).used) await delay(50);
      const { k, a } = await pairing(phone);
      assert.deepEqual([k, typeof a], [undefined, 'string'], 'what the link had is forgotten');
      await phone.page.reload();
      await phone.secure('Encrypted, verified');
      await phone.shows('.message.agent .body', 'said: kept');
      assert.equal(await phone.page.locator('.message.me img').count(), 1);
      await phone.say('as a device');
      await phone.shows('.message.agent[data-state="done"] .body', 'You said: as a device');

      // A link of then pairs a browser of today, beside the device, which does not give itself up for it unasked.
      const link = new URL(made.links.browser);
      link.port = relay.port;
      const other = await Phone.open(browser, link.href);
      await other.secure('Encrypted, verified');
      await other.say('from the old link');
      await other.shows('.message.agent[data-state="done"] .body', 'You said: from the old link');
      await other.page.reload();
      await other.secure('Encrypted, verified');
      assert.equal((await pairing(other)).k, new URLSearchParams(link.hash.slice(1)).get('k'), 'it is a phone as before');
      await phone.page.evaluate((hash) => (location.hash = hash), link.hash);
      await phone.shows('#confirm-title', 'Use this new link?');
      await phone.shows('#confirm-text', 'one more of its devices');
      await phone.page.click('#confirm .plain');
      await phone.say('still a device');
      await phone.shows('.message.agent[data-state="done"] .body', 'You said: still a device');
      await other.close();
      await phone.close();
    } finally {
      await agent?.stop();
      await relay.stop();
      rmSync(directory, { recursive: true });
    }
  });
}

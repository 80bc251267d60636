// The page as a device of its own: it enrols with a link, chats with keys that last, and shows the devices of its agent.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Phone, launch } from './browser.mjs';
import { Cutting } from './cutting.mjs';
import { DeviceAgent } from './device-agent.mjs';
import { Relay } from './relay.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const DONE = '.message.agent[data-state="done"] .body';

let browser;
let relay;
let agent;
const phones = [];

before(async () => {
  [browser, relay] = await Promise.all([launch(), Relay.start()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
});

afterEach(async () => {
  await agent?.close();
  agent = null;
  for (const phone of phones.splice(0)) await phone.close();
});

async function opened(address, options) {
  const phone = await Phone.open(browser, address, options);
  phones.push(phone);
  return phone;
}

// The code that the page shows, as the agent has it.
async function shownCode({ page }) {
  await page.locator('#enrol-code:not([hidden])').waitFor();
  return (await page.locator('#enrol-code').innerText()).replace(' ', '');
}

// A browser that the agent has let in.
async function enrolled(by, options) {
  const phone = await opened((await agent.invite({ by })).web, options);
  const { device, code } = await agent.pending();
  assert.equal(await shownCode(phone), code);
  await agent.admit(device);
  await phone.secure('Encrypted, verified');
  phone.device = device;
  return phone;
}

async function talk(phone, question, answer) {
  await phone.say(question);
  assert.equal((await agent.chat()).text, question);
  agent.answer(answer);
  await phone.shows(DONE, answer);
}

async function openDevices({ page }) {
  await page.click('#more');
  await page.click('#show-devices');
  await page.locator('#devices[open]').waitFor();
}

async function started() {
  agent = await DeviceAgent.connect(relay, await relay.token());
  return agent;
}

test('a link with `a` makes this browser a device, which both ends let in by a number', async () => {
  await started();
  const { web } = await agent.invite();
  const phone = await opened(web);
  const { device, code, name, platform } = await agent.pending();
  assert.equal(await shownCode(phone), code);
  assert.match(name, /Chrome, Linux/);
  assert.equal(platform, 'web');
  assert.ok(await phone.page.locator('#composer').isHidden(), 'nothing is sent yet');
  await phone.shows('#announcer', [...code].join(' '));
  await agent.admit(device);
  await phone.secure('Encrypted, verified');
  await phone.shows('#agent-name', 'Home');
  await talk(phone, 'hello', 'Hello to you, too.');
  await phone.page.locator('.ticks[data-ticks="2"]').waitFor();
  const stored = await phone.page.evaluate(() => localStorage.getItem('coralmux.pairing'));
  const k = new URL(web).hash.match(/k=([\w-]+)/)[1];
  assert.ok(!stored.includes(k), 'the secret of the link is forgotten');
});

test('a device comes back after a reload, without a word about keys, and misses nothing', async () => {
  await started();
  const phone = await enrolled();
  await talk(phone, 'one', 'First.');
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  await talk(phone, 'two', 'Second.');
  await phone.page.goto('about:blank');
  agent.answer('Said while you were away.');
  await phone.page.goto(`http://127.0.0.1:${relay.port}/`);
  await phone.shows(DONE, 'Said while you were away.');
  assert.deepEqual(await phone.messages('agent'), ['First.', 'Second.', 'Said while you were away.']);
  assert.deepEqual(agent.refused.filter(({ code }) => code !== 'PEER_OFFLINE'), [], 'each message opened');
});

test('the agent that comes back with its state goes on, and one that lost its sessions gets new ones', async () => {
  await started();
  const phone = await enrolled();
  await talk(phone, 'one', 'First.');
  await agent.drop();
  await phone.shows('#presence-text', 'Offline');
  await phone.say('two');
  await phone.shows('.message.me .meta', 'Waits for your agent');
  await agent.open();
  assert.equal((await agent.chat()).text, 'two');
  // As after a backup was restored.
  await agent.drop();
  agent.devices.get(phone.device).end.sessions.receiving = [];
  await agent.open();
  await phone.say('three');
  assert.equal((await agent.chat()).text, 'three');
  agent.answer('Third.');
  await phone.shows(DONE, 'Third.');
});

test('what is asked on one device shows on the other, and so does the answer; a new one fetches what was said', async () => {
  await started();
  const one = await enrolled();
  await talk(one, 'hello', 'Hello.');
  const other = await enrolled(undefined, { viewport: { width: 800, height: 700 } });
  await other.shows('.message.me .body', 'hello');
  await other.shows(DONE, 'Hello.');
  await talk(one, 'And now?', 'Now as well.');
  await other.shows('.message.me .from', 'From');
  await other.shows('.message.me .body', 'And now?');
  await other.shows(DONE, 'Now as well.');
  await other.page.reload();
  await other.secure('Encrypted, verified');
  assert.deepEqual(await other.messages('me'), ['hello', 'And now?']);
  await delay(300);
  assert.deepEqual((await agent.turns).map(({ text }) => text), ['hello', 'Hello.', 'And now?', 'Now as well.'], 'nobody asked anything twice');
});

test('another device is added: a code to scan, its number, and yes', async () => {
  await started();
  const owner = await enrolled();
  await openDevices(owner);
  await owner.shows('#device-list', 'this browser');
  await owner.shows('#device-list', 'owner');
  await owner.page.click('#add-device');
  await owner.page.locator('#qr').waitFor();
  await owner.shows('#invite-until', 'minutes');
  const web = await owner.page.inputValue('#invite-link');
  const { data, width } = await owner.page.evaluate(() => {
    const canvas = document.getElementById('qr');
    return { data: canvas.toDataURL(), width: canvas.width };
  });
  assert.ok(width > 40 && data.length > 500);
  const other = await opened(web);
  const code = await shownCode(other);
  await owner.shows('#pending .fingerprint', `${code.slice(0, 3)} ${code.slice(3)}`);
  assert.ok(await owner.page.locator('#invitation').isHidden(), 'the code is used');
  await owner.page.click('#pending .primary');
  await other.secure('Encrypted, verified');
  await owner.page.locator('#device-list li:nth-child(2)').waitFor();
  await openDevices(other);
  await other.shows('#device-list li:nth-child(2)', 'added by');
  assert.equal(await other.page.locator('#device-list button', { hasText: 'Remove' }).count(), 1, 'others are for the owner');
});

test('who is refused is told so, and keeps nothing that would open', async () => {
  await started();
  const owner = await enrolled();
  await openDevices(owner);
  await owner.page.click('#add-device');
  await owner.page.locator('#qr').waitFor();
  const other = await opened(await owner.page.inputValue('#invite-link'));
  await shownCode(other);
  await owner.page.locator('#pending .plain').click();
  await other.shows('#banner-title', 'This browser was not added');
  await owner.page.locator('#pending').waitFor({ state: 'hidden' });
  assert.equal(await owner.page.locator('#device-list li').count(), 1);
});

test('a device is renamed and removed, which it is told as the relay’s word; it deletes nothing', async () => {
  await started();
  const owner = await enrolled();
  const other = await enrolled();
  await talk(other, 'hello', 'Hello.');
  await openDevices(owner);
  const item = owner.page.locator('#device-list li:nth-child(2)');
  await item.getByRole('button', { name: 'Rename' }).click();
  await owner.page.keyboard.type('Tablet');
  await owner.page.keyboard.press('Enter');
  await owner.shows('#device-list li:nth-child(2) strong', 'Tablet');
  await item.getByRole('button', { name: 'Remove' }).click();
  await owner.shows('#confirm-text', 'no longer read');
  await owner.page.click('#confirm-yes');
  await other.shows('#banner-title', 'This browser was removed');
  await other.shows('#banner-text', 'not verified');
  await item.waitFor({ state: 'detached' });
  assert.deepEqual(await other.messages('agent'), ['Hello.']);
  const kept = await other.page.evaluate(() => localStorage.getItem('coralmux.pairing'));
  assert.match(kept, /oc_pair_/);
});

test('the agent refuses what only the owner may, and the page says why', async () => {
  await started();
  await enrolled();
  const other = await enrolled();
  agent.refusal = 'INVITES_FULL';
  await openDevices(other);
  await other.page.click('#add-device');
  await other.shows('#devices-error', 'Too many links are open');
  await agent.drop();
  await other.shows('#presence-text', 'Offline');
  await other.page.click('#add-device');
  await other.shows('#devices-error', 'not connected');
  await agent.open();
});

test('a link that was used says so, and its own browser goes on with it', async () => {
  await started();
  const { web } = await agent.invite();
  const phone = await opened(web);
  await agent.admit((await agent.pending()).device);
  await phone.secure('Encrypted, verified');
  await phone.page.goto('about:blank');
  await phone.page.goto(web);
  await phone.secure('Encrypted, verified');
  const late = await opened(web);
  // An agent that has just come has ten seconds to say which links are open.
  late.page.setDefaultTimeout(40_000);
  await late.shows('#banner-title', 'This link was used');
  await late.shows('#banner-text', 'show a new one');
});

// No two texts were ever sealed at one place with one nonce.
function assertNoneTwice(sealed) {
  const seen = new Map();
  for (const { s, i, nonce, ciphertext } of sealed) {
    const place = `${s} ${i} ${nonce}`;
    assert.ok([undefined, ciphertext].includes(seen.get(place)), `two texts at ${place}`);
    seen.set(place, ciphertext);
  }
  assert.ok(seen.size > 3);
}

test('a second tab takes over, also from a frozen one, and the first finds out before it sends', async () => {
  await started();
  const first = await enrolled();
  await talk(first, 'one', 'First.');
  const tools = await first.context.newCDPSession(first.page);
  await tools.send('Page.setWebLifecycleState', { state: 'frozen' });
  const second = Object.assign(new Phone(), { context: first.context, page: await first.context.newPage() });
  await second.page.goto(`http://127.0.0.1:${relay.port}/`);
  await second.secure('Encrypted, verified');
  await talk(second, 'two', 'Second.');
  await tools.send('Page.setWebLifecycleState', { state: 'active' });
  await first.shows('#banner-title', 'The chat is open elsewhere');
  await first.page.click('#banner-action');
  await first.shows(DONE, 'Second.');
  await talk(first, 'three', 'Third.');
  await second.shows('#banner-title', 'The chat is open elsewhere');
  assertNoneTwice(agent.sealed);
});

test('each writing transaction is strict; what cannot be stored is neither sent nor acknowledged, and comes again', async () => {
  await started();
  const phone = await opened('about:blank');
  await phone.page.addInitScript(() => {
    globalThis.lax = [];
    const { transaction } = IDBDatabase.prototype;
    IDBDatabase.prototype.transaction = function (stores, mode, options) {
      if (mode === 'readwrite' && options?.durability !== 'strict') globalThis.lax.push(new Error().stack);
      return transaction.call(this, stores, mode, options);
    };
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (...args) {
      if (globalThis.isFull) throw new DOMException('full', 'QuotaExceededError');
      return put.apply(this, args);
    };
  });
  await phone.page.goto((await agent.invite()).web);
  const { device } = await agent.pending();
  await shownCode(phone);
  await agent.admit(device);
  await phone.secure('Encrypted, verified');
  await talk(phone, 'one', 'First.');
  await phone.page.locator('.ticks[data-ticks="2"]').waitFor();
  const { stream, end } = agent.devices.get(device);
  // The agent's messages are acknowledged when they are kept.
  while (stream.sender.record({ n: 1, f: 1, payload: {} }, {}).b < 3) await delay(50);
  await phone.page.evaluate(() => (globalThis.isFull = true));
  const before = stream.sender.record({ n: 1, f: 1, payload: {} }, {}).b;
  agent.say('chat.done', { full_text: 'Not kept yet.', ref: 'x' });
  await phone.shows(DONE, 'Not kept yet.');
  await delay(2_500);
  assert.equal(stream.sender.record({ n: 1, f: 1, payload: {} }, {}).b, before, 'it is not acknowledged');
  const stored = end.sessions.receiving[0].chain.next;
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  await phone.shows(DONE, 'Not kept yet.');
  assert.deepEqual(await phone.messages('agent'), ['First.', 'Not kept yet.']);
  assert.ok(end.sessions.receiving[0].chain.next > stored, 'it goes on ahead of what was stored');
  await talk(phone, 'two', 'Second.');
  assert.deepEqual(await phone.page.evaluate(() => globalThis.lax), []);
  assertNoneTwice(agent.sealed);
});

test('without room for its keys a browser does not say that it is one', async () => {
  await started();
  const phone = await opened('about:blank');
  await phone.page.addInitScript(() => {
    const { put } = IDBObjectStore.prototype;
    IDBObjectStore.prototype.put = function (value) {
      if (value.device?.end) throw new DOMException('full', 'QuotaExceededError');
      return put.call(this, value);
    };
  });
  await phone.page.goto((await agent.invite()).web);
  await phone.shows('#banner-text', 'keeps nothing here');
  assert.equal(agent.devices.size, 0, 'the third message did not leave');
});

test('the connection is cut in an answer, again and again: each piece is there once, and no keys are agreed upon', async () => {
  await started();
  const cutting = await Cutting.start(relay.port);
  agent.pagePort = cutting.port;
  const phone = await enrolled();
  await phone.say('Count!');
  await agent.chat();
  const words = Array.from({ length: 120 }, (_, number) => `w${number} `);
  for (const [number, delta] of words.entries()) {
    agent.say('chat.stream', { delta, seq: number + 1, ref: agent.lastId });
    if (number % 30 === 10) cutting.cut();
    await delay(15);
  }
  await phone.shows('.message.agent .body', 'w119');
  agent.say('chat.done', { ref: agent.lastId });
  await phone.shows(DONE, words.join('').trim());
  assert.equal(agent.devices.get(phone.device).end.sessions.receiving.length, 1);
  cutting.close();
});

test('the relay is killed and started in an answer: devices are still devices, and nothing is lost', async () => {
  const own = await Relay.start();
  agent = await DeviceAgent.connect(own, await own.token());
  const phone = await enrolled();
  await phone.say('Count!');
  await agent.chat();
  for (let seq = 1; seq <= 40; seq++) {
    agent.say('chat.stream', { delta: `w${seq} `, seq, ref: agent.lastId });
    if (seq === 20) {
      own.program.process.kill('SIGKILL');
      await agent.drop();
      await own.run();
      await agent.open();
    }
  }
  agent.say('chat.done', { ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'w40');
  const [text] = await phone.messages('agent');
  assert.deepEqual(text.split(' '), Array.from({ length: 40 }, (_, at) => `w${at + 1}`));
  await agent.close();
  agent = null;
  await phones.pop().close();
  await own.stop();
});

// A page whose connection goes through `change(message, toPage)`, which says what becomes of each message of the relay's.
async function lied(web, change) {
  const phone = await opened('about:blank');
  phone.said = [];
  await phone.page.routeWebSocket(/\/ws$/, (page) => {
    const server = page.connectToServer();
    page.onMessage((text) => {
      phone.said.push(JSON.parse(text));
      server.send(text);
    });
    server.onMessage((text) => {
      const changed = change(JSON.parse(text), page);
      if (changed) page.send(JSON.stringify(changed));
    });
  });
  await phone.page.goto(web);
  return phone;
}

test('a relay that hides devices gets nothing said in version 1 or 2', async () => {
  for (const ext of [undefined, { v: 1, legacy: true }]) {
    await started();
    const phone = await lied((await agent.invite()).web, (message) => {
      if (message.type === 'auth.ok') message.payload.ext = ext;
      return message;
    });
    await phone.shows('#banner-title', 'Not possible with this relay');
    await phone.shows('#banner-text', 'Show a new link');
    await delay(500);
    assert.deepEqual(phone.said.map(({ type }) => type), ['auth']);
    await agent.close();
  }
  agent = null;
});

test('nobody is let in, removed or answered on the relay’s word', async () => {
  await started();
  const phone = await lied((await agent.invite()).web, (message, page) => {
    if (message.type === 'auth.ok') page.send(JSON.stringify({ v: 1, type: 'relay.admitted', id: 'x', ts: 0, payload: {} }));
    return message;
  });
  const { device, code } = await agent.pending();
  await phone.page.waitForTimeout(300);
  assert.equal(await shownCode(phone), code, 'it still waits');
  await agent.admit(device);
  await phone.secure('Encrypted, verified');
  await phone.say('hello');
  await agent.chat();
  await phone.page.locator('.ticks[data-ticks="2"]').waitFor();
  const ref = agent.lastId;
  agent.client.send('chat.error', { code: 'BACKEND_ERROR', message: 'It was all a lie', ref }, { device });
  await phone.shows('.note', 'not verified');
  assert.equal(await phone.page.locator('.me[data-state="failed"]').count(), 0, 'what is delivered is delivered');
  agent.answer('Hello.');
  await phone.shows(DONE, 'Hello.');
});

test('an agent with another key than the link’s is refused', async () => {
  await started();
  const { web } = await agent.invite();
  const phone = await opened(web.replace(/a=[\w-]+/, `a=${'A'.repeat(22)}`));
  await phone.shows('#banner-text', 'not the one of your link');
  assert.equal(agent.devices.size, 0);
});

test('three tries without an answer are enough for a link', async () => {
  await started();
  agent.isSilent = true;
  const tries = new Set();
  const phone = await opened('about:blank');
  await phone.page.clock.install();
  await phone.page.routeWebSocket(/\/ws$/, (page) => {
    const server = page.connectToServer();
    page.onMessage((text) => {
      const { type, payload } = JSON.parse(text);
      if (type === 'key_exchange') tries.add(payload.noise);
      server.send(text);
    });
  });
  await phone.page.goto((await agent.invite()).web);
  await phone.shows('#enrol-text', 'Asking your agent');
  for (let count = 1; count <= 3; count++) {
    while (tries.size < count) await delay(20);
    await delay(100);
    await phone.page.clock.fastForward(10_200);
  }
  await phone.shows('#banner-text', 'does not answer this link');
  assert.equal(tries.size, 3);
});

test('a phone with a plain link becomes a device when the agent offers it, and stays a phone where that fails', async () => {
  const secret = new Uint8Array(32).fill(7);
  agent = await DeviceAgent.connect(relay, await relay.token(), { secret, lifts: true });
  const plain = `http://127.0.0.1:${relay.port}/#token=${agent.token}&k=${Buffer.from(secret).toString('base64url')}`;
  const phone = await opened(plain);
  const { device, code } = await agent.pending();
  assert.equal(await shownCode(phone), code);
  assert.equal(agent.openings[0].v3, 1);
  await agent.admit(device);
  await phone.secure('Encrypted, verified');
  await talk(phone, 'hello', 'Hello.');
  await phone.page.reload();
  await talk(phone, 'again', 'Hello again.');
  const other = await opened(plain);
  const second = await agent.pending();
  await shownCode(other);
  await agent.revoke(second.device);
  await other.page.locator('#composer').waitFor();
  await other.secure('Encrypted, verified');
  await delay(500);
  assert.equal(agent.openings.length, 3, 'it is a phone again, and is not offered it twice');
  assert.equal(agent.openings[2].v3, undefined);
});

test('what the agent gave up is fetched from what it remembers', async () => {
  await started();
  const phone = await enrolled();
  await talk(phone, 'one', 'First.');
  agent.turns.push({ role: 'user', text: 'on the terminal', ts: Date.now() }, { role: 'assistant', text: 'Not lost.', ts: Date.now() });
  agent.say('skipped', {});
  agent.say('chat.done', { full_text: 'Third.', ref: 'x' });
  await phone.shows('.message.note', 'did not arrive');
  await phone.shows(DONE, 'Not lost.');
  assert.deepEqual(await phone.messages('me'), ['one', 'on the terminal']);
  assert.deepEqual((await phone.messages('agent')).sort(), ['First.', 'Not lost.', 'Third.']);
});

test('a browser that is not looked at sleeps, and gets what it missed when it is', async () => {
  await started();
  const phone = await enrolled();
  await talk(phone, 'one', 'First.');
  const show = (state) => phone.page.evaluate((value) => {
    Object.defineProperty(document, 'visibilityState', { value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, state);
  await show('hidden');
  while (agent.devices.get(phone.device).online) await delay(20);
  agent.answer('While you slept.');
  await delay(500);
  assert.deepEqual(await phone.messages('agent'), ['First.']);
  await show('visible');
  await phone.shows(DONE, 'While you slept.');
});

test('keys that the browser has lost are not made up', async () => {
  await started();
  const phone = await enrolled();
  await phone.page.evaluate(() => new Promise((done) => (indexedDB.deleteDatabase('coralmux').onblocked = done)));
  await phone.page.reload();
  await phone.shows('#banner-text', 'no longer has its keys');
});

for (const scheme of ['light', 'dark']) {
  test(`the devices fit into 360 pixels, and a checker finds nothing to object to: ${scheme}`, async () => {
    await started();
    const check = async ({ page }) => {
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), []);
      const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide <= width, `${wide} of ${width}`);
    };
    const waiting = await opened((await agent.invite()).web, { colorScheme: scheme });
    const { device } = await agent.pending();
    await shownCode(waiting);
    await check(waiting);
    await agent.admit(device);
    await waiting.secure('Encrypted, verified');
    agent.devices.get(device).name = 'A tablet with a long name, which hangs on the wall of the kitchen';
    await openDevices(waiting);
    await waiting.page.click('#add-device');
    await waiting.page.locator('#qr').waitFor();
    await check(waiting);
    const other = await opened(await waiting.page.inputValue('#invite-link'), { colorScheme: scheme });
    await shownCode(other);
    await waiting.page.locator('#pending .primary').waitFor();
    await check(waiting);
    // The keyboard alone is enough.
    await waiting.page.locator('#pending .plain').focus();
    await waiting.page.keyboard.press('Tab');
    await waiting.page.keyboard.press('Enter');
    await other.secure('Encrypted, verified');
    await waiting.page.locator('#device-list li:nth-child(2) button').first().focus();
    await waiting.page.keyboard.press('Enter');
    await check(waiting);
  });
}

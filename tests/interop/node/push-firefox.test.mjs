// Notifications in Firefox, subscribing included: its push service is one of the test's own. What the relay adds is put in
// between, so that this holds whatever the relay can.
import assert from 'node:assert/strict';
import { createECDH } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Autopush } from './autopush.mjs';
import { DeviceAgent } from './device-agent.mjs';
import { Firefox } from './engines.mjs';
import { Front } from './front.mjs';
import { Relay } from './relay.mjs';

const DONE = '.message.agent[data-state="done"] .body';

let relay, front, service, firefox, agent;
const told = [];

before(async () => {
  const pair = createECDH('prime256v1');
  const vapid = pair.generateKeys().toString('base64url');
  const toRelay = (message, reply) => {
    if (message.type !== 'relay.push') return message;
    told.push(message.payload);
    return void reply({ v: 1, type: 'relay.ok', id: 'x', ts: 0, payload: { ref: message.id } });
  };
  const toPage = (message) => {
    if (message.type === 'auth.ok' && message.payload.ext && !message.payload.ext.pending) {
      message.payload.ext.push = { vapid, kinds: ['webpush'], state: told.at(-1)?.kind ? 'ok' : 'none' };
    }
    return message;
  };
  [relay, service] = await Promise.all([Relay.start(), Autopush.start()]);
  front = await Front.start(relay, toRelay, toPage);
  firefox = await Firefox.launch(service.preferences);
  service.vapid = vapid;
});

after(async () => {
  await firefox?.close();
  await agent?.close();
  service?.stop();
  front?.stop();
  await relay?.stop();
});

async function until(what, found) {
  for (let tries = 0; tries < 200; tries++) {
    const value = await found();
    if (value) return value;
    await delay(50);
  }
  throw new Error(`no ${what}`);
}

const shown = () => firefox.run(async () => {
  const worker = await navigator.serviceWorker.ready;
  return (await worker.getNotifications()).map(({ title, body }) => [title, body]);
});

test('subscribes on a tap, shows each push, and ends its subscription', async () => {
  agent = await DeviceAgent.connect(relay, await relay.token(), { pagePort: front.port });
  await firefox.open((await agent.invite()).web);
  await agent.admit((await agent.pending()).device);
  await firefox.shows('#security-label', 'Encrypted, verified');
  // The relay says what it offers to devices that it knows.
  await firefox.open(`http://127.0.0.1:${front.port}/`);
  await firefox.shows('#security-label', 'Encrypted, verified');
  await firefox.say('hello');
  await agent.chat();
  agent.answer('Hello.');
  await firefox.shows(DONE, 'Hello.');
  await firefox.shows('#offer-text', 'You can be told');
  assert.equal(service.channels.size, 0, 'nothing happens by itself');
  await firefox.click('#offer-yes');
  const { kind, endpoint, p256dh, auth, origin } = await until('subscription', () => told[0]);
  const [channel] = service.channels.values();
  assert.deepEqual([kind, endpoint, channel.key.replaceAll('=', ''), origin], ['webpush', channel.endpoint, service.vapid, `http://127.0.0.1:${front.port}`]);
  assert.deepEqual([p256dh, auth].map((text) => Buffer.from(text, 'base64url').length), [65, 16]);
  assert.ok(service.push(endpoint));
  assert.deepEqual(await until('first notification', async () => (await shown())[0]), ['CoralMux', 'Your agent has answered']);
  // It subscribes no second time, until the browser has dropped it.
  const again = async () => {
    await firefox.open(`http://127.0.0.1:${front.port}/`);
    await firefox.shows('#security-label', 'Encrypted, verified');
    await delay(500);
  };
  await again();
  assert.equal(told.length, 1);
  await firefox.run(async () => (await (await navigator.serviceWorker.ready).pushManager.getSubscription()).unsubscribe());
  await again();
  await until('new subscription', () => told.length === 2);
  assert.notEqual(told[1].endpoint, endpoint);
  assert.ok(!service.push(endpoint) && service.push(told[1].endpoint));
  await until('notification', async () => (await shown()).length);
  await firefox.click('#more');
  await firefox.click('#notify-switch');
  await until('end of it', () => told[2]);
  assert.deepEqual(told[2], { kind: null });
  await until('end of the subscription', () => !service.channels.size);
});

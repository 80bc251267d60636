// Notifications in Firefox, the whole way: it subscribes at a push service of the tests, the relay wakes it there, and what the
// relay has sealed is shown.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { DeviceAgent } from './device-agent.mjs';
import { Firefox } from './engines.mjs';
import { PushService } from './push-service.mjs';
import { Relay } from './relay.mjs';

const DONE = '.message.agent[data-state="done"] .body';

let relay, service, firefox, agent, device;

before(async () => {
  service = await PushService.start();
  process.env.SSL_CERT_FILE = service.cert;
  relay = await Relay.start(...service.flags);
  firefox = await Firefox.launch(service.preferences);
});

after(async () => {
  await firefox?.close();
  await agent?.close();
  await relay?.stop();
  await service?.stop();
});

async function until(what, found) {
  for (let tries = 0; tries < 400; tries++) {
    const value = await found();
    if (value) return value;
    await delay(50);
  }
  throw new Error(`no ${what}`);
}

const page = () => firefox.open(`http://127.0.0.1:${relay.port}/`);
const elsewhere = () => firefox.open(`http://127.0.0.1:${relay.port}/phone/licences.txt`);

async function chatting() {
  await page();
  await firefox.shows('#security-label', 'Encrypted, verified');
}

// The subscription that the browser has, and its notifications.
const endpoint = () => firefox.run(async () => (await (await navigator.serviceWorker.ready).pushManager.getSubscription())?.endpoint ?? null);
const shown = () => firefox.run(async () => (await (await navigator.serviceWorker.ready).getNotifications()).map(({ title, body }) => [title, body]));
// What the page knows that the relay has been told.
const told = () => firefox.run(() => Object.values(JSON.parse(localStorage.getItem('coralmux.push'))?.told ?? {})[0]?.endpoint ?? null);

// While nobody is there, the agent says something that wakes: the path that the relay calls at the push service.
async function woken(text) {
  const before = service.pushes.length;
  await elsewhere();
  await until('absence', () => !agent.devices.get(device).online);
  assert.equal((await agent.mail(device, 'chat.done', { full_text: text, ref: text }, 'wake')).type, 'relay.kept');
  return (await until('notification on its way', () => service.pushes[before])).path;
}

test('subscribes on a tap, is woken by the relay, subscribes anew when the browser has dropped it, and ends its subscription', async () => {
  agent = await DeviceAgent.connect(relay, await relay.token());
  await firefox.open((await agent.invite()).web);
  ({ device } = await agent.pending());
  await agent.admit(device);
  await firefox.shows('#security-label', 'Encrypted, verified');
  // The relay says what it offers to devices that it knows.
  await chatting();
  await firefox.say('hello');
  await agent.chat();
  agent.answer('Hello.');
  await firefox.shows(DONE, 'Hello.');
  await firefox.shows('#offer-text', 'You can be told');
  assert.equal(await endpoint(), null, 'nothing happens by itself');
  await firefox.click('#offer-yes');
  const first = await until('subscription', told);
  assert.equal(await endpoint(), first);
  assert.ok(first.startsWith(service.url), first);
  assert.equal(service.url + (await woken('While nobody looked.')), first);
  assert.deepEqual(await until('notification', async () => (await shown())[0]), ['CoralMux', 'Your agent has answered']);
  await chatting();
  await firefox.shows(DONE, 'While nobody looked.');
  await until('end of the notification, which has been seen', async () => !(await shown()).length);
  assert.equal(await told(), first, 'it subscribes no second time');
  await firefox.run(async () => (await (await navigator.serviceWorker.ready).pushManager.getSubscription()).unsubscribe());
  await chatting();
  const second = await until('new subscription', async () => (await told()) !== first && told());
  assert.equal(service.url + (await woken('Once more.')), second);
  await chatting();
  await firefox.shows(DONE, 'Once more.');
  await firefox.click('#more');
  await firefox.click('#notify-switch');
  await until('end of it', async () => !(await told()));
  assert.equal(await endpoint(), null);
  const pushes = service.pushes.length;
  await elsewhere();
  await until('absence', () => !agent.devices.get(device).online);
  await agent.mail(device, 'chat.done', { full_text: 'In silence.', ref: 'x' }, 'wake');
  await delay(1_500);
  assert.equal(service.pushes.length, pushes);
});

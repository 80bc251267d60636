// Notifications, in Chromium: what the service worker shows, and when the page offers them. Chromium cannot subscribe without
// its maker's servers: the push is handed in by DevTools, and subscriptions are made up in the page.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { House, check, look } from './house.mjs';

const vapidOf = (byte) => Buffer.concat([Buffer.of(4), Buffer.alloc(64, byte)]).toString('base64url');
const offered = (state = 'none', vapid = vapidOf(7)) => ({ vapid, kinds: ['webpush', 'unifiedpush'], state });
const permitted = { permissions: ['notifications'] };

let house;

before(async () => (house = await House.start()));
after(() => house?.stop());
afterEach(() => house.leave());

// A browser that was let in, and what a relay that wakes devices adds: `relay.push` is answered as `answer` says.
async function woken(options, answer = { type: 'relay.ok' }, prepare = () => {}) {
  const phone = await house.enrolled(undefined, options, async (one) => {
    one.told = [];
    one.offered = offered();
    await one.page.routeWebSocket(/\/ws$/, (page) => {
      const server = page.connectToServer();
      page.onMessage((text) => {
        const { id, type, payload } = JSON.parse(text);
        if (type !== 'relay.push') return server.send(text);
        one.told.push(payload);
        return page.send(JSON.stringify({ v: 1, id: 'x', ts: 0, ...answer, payload: { ...answer.payload, ref: id } }));
      });
      server.onMessage((text) => {
        const message = JSON.parse(text);
        if (message.type === 'auth.ok') message.payload.ext.push = one.offered;
        page.send(JSON.stringify(message));
      });
    });
    await one.page.addInitScript(() => {
      const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (byte) => byte.charCodeAt(0));
      const save = (value) => localStorage.setItem('made up', JSON.stringify((globalThis.subscribed = value)));
      globalThis.subscribed = JSON.parse(localStorage.getItem('made up'));
      const made = () => globalThis.subscribed && {
        options: { applicationServerKey: bytes(globalThis.subscribed.key).buffer },
        toJSON: () => ({ endpoint: globalThis.subscribed.endpoint, keys: { p256dh: 'p', auth: 'a' } }),
        unsubscribe: async () => (save(null), true),
      };
      PushManager.prototype.getSubscription = async () => made();
      PushManager.prototype.subscribe = async ({ applicationServerKey: key, userVisibleOnly }) => {
        if (!userVisibleOnly) throw new Error('it would show nothing');
        save({ key, endpoint: `https://push.example/${crypto.randomUUID()}` });
        return made();
      };
    });
    await prepare(one);
  });
  // The relay says what it offers to devices that it knows.
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  return phone;
}

async function settings({ page }) {
  await page.click('#more');
  await page.locator('#notify').waitFor();
}

async function until(what, found) {
  for (let tries = 0; tries < 200; tries++) {
    const value = await found();
    if (value) return value;
    await delay(50);
  }
  throw new Error(`no ${what}`);
}

test('a push shows the notification, whatever is in it and also with the page visible; a click shows the conversation', async () => {
  await house.begin();
  const phone = await house.enrolled(undefined, permitted);
  const { page, context } = phone;
  await page.evaluate(async () => void (await navigator.serviceWorker.ready));
  const devTools = await context.newCDPSession(page);
  const registrations = [];
  devTools.on('ServiceWorker.workerRegistrationUpdated', (news) => registrations.push(...news.registrations));
  await devTools.send('ServiceWorker.enable');
  const { registrationId } = await until('registration', () => registrations.at(-1));
  const { origin } = new URL(page.url());
  const deliver = (data) => devTools.send('ServiceWorker.deliverPushMessage', { origin, registrationId, data });
  const [worker] = context.serviceWorkers();
  const shown = () => worker.evaluate(async () => (await self.registration.getNotifications()).map(({ title, body, tag }) => ({ title, body, tag })));
  for (const data of ['', 'Your account is locked: evil.example', '{"notification":{"title":"x"}}']) {
    await deliver(data);
    await until('notification', async () => (await shown()).length);
    await delay(100);
    assert.deepEqual(await shown(), [{ title: 'CoralMux', body: 'Your agent has answered', tag: 'coralmux' }], 'one, and always the same');
  }
  // A click is the system's: what follows from it, without one.
  const click = () => worker.evaluate(async () => {
    const done = [];
    WindowClient.prototype.focus = async function focus() {
      done.push(`focus ${new URL(this.url).pathname}`);
      return this;
    };
    self.clients.openWindow = async (url) => void done.push(`open ${new URL(url).pathname}`);
    const [notification] = await self.registration.getNotifications();
    const work = [];
    const event = new NotificationEvent('notificationclick', { notification });
    event.waitUntil = (one) => work.push(one);
    self.dispatchEvent(event);
    await Promise.all(work);
    return { done, left: (await self.registration.getNotifications()).length };
  });
  assert.deepEqual(await click(), { done: ['focus /'], left: 0 });
  await deliver('');
  await until('notification', async () => (await shown()).length);
  await page.goto('about:blank');
  assert.deepEqual(await click(), { done: ['open /'], left: 0 });
});

test('notifications are offered after the first answer, asked for on a tap, and turned off again', async () => {
  await house.begin();
  const phone = await woken(permitted);
  const { page } = phone;
  await page.evaluate(() => {
    const ask = Notification.requestPermission;
    globalThis.asked = 0;
    Notification.requestPermission = () => (globalThis.asked += 1) && ask.call(Notification);
  });
  assert.ok(await page.locator('#offer').isHidden(), 'not before there is an answer');
  await house.talk(phone, 'hello', 'Hello.');
  await page.locator('#offer-yes').waitFor();
  await check(phone);
  assert.deepEqual([await page.evaluate(() => globalThis.asked), phone.told], [0, []], 'nothing happens by itself');
  await page.click('#offer-yes');
  await until('subscription', () => phone.told.length);
  assert.equal(await page.evaluate(() => globalThis.asked), 1);
  const [{ endpoint, ...told }] = phone.told;
  assert.deepEqual(told, { kind: 'webpush', p256dh: 'p', auth: 'a', origin: new URL(page.url()).origin });
  assert.match(endpoint, /^https:..push.example/);
  await page.locator('#offer').waitFor({ state: 'hidden' });
  await settings(phone);
  await phone.shows('#notify-text', 'You are told when your agent answers');
  await phone.shows('#notify-text', 'never says what was written');
  await check(phone);
  await page.click('#notify-switch');
  await until('end of it', () => phone.told.length === 2);
  assert.deepEqual(phone.told[1], { kind: null });
  assert.equal(await page.evaluate(() => globalThis.subscribed), null);
  await phone.shows('#notify-switch', 'Turn notifications on');
});

test('the page subscribes anew where the browser or the relay dropped it, or has another key; and no more often', async () => {
  await house.begin();
  const phone = await woken(permitted);
  const { page } = phone;
  await settings(phone);
  await page.click('#notify-switch');
  await until('subscription', () => phone.told.length === 1);
  const subscribed = () => page.evaluate(() => globalThis.subscribed);
  const again = async (offer, change = () => {}) => {
    phone.offered = offer;
    phone.told.length = 0;
    await page.evaluate(change);
    await page.reload();
    await phone.secure('Encrypted, verified');
    await delay(300);
    return phone.told.map(({ kind }) => kind);
  };
  assert.deepEqual(await again(offered('ok')), [], 'the relay has it');
  const { endpoint } = await subscribed();
  assert.deepEqual(await again(offered('none')), ['webpush'], 'the relay lost it');
  assert.equal((await subscribed()).endpoint, endpoint);
  assert.deepEqual(await again(offered('gone')), ['webpush'], 'the push service lost it');
  assert.notEqual((await subscribed()).endpoint, endpoint);
  assert.deepEqual(await again(offered('ok'), () => localStorage.removeItem('made up')), ['webpush'], 'the browser dropped it');
  assert.deepEqual(await again(offered('ok', vapidOf(9))), ['webpush'], 'the relay has another key');
  assert.equal((await subscribed()).key, vapidOf(9));
  assert.deepEqual(await again({ kinds: ['hook'], state: 'none' }), [], 'nothing for a browser');
});

test('who declines is not asked again, and a relay that refuses is quoted', async () => {
  await house.begin();
  const refusal = { code: 'PUSH_REFUSED', message: 'the port of the endpoint is not 443' };
  const phone = await woken(permitted, { type: 'chat.error', payload: refusal });
  const { page } = phone;
  await house.talk(phone, 'hello', 'Hello.');
  await page.click('#offer-no');
  await page.reload();
  await phone.secure('Encrypted, verified');
  await delay(200);
  assert.ok(await page.locator('#offer').isHidden());
  await settings(phone);
  await page.click('#notify-switch');
  await phone.shows('#notify-text', 'not verified): the port of the endpoint is not 443');
  await check(phone);
});

test('an iPhone is told about the home screen first, and is asked nothing', async () => {
  await house.begin();
  const iPhone = ({ page }) => page.addInitScript(() => Object.defineProperty(navigator, 'standalone', { value: false }));
  const phone = await woken({ colorScheme: 'dark' }, undefined, iPhone);
  await house.talk(phone, 'hello', 'Hello.');
  await phone.shows('#offer-text', 'Add to Home Screen');
  assert.ok(await phone.page.locator('#offer-yes').isHidden());
  await check(phone);
  await phone.page.click('#offer-no');
  await settings(phone);
  await phone.shows('#notify-text', 'Add to Home Screen');
  assert.ok(await phone.page.locator('#notify-switch').isHidden());
});

test('what comes while nobody looks is counted on the icon and in the title, and marked in the conversation', async () => {
  await house.begin();
  const phone = await house.enrolled(undefined, undefined, ({ page }) => page.addInitScript(() => {
    globalThis.badges = [];
    navigator.setAppBadge = async (count) => void globalThis.badges.push(count);
    navigator.clearAppBadge = async () => void globalThis.badges.push(0);
  }));
  const { page } = phone;
  await house.talk(phone, 'hello', 'Hello.');
  assert.equal(await page.locator('.new').count(), 0);
  const badges = () => page.evaluate(() => globalThis.badges.splice(0));
  await badges();
  await page.evaluate(() => Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true }));
  house.agent.answer('One.');
  house.agent.answer('Two.');
  await phone.shows('.new', '2 new messages');
  assert.equal(await page.title(), '(2) CoralMux');
  assert.deepEqual(await badges(), [1, 2]);
  await look(phone, 'visible');
  assert.equal(await page.title(), 'CoralMux');
  assert.deepEqual(await badges(), [0]);
  const order = await page.locator('#log > li').allInnerTexts();
  assert.equal(order.findIndex((text) => text.includes('2 new')), order.findIndex((text) => text.includes('One.')) - 1, order.join('|'));
  await check(phone);
  await phone.say('thanks');
  await page.locator('.new').waitFor({ state: 'detached' });
});

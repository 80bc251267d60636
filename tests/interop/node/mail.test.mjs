// What the relay has kept for a browser that was away: it comes whole, once and in order, and the relay deletes it only when it
// is on the browser's disk.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { DONE, House } from './house.mjs';

let house;

before(async () => (house = await House.start()));
after(() => house?.stop());
afterEach(() => house.leave());

const page = () => `http://127.0.0.1:${house.relay.port}/`;

// A browser that was let in and is away; `said` has what it says to the relay afterwards, and `drop(type)` may keep some of it back.
async function away() {
  const agent = await house.begin();
  const phone = await house.enrolled(undefined, undefined, async (one) => {
    one.said = [];
    one.pages = [];
    await one.page.routeWebSocket(/\/ws$/, (socket) => {
      const server = socket.connectToServer();
      socket.onMessage((text) => {
        const message = JSON.parse(text);
        if (one.drops?.(message)) return;
        one.said.push(message);
        server.send(text);
      });
      server.onMessage((text) => {
        const { type, payload } = JSON.parse(text);
        if (type === 'relay.mail') one.pages.push(payload);
        socket.send(text);
      });
    });
  });
  await house.talk(phone, 'hello', 'Hello.');
  await phone.page.goto('about:blank');
  while (agent.devices.get(phone.device).online) await delay(20);
  phone.said.length = 0;
  return { agent, phone };
}

async function mails({ agent, phone }, count, from = 1) {
  for (let at = from; at < from + count; at++) {
    const answer = await agent.mail(phone.device, 'chat.done', { full_text: `Mail ${at}.`, ref: `r${at}` });
    assert.equal(answer.type, 'relay.kept', JSON.stringify(answer));
  }
}

const texts = (count) => ['Hello.', ...Array.from({ length: count }, (_, at) => `Mail ${at + 1}.`)];
const acknowledged = ({ said }) => said.filter(({ type }) => type === 'relay.mail.ack').map(({ payload }) => payload.upto);

test('what was kept comes in order, is marked as new, and is acknowledged page by page', async () => {
  const house = await away();
  const { agent, phone } = house;
  await mails(house, 70);
  await phone.page.goto(page());
  await phone.shows(DONE, 'Mail 70.');
  await phone.shows('.new', '70 new messages');
  assert.deepEqual(await phone.messages('agent'), texts(70));
  assert.ok(phone.pages.length >= 3, 'several pages');
  while (acknowledged(phone).length < phone.pages.length) await delay(20);
  assert.deepEqual(acknowledged(phone), phone.pages.map(({ upto }) => upto));
  await phone.secure('Encrypted, verified');
  await phone.say('thanks');
  assert.equal((await agent.chat()).text, 'thanks');
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  assert.deepEqual(await phone.messages('agent'), texts(70));
});

test('a page of it that was not acknowledged comes again, and is shown once', async () => {
  const house = await away();
  const { phone } = house;
  await mails(house, 3);
  phone.drops = ({ type }) => type === 'relay.mail.ack';
  await phone.page.goto(page());
  await phone.shows(DONE, 'Mail 3.');
  await phone.page.goto('about:blank');
  phone.drops = null;
  phone.pages.length = 0;
  await phone.page.goto(page());
  while (!acknowledged(phone).length) await delay(20);
  assert.ok(phone.pages.some(({ upto }) => upto > 0), 'it came again');
  await delay(300);
  assert.deepEqual(await phone.messages('agent'), texts(3));
});

test('nothing is acknowledged that the browser could not store; it is when there is room again', async () => {
  const house = await away();
  const { phone } = house;
  await mails(house, 2);
  await phone.page.addInitScript(() => {
    const begin = IDBDatabase.prototype.transaction;
    globalThis.durabilities = [];
    IDBDatabase.prototype.transaction = function transaction(stores, mode, options) {
      const made = begin.call(this, stores, mode, options);
      if (mode === 'readwrite') globalThis.durabilities.push(options?.durability);
      if (mode === 'readwrite' && globalThis.isFull) queueMicrotask(() => made.abort());
      return made;
    };
    // When what it kept has been read.
    if (name !== 'roomy') globalThis.WebSocket = class extends WebSocket {
      constructor(...given) {
        super(...given);
        globalThis.isFull = true;
      }
    };
  });
  await phone.page.goto(page());
  await phone.shows(DONE, 'Mail 2.');
  await delay(1_500);
  assert.deepEqual(acknowledged(phone), []);
  await phone.page.evaluate(() => (globalThis.isFull = false));
  while (!acknowledged(phone).length) await delay(20);
  assert.deepEqual([...new Set(await phone.page.evaluate(() => globalThis.durabilities))], ['strict']);
  await phone.page.evaluate(() => (globalThis.name = 'roomy'));
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  assert.deepEqual(await phone.messages('agent'), texts(2));
});

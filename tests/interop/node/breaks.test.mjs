// The phone in the browser where connections break, the relay dies and agents start anew: nothing is lost, nothing comes
// twice, and what is shown is so.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent } from './agent.mjs';
import { Phone, launch, link } from './browser.mjs';
import { Cutting } from './cutting.mjs';
import { Relay } from './relay.mjs';

let browser;

before(async () => {
  browser = await launch();
});

after(() => browser?.close());

// A relay of its own with a pair, whose phone connects through a network that can be cut.
async function pair(options = {}, phoneRate = 0) {
  const relay = await Relay.start('--phone-rate', String(phoneRate), '--agent-rate', '0');
  const cutting = await Cutting.start(relay.port);
  const [token, secret] = [await relay.token(), randomBytes(32)];
  const agent = await Agent.connect(relay.url, token, { secret, resume: true, name: 'Coral', ...options });
  const address = link(cutting, token, secret);
  const phone = await Phone.open(browser, address);
  await phone.secure('Encrypted, verified');
  await phone.shows('#agent-name', options.name ?? 'Coral');
  const close = async () => {
    await phone.close();
    await agent.close();
    cutting.close();
    await relay.stop();
  };
  return { relay, cutting, agent, phone, token, secret, address, close };
}

async function asks({ agent, phone }, question) {
  const asked = agent.chat();
  await phone.say(question);
  assert.equal((await asked).text, question);
}

const words = (from, to) => Array.from({ length: to - from }, (_, at) => `w${from + at} `).join('');

function streams(agent, from, to) {
  for (let at = from; at < to; at++) agent.say('chat.stream', { delta: `w${at} `, seq: at + 1, ref: agent.lastId });
}

const shot = (phone, name) => process.env.SHOTS && phone.page.screenshot({ path: `${process.env.SHOTS}/${name}.png` });

// Nobody's answer was called broken off, nothing is missing.
async function isWhole(phone, text) {
  await phone.shows('.message.agent[data-state="done"] .body', text.trim());
  assert.deepEqual((await phone.messages('agent')).map((one) => one.trim()), [text.trim()]);
  assert.deepEqual(await phone.page.locator('.message .bad').allInnerTexts(), []);
  assert.deepEqual(await phone.messages('note'), []);
}

test('the connection is cut in an answer, again and again: each piece is there once', async () => {
  const at = await pair();
  const { phone, agent, cutting } = at;
  await asks(at, 'count');
  for (let round = 0; round < 3; round++) {
    streams(agent, round * 100, round * 100 + 50);
    await phone.shows('.message.agent[data-state="streaming"] .body', `w${round * 100 + 49} `.trim());
    streams(agent, round * 100 + 50, round * 100 + 80);
    cutting.cut();
    streams(agent, round * 100 + 80, round * 100 + 100);
  }
  await phone.shows('.message.agent[data-state="streaming"] .body', 'w299');
  // How pieces are spaced on the screen is not what this is about.
  const bare = (text) => text.replace(/\s/g, '');
  assert.deepEqual((await phone.messages('agent')).map(bare), [bare(words(0, 300))], 'before the whole text comes');
  agent.say('chat.done', { full_text: words(0, 300), ref: agent.lastId });
  await isWhole(phone, words(0, 300));
  await at.close();
});

test('the relay is killed and started in an answer', async () => {
  const at = await pair();
  const { phone, agent, relay } = at;
  await asks(at, 'count');
  streams(agent, 0, 30);
  await phone.shows('.message.agent .body', 'w29');
  relay.program.process.kill('SIGKILL');
  await phone.shows('.message.agent[data-state="streaming"] .doing', 'Interrupted. It goes on when the connection is back.');
  await shot(phone, 'interrupted');
  streams(agent, 30, 60);
  await relay.run();
  await agent.reconnect();
  streams(agent, 60, 90);
  await phone.shows('.message.agent[data-state="streaming"] .body', 'w89');
  assert.equal(await phone.page.locator('.message.agent .doing:visible').count(), 0);
  agent.say('chat.done', { full_text: words(0, 90), ref: agent.lastId });
  await isWhole(phone, words(0, 90));
  assert.equal(agent.chats.length, 1);
  await at.close();
});

test('one tick: the relay has it; two: the agent has it', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'hello');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  await shot(phone, 'one-tick');
  await delay(1500);
  assert.equal(await phone.page.locator('.ticks[data-ticks="2"]').count(), 0, 'not without a word of the agent');
  agent.isMute = false;
  agent.say('chat.tool_status', { status: 'thinking', message: 'The model is thinking', ref: agent.lastId });
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  await shot(phone, 'two-ticks');
  await phone.page.reload();
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  await phone.page.locator('.thinking').waitFor();
  agent.say('chat.done', { full_text: 'Here.', ref: agent.lastId });
  await isWhole(phone, 'Here.');
  await at.close();
});

test('a question that was not acknowledged survives a reload without the relay, and arrives once', async () => {
  const at = await pair();
  const { phone, agent, relay } = at;
  await phone.page.evaluate(() => navigator.serviceWorker.ready);
  agent.isMute = true;
  await asks(at, 'taken, and not acknowledged');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  relay.program.process.kill('SIGKILL');
  await phone.shows('#presence-text', 'Reconnecting');
  await phone.say('never left');
  await phone.shows('.message.me[data-state="waiting"] .meta', 'Waits to be sent');
  await phone.page.reload();
  await phone.page.locator('.message.me[data-state="waiting"]').nth(1).waitFor();
  await shot(phone, 'reloaded-without-relay');
  agent.isMute = false;
  await relay.run();
  await agent.reconnect();
  await phone.page.locator('.message.me .ticks[data-ticks="2"]').nth(1).waitFor();
  assert.deepEqual(agent.chats.map(({ text }) => text), ['taken, and not acknowledged', 'never left']);
  const [first] = agent.records.filter(({ p }) => p.text?.startsWith('taken'));
  const again = agent.records.find(({ o }) => o);
  assert.deepEqual(again.o, { e: first.e, n: first.n }, 'it says which one it was');
  assert.equal(again.id, first.id);
  await at.close();
});

test('the agent is restarted in an answer, and before one: both are told', async () => {
  const at = await pair();
  const { phone, agent } = at;
  await asks(at, 'first');
  streams(agent, 0, 10);
  await phone.shows('.message.agent .body', 'w9');
  await asks(at, 'second');
  await phone.page.locator('.message.me .ticks[data-ticks="2"]').nth(1).waitFor();
  await agent.close();
  await phone.shows('#presence-text', 'Offline');
  const next = await Agent.connect(agent.url, at.token, { secret: at.secret, resume: true, name: 'Coral' });
  await phone.shows('.message.agent[data-state="cut"] .meta', 'The agent was restarted');
  await phone.shows('.message.me[data-state="failed"] .meta', 'The agent was restarted');
  await shot(phone, 'agent-restarted');
  assert.equal(await phone.page.locator('.thinking').count(), 0);
  const asked = next.chat();
  await phone.page.getByRole('button', { name: 'Send again' }).click();
  assert.equal((await asked).text, 'second');
  next.say('chat.done', { full_text: 'Here.', ref: next.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Here.');
  await phone.close();
  await next.close();
  at.cutting.close();
  await at.relay.stop();
});

test('a question that the new agent gets is not ended by the restart', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'who has it?');
  await agent.close();
  await phone.shows('#presence-text', 'Offline');
  const next = await Agent.connect(agent.url, at.token, { secret: at.secret, resume: true, name: 'Coral' });
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  assert.equal(next.chats[0].text, 'who has it?');
  await phone.page.locator('.thinking').waitFor();
  next.say('chat.done', { full_text: 'I have.', ref: next.lastId });
  await isWhole(phone, 'I have.');
  await phone.close();
  await next.close();
  at.cutting.close();
  await at.relay.stop();
});

test('an agent that no longer resumes is told, and what nobody confirmed', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'is it there?');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  agent.resume = false;
  await agent.reconnect();
  await phone.shows('.message.note .body', 'The agent no longer confirms what it gets');
  await phone.shows('.message.me[data-state="failed"] .meta', 'It is not known whether the agent has this');
  await shot(phone, 'no-longer-resumes');
  const asked = agent.chat();
  await phone.say('and now?');
  assert.equal((await asked).text, 'and now?');
  agent.say('chat.done', { full_text: 'Yes.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Yes.');
  await at.close();
});

test('an old agent: one tick, two with its answer; what was said into a dead connection goes out again', async () => {
  const at = await pair({ resume: false });
  const { phone, agent, cutting } = at;
  await asks(at, 'one');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  agent.answer('First.');
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  cutting.stall();
  const asked = agent.chat();
  await phone.say('two');
  await phone.shows('.message.me[data-state="sending"] .meta', 'Sending…');
  await delay(500);
  assert.equal(await phone.page.locator('.message.me .ticks').count(), 1, 'not sent');
  await shot(phone, 'dead-connection');
  cutting.pass();
  assert.equal((await asked).text, 'two');
  agent.answer('Second.');
  await phone.shows('.message.agent[data-state="done"] .body', 'Second.');
  assert.deepEqual(agent.chats.map(({ text }) => text), ['one', 'two']);
  assert.equal(await phone.page.locator('.message.note').count(), 0);
  await at.close();
});

test('what was said while there was no connection is sent once, whichever of two tabs finds it first', async () => {
  const at = await pair();
  const { phone, agent, relay, cutting } = at;
  await phone.page.evaluate(() => navigator.serviceWorker.ready);
  cutting.stall();
  cutting.cut();
  await phone.shows('#presence-text', 'Connecting');
  await phone.say('only once');
  await phone.shows('.message.me[data-state="waiting"]', 'only once');
  const second = await phone.context.newPage();
  await second.goto(`http://127.0.0.1:${cutting.port}/`, { waitUntil: 'commit' });
  await second.locator('.message.me[data-state="waiting"]').waitFor();
  cutting.pass();
  await second.locator('.message.me .ticks[data-ticks="2"]').waitFor();
  await phone.shows('#banner-title', 'open elsewhere');
  agent.say('chat.done', { full_text: 'Heard.', ref: agent.lastId });
  await second.locator('.message.agent', { hasText: 'Heard.' }).waitFor();
  await shot(phone, 'taken-over');
  await second.close();
  await phone.page.click('#banner-action');
  await phone.shows('.message.agent', 'Heard.');
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  await asks(at, 'again');
  assert.deepEqual(agent.chats.map(({ text }) => text), ['only once', 'again']);
  await at.close();
});

test('what the agent gave up is counted, and said', async () => {
  const at = await pair();
  const { phone, agent } = at;
  await asks(at, 'hello');
  agent.skip(3);
  agent.say('chat.done', { full_text: 'The rest.', ref: agent.lastId });
  await phone.shows('.message.note .body', '3 messages from the agent did not arrive.');
  await shot(phone, 'missed');
  await at.close();
});

test('an answer that is taken is kept before it is acknowledged; where nothing is kept, the chat goes on', async () => {
  const at = await pair();
  const { phone, agent } = at;
  await asks(at, 'hello');
  await phone.page.evaluate(() => {
    globalThis.put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (...all) {
      const request = globalThis.put.apply(this, all);
      this.transaction.abort();
      return request;
    };
  });
  const before = agent.acknowledged;
  agent.say('chat.done', { full_text: 'Kept?', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Kept?');
  assert.equal(agent.acknowledged, before);
  await phone.page.evaluate(() => (IDBObjectStore.prototype.put = globalThis.put));
  for (let tries = 0; agent.acknowledged === before; tries++) {
    assert.ok(tries < 100, 'acknowledged when it is kept');
    await delay(100);
  }
  await phone.page.reload();
  await phone.shows('.message.agent[data-state="done"] .body', 'Kept?');
  await at.close();
});

test('keys that no longer fit are agreed upon anew, and nothing is lost or twice by that', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'once');
  streams(agent, 0, 10);
  await phone.shows('.message.agent .body', 'w9');
  agent.isMute = false;
  agent.client.send('chat.error', { code: 'DECRYPTION_FAILED', message: 'these are not our keys' });
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  await asks(at, 'twice?');
  assert.deepEqual(agent.chats.map(({ text }) => text), ['once', 'twice?']);
  assert.ok(agent.records.filter(({ p }) => p.text === 'once').length >= 1);
  agent.say('chat.done', { full_text: 'No.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'No.');
  await at.close();
});

test('what the relay refuses for now goes out again by itself, and what it refuses for good is told', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'too soon');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  const sent = () => agent.records.filter(({ p }) => p.text === 'too soon').length;
  agent.client.send('chat.error', { code: 'RATE_LIMITED', message: 'slowly', retry_after_ms: 1500, ref: agent.lastId });
  await phone.shows('.message.me[data-state="waiting"] .meta', 'Waits to be sent. The relay says (not verified): Too many messages.');
  await shot(phone, 'refused-for-now');
  assert.equal(await phone.page.locator('.thinking:visible').count(), 0);
  assert.equal(sent(), 1);
  await phone.shows('.message.me[data-state="sent"] .ticks[data-ticks="1"]', 'Sent');
  assert.equal(sent(), 2);
  agent.client.send('chat.error', { code: 'MESSAGE_TOO_LARGE', message: 'no', ref: agent.lastId });
  await phone.shows('.message.me[data-state="failed"] .meta', 'The relay says (not verified): The message is too large');
  assert.equal(agent.chats.length, 1);
  await at.close();
});

test('who writes faster than the relay allows waits for it, and each question arrives once and in order', async () => {
  const at = await pair({}, 12);
  const { phone, agent } = at;
  const questions = Array.from({ length: 11 }, (_, number) => `question ${number}`);
  for (const question of questions) await phone.say(question);
  await phone.shows('.message.me[data-state="waiting"] .meta', 'The relay says (not verified): Too many messages.');
  // What is written meanwhile comes after it.
  await phone.say('and one more');
  await phone.page.locator('.message.me[data-state="waiting"]').first().waitFor({ state: 'detached', timeout: 30_000 });
  await phone.page.locator(`.ticks[data-ticks="2"] >> nth=${questions.length}`).waitFor({ timeout: 30_000 });
  assert.deepEqual(agent.chats.map(({ text }) => text), [...questions, 'and one more']);
  assert.deepEqual(await phone.messages('note'), []);
  await at.close();
});

test('an error that nobody knows holds up nothing: the message is not shown as sent, and is not lost', async () => {
  const at = await pair();
  const { phone, agent } = at;
  agent.isMute = true;
  await asks(at, 'first');
  await phone.shows('.message.me .ticks[data-ticks="1"]', 'Sent');
  agent.client.send('chat.error', { code: 'NEWER_THAN_THIS', message: 'no room', ref: agent.lastId });
  await phone.shows('.message.me[data-state="waiting"] .meta', 'Waits to be sent. The relay says (not verified): no room');
  await asks(at, 'second');
  await phone.shows('.message.me[data-state="sent"] .body', 'second');
  assert.equal(await phone.page.locator('.message.me[data-state="waiting"]').count(), 1);
  agent.isMute = false;
  await asks(at, 'third');
  for (const question of ['first', 'second', 'third']) {
    await phone.shows(`.message.me:has-text("${question}") .ticks[data-ticks="2"]`, 'Delivered');
  }
  assert.deepEqual(agent.records.map(({ p }) => p.text).filter(Boolean), ['first', 'second', 'third'], 'each left once');
  await at.close();
});

test('an error that somebody invents does not undo what the agent has confirmed', async () => {
  const at = await pair();
  const { phone, agent } = at;
  await asks(at, 'are you there?');
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  agent.client.send('chat.error', { code: 'BACKEND_ERROR', message: 'It never arrived', ref: agent.lastId });
  await phone.shows('.message.note .body', 'The relay says (not verified): It never arrived');
  await phone.shows('.message.me[data-state="sent"] .ticks[data-ticks="2"]', 'Delivered');
  agent.say('chat.done', { full_text: 'Yes.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Yes.');
  await at.close();
});

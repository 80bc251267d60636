// What an agent does and asks, in the browser: activity, and questions that are answered with buttons or in words.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent } from './agent.mjs';
import { Phone, launch, link } from './browser.mjs';
import { Relay } from './relay.mjs';

let relay;
let browser;

before(async () => {
  [relay, browser] = await Promise.all([Relay.start('--phone-rate', '0', '--agent-rate', '0'), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
});

async function pair() {
  const [token, secret] = [await relay.token(), randomBytes(32)];
  const agent = await Agent.connect(relay.url, token, { secret, resume: true, name: 'Coral' });
  const phone = await Phone.open(browser, link(relay, token, secret));
  await phone.secure('Encrypted, verified');
  const close = async () => {
    await phone.close();
    await agent.close();
  };
  const ask = async (question) => {
    const asked = agent.chat();
    await phone.say(question);
    return asked;
  };
  return { agent, phone, ask, close };
}

// What the phone has answered, as soon as there are so many answers.
async function answers(agent, count) {
  for (let tries = 0; tries < 200; tries++) {
    const sent = agent.records.filter(({ type }) => type === 'chat.answer').map(({ p }) => p);
    if (sent.length >= count) return sent;
    await delay(50);
  }
  throw new Error('no answer came');
}

const QUESTION = {
  ask: 'q-1',
  text: 'May I run\nrm -r build?',
  options: [
    { id: 'once', label: 'Allow once', kind: 'allow_once' },
    { id: 'no', label: 'Reject', kind: 'reject_once' },
  ],
  default: 'no',
  expires_at: 1707451500000,
  chat_id: 'c1',
};

test('a question has buttons, is answered once, and stays in the conversation', async () => {
  const { agent, phone, ask, close } = await pair();
  const question = await ask('clean up');
  assert.equal(question.asks, 1, 'the page says that it shows questions');
  agent.say('chat.stream', { delta: 'I need to clean up.', seq: 1, ref: agent.lastId });
  agent.say('chat.ask', { ...QUESTION, ref: agent.lastId });
  await phone.shows('.question p', 'rm -r build?');
  await phone.page.locator('.question button', { hasText: 'Allow once' }).click();
  assert.deepEqual(await answers(agent, 1), [{ ask: 'q-1', option: 'once', chat_id: 'c1' }]);
  await phone.page.locator('.question button:disabled').first().waitFor();
  // The agent asks again: it does not have the answer.
  agent.say('chat.ask', { ...QUESTION, ref: agent.lastId });
  assert.equal((await answers(agent, 2))[1].option, 'once');
  assert.equal(await phone.page.locator('.question').count(), 1);
  agent.say('chat.answered', { ask: 'q-1', outcome: 'answered', option: 'once', ref: agent.lastId });
  await phone.shows('.question .doing', 'Allow once');
  assert.equal(await phone.page.locator('.question button').count(), 0);
  agent.say('chat.done', { full_text: 'I need to clean up.\n\nDone.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Done.');
  await phone.page.reload();
  await phone.shows('.message.agent .question .doing', 'Allow once');
  await close();
});

test('a question in words is not disturbed while it is written, also by a reload', async () => {
  const { agent, phone, ask, close } = await pair();
  await ask('who?');
  agent.say('chat.ask', { ask: 'q-2', text: 'What is your name?', free: true, ref: agent.lastId });
  await phone.page.locator('.question input').waitFor();
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  await phone.page.fill('.question input', 'An');
  agent.say('chat.stream', { delta: 'Meanwhile', seq: 1, ref: agent.lastId });
  await phone.shows('.message.agent .body', 'Meanwhile');
  assert.equal(await phone.page.inputValue('.question input'), 'An');
  await phone.page.fill('.question input', 'Ann');
  await phone.page.press('.question input', 'Enter');
  assert.deepEqual(await answers(agent, 1), [{ ask: 'q-2', text: 'Ann' }]);
  agent.say('chat.answered', { ask: 'q-2', outcome: 'answered', text: 'Ann', ref: agent.lastId });
  await phone.shows('.question .doing', 'Ann');
  await close();
});

test('a question that is over says how, and what is no question shows nothing', async () => {
  const { agent, phone, ask, close } = await pair();
  await ask('one');
  for (const odd of [{}, { ask: 7, text: 'x' }, { ask: 'x' }, { ask: 'q-0', text: 'odd', options: [null, 7, { label: 'x' }] }]) agent.say('chat.ask', odd);
  agent.say('chat.answered', { ask: 'nobody', outcome: 'answered' });
  agent.say('chat.ask', { ...QUESTION, ref: agent.lastId });
  agent.say('chat.answered', { ask: 'q-1', outcome: 'expired', option: 'no', ref: agent.lastId });
  await phone.shows('.question .doing', 'Not answered in time: Reject');
  agent.say('chat.ask', { ...QUESTION, ask: 'q-3', ref: agent.lastId });
  agent.say('chat.answered', { ask: 'q-3', outcome: 'cancelled', notice: 'The answer has ended', ref: agent.lastId });
  await phone.shows('.question .doing', 'The answer has ended');
  assert.equal(await phone.page.locator('.question').count(), 3);
  await close();
});

test('what the agent does is shown by its message or tool until it is done', async () => {
  const { agent, phone, ask, close } = await pair();
  await ask('work');
  const status = (fields) => agent.say('chat.tool_status', { ...fields, ref: agent.lastId });
  status({ tool: 'search', status: 'running' });
  await phone.shows('.thinking em', 'search');
  status({ tool: 'execute', status: 'running', message: 'make test', call_id: 'a' });
  await phone.shows('.thinking em', 'make test');
  status({ tool: 'execute', status: 'done', call_id: 'b' });
  status({ tool: 'execute', status: 'error', call_id: 'a' });
  await phone.page.locator('.thinking:not(:has(em))').waitFor();
  agent.say('chat.done', { full_text: 'Worked.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Worked.');
  status({ tool: 'execute', status: 'done', call_id: 'a' });
  agent.say('chat.done', { full_text: 'By the way.', ref: 'its-own', unasked: true });
  await phone.shows('.message.agent[data-state="done"] .body', 'By the way.');
  assert.equal(await phone.page.locator('.message.agent').count(), 2);
  await close();
});

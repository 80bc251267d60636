// A pairing with its agent and its page, and what they say to each other.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Agent } from './agent.mjs';
import { Phone, link } from './browser.mjs';

// A new pairing and its agent; `options` as for `Agent.connect`.
export async function pairing(at, options = { secret: randomBytes(32) }) {
  const token = await at.token();
  return { token, secret: options.secret, agent: await Agent.connect(at.url, token, options) };
}

// The same, and the page; `prepare(phone)` is called before the page is loaded.
export async function pair(browser, at, options, prepare) {
  const made = await pairing(at, options);
  const address = link(at, made.token, made.secret);
  if (!prepare) return { ...made, phone: await Phone.open(browser, address) };
  const phone = await Phone.open(browser, 'about:blank');
  await prepare(phone);
  await phone.page.goto(address);
  return { ...made, phone };
}

export async function talk({ agent, phone }, question, answer) {
  const asked = agent.chat();
  await phone.say(question);
  assert.equal((await asked).text, question);
  agent.answer(answer);
  await phone.shows('.message.agent[data-state="done"] .body', answer);
}

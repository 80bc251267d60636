// The phone in the browser with the agents that the project has: the program and the one in Python, in both versions of
// the encryption.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Phone, launch, link } from './browser.mjs';
import { Cutting } from './cutting.mjs';
import { echoing, linkOf } from './echoing.mjs';
import { Program } from './program.mjs';
import { ROOT, Relay } from './relay.mjs';

let relay;
let browser;
let directory;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coralmux-agents-'));
  [relay, browser] = await Promise.all([Relay.start('--phone-rate', '0', '--agent-rate', '0'), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
  rmSync(directory, { recursive: true, force: true });
});

function python(token, secret) {
  const key = secret ? `&k=${secret.toString('base64url')}` : '';
  const address = `openclaw://pair?token=${token}&relay=${encodeURIComponent(relay.url)}${key}`;
  return new Program(join(ROOT, '.venv/bin/python'), ['clients/python/agent.py', address], { cwd: ROOT });
}

const rust = (token, ...flags) => echoing(relay, token, join(directory, token), ...flags);
const shownLink = (agent, token) => linkOf(agent, relay, join(directory, token));

async function hears(phone, question, answer = `You said: ${question}`) {
  await phone.say(question);
  await phone.shows('.message.agent[data-state="done"] .body', answer);
}

async function sameNumber(phone, agent) {
  await phone.page.click('#security');
  const number = await phone.page.locator('#fingerprint').innerText();
  await phone.page.keyboard.press('Escape');
  await agent.says(new RegExp(number));
}

test('the agent in Python, version 2', async () => {
  const token = await relay.token();
  const secret = randomBytes(32);
  let agent = python(token, secret);
  const phone = await Phone.open(browser, link(relay, token, secret));
  await phone.secure('Encrypted, verified');
  await hears(phone, 'hello python');
  await agent.stop();
  await phone.shows('#presence-text', 'Offline');
  agent = python(token, secret);
  await phone.secure('Encrypted, verified');
  await hears(phone, 'and again');
  await phone.close();
  await agent.stop();
});

test('the agent in Python, version 1', async () => {
  const token = await relay.token();
  const agent = python(token);
  const phone = await Phone.open(browser, link(relay, token));
  await phone.secure('Encrypted, not verified');
  await sameNumber(phone, agent);
  await hears(phone, 'hello python');
  await phone.close();
  await agent.stop();
});

test('coralmux-agent, by its link: text, an image, a restart', async () => {
  const token = await relay.token();
  let agent = rust(token);
  const shown = await shownLink(agent, token);
  const phone = await Phone.open(browser, shown);
  await phone.secure('Encrypted, verified');
  await hears(phone, 'hello rust');
  await phone.attachPixel();
  await hears(phone, 'what is it?', /You sent an image \(image\/png, \d+ bytes\) and said: what is it\?/);
  assert.equal(await agent.stop(), 0);
  await phone.shows('#presence-text', 'Offline');
  await phone.say('are you back?');
  agent = rust(token);
  await phone.shows('.message.agent[data-state="done"] .body', 'You said: are you back?');
  await phone.secure('Encrypted, verified');
  await phone.close();
  await agent.stop();
});

// What is written while a phone becomes a device: as soon as it is secure, at the moment at which the page gives the channel
// up that it has, and a little later. The agent gets each of them once, and answers it.
for (const [when, delay] of [['as it gives its channel up', 0], ['while it has none', 5], ['while it is let in', 40]]) {
  test(`coralmux-agent: what is written ${when}, to become a device, is asked once`, async () => {
    const token = await relay.token();
    const agent = rust(token);
    const phone = await Phone.open(browser, 'about:blank');
    await phone.page.addInitScript((ms) => {
      // Once, and not when the page is loaded again.
      if (sessionStorage.getItem('written')) return;
      sessionStorage.setItem('written', 'yes');
      const write = (text) => {
        const box = document.getElementById('text');
        box.value = text;
        box.dispatchEvent(new InputEvent('input'));
        box.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', cancelable: true }));
      };
      const look = new MutationObserver(() => {
        if (document.getElementById('security-label')?.textContent !== 'Encrypted, verified') return;
        look.disconnect();
        write('first');
      });
      look.observe(document, { childList: true, subtree: true, characterData: true });
      const save = Storage.prototype.setItem;
      let isDue = true;
      Storage.prototype.setItem = function setItem(key, value) {
        save.call(this, key, value);
        if (!isDue || !/"a":"/.test(value)) return;
        isDue = false;
        if (ms) setTimeout(() => write('second'), ms);
        else write('second');
      };
    }, delay);
    await phone.page.goto(await shownLink(agent, token));
    for (const text of ['first', 'second']) await phone.shows('.message.agent[data-state="done"] .body', `You said: ${text}`);
    await phone.page.reload();
    await hears(phone, 'third');
    assert.deepEqual(await phone.messages('me'), ['first', 'second', 'third']);
    assert.deepEqual(await phone.messages('agent'), ['You said: first', 'You said: second', 'You said: third']);
    await phone.close();
    await agent.stop();
  });
}

test('coralmux-agent, version 1', async () => {
  const token = await relay.token();
  const agent = rust(token, '--e2e', '1');
  const phone = await Phone.open(browser, link(relay, token));
  await phone.secure('Encrypted, not verified');
  await sameNumber(phone, agent);
  await hears(phone, 'hello rust');
  await phone.close();
  await agent.stop();
});

test('coralmux-agent refuses a link of another pairing, and the page says so', async () => {
  const token = await relay.token();
  const agent = rust(token);
  await agent.says(/are kept in/);
  const phone = await Phone.open(browser, link(relay, token, randomBytes(32)));
  await phone.shows('#banner-text', 'another pairing key');
  await phone.close();
  await agent.stop();
});

test('coralmux-agent stops an answer when the phone says something else', async () => {
  const token = await relay.token();
  const agent = rust(token);
  const phone = await Phone.open(browser, await shownLink(agent, token));
  await phone.secure('Encrypted, verified');
  // It takes far longer than a busy machine needs to say something else.
  await phone.say('word '.repeat(2000));
  await phone.shows('.message.agent[data-state="streaming"] .body', 'You said: word');
  await hears(phone, 'enough');
  await phone.shows('.message.agent .meta', 'Stopped by your next message');
  await phone.close();
  await agent.stop();
});

test('coralmux-agent: an answer goes on after each break, and ends with words where the agent does', async () => {
  const token = await relay.token();
  let agent = rust(token);
  const cutting = await Cutting.start(relay.port);
  const phone = await Phone.open(browser, (await shownLink(agent, token)).replace(`:${relay.port}`, `:${cutting.port}`));
  await phone.secure('Encrypted, verified');
  const long = Array.from({ length: 400 }, (_, at) => `word${at}`).join(' ');
  await phone.say(long);
  for (const seen of ['word20', 'word80', 'word160']) {
    await phone.shows('.message.agent[data-state="streaming"] .body', seen);
    cutting.cut();
  }
  await phone.shows('.message.agent[data-state="done"] .body', `You said: ${long}`);
  await phone.shows('.message.me .ticks[data-ticks="2"]', 'Delivered');
  assert.deepEqual(await phone.page.locator('.message .bad').allInnerTexts(), []);
  assert.deepEqual(await phone.messages('note'), []);
  await phone.say(long);
  await phone.shows('.message.agent[data-state="streaming"] .body', 'word20');
  await agent.stop('SIGKILL');
  agent = rust(token);
  await phone.shows('.message.agent[data-state="cut"] .meta', 'The agent was restarted');
  await hears(phone, 'and now?');
  await phone.close();
  await agent.stop();
  cutting.close();
});

// Questions to an agent that is away: they wait at the relay, which the page shows, and are asked once when it comes.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { Phone, launch } from './browser.mjs';
import { echoing, linkOf } from './echoing.mjs';
import { DONE, check } from './house.mjs';
import { Relay } from './relay.mjs';

const LIMITS = ['--mailbox-device-messages', '2', '--mailbox-message', '64KiB'];

let relay, browser, directory, agent, phone;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coralmux-waiting-'));
  [relay, browser] = await Promise.all([Relay.start('--phone-rate', '0', '--agent-rate', '0', ...LIMITS), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
  rmSync(directory, { recursive: true, force: true });
});

afterEach(async () => {
  await agent?.stop();
  await phone?.close();
});

// A browser that has become a device of an agent, which then goes. Returns what starts the agent again.
async function alone(options) {
  const token = await relay.token();
  const state = join(directory, token);
  const begin = () => (agent = echoing(relay, token, state));
  begin();
  phone = await Phone.open(browser, await linkOf(agent, relay, state), options);
  await phone.say('hello');
  await phone.shows(DONE, 'You said: hello');
  await phone.page.waitForFunction(() => Object.values(localStorage).some((value) => /"used":/.test(value)));
  await agent.stop();
  await phone.shows('#presence-text', 'Offline');
  return begin;
}

const last = () => phone.page.locator('.message.me').last();

// The newest message has one tick and these words, or two and none.
async function waits(words) {
  await last().locator('.meta', { hasText: words }).waitFor();
  await last().locator('.ticks[data-ticks="1"]').waitFor();
}

async function isDelivered(count) {
  await phone.page.waitForFunction((all) => document.querySelectorAll('.message.me .ticks[data-ticks="2"]').length === all, count);
  assert.equal(await phone.page.locator('.message.me .meta', { hasText: 'Waits' }).count(), 0);
}

test('a question to an agent that is away has one tick when the relay keeps it, and is asked once when the agent comes', async () => {
  const begin = await alone();
  await phone.attachPixel();
  await phone.say('are you there?');
  await waits('Waits for your agent');
  assert.equal(await phone.page.locator('.thinking').count(), 0, 'nobody thinks');
  begin();
  await phone.shows(DONE, /an image .* and said: are you there\?/);
  await isDelivered(2);
  await phone.say('once?');
  await phone.shows(DONE, 'You said: once?');
  assert.equal((await phone.messages('agent')).length, 3);
});

test('it still waits after a reload, is answered while no page is there, and not asked again', async () => {
  const begin = await alone();
  await phone.say('later');
  await waits('Waits for your agent');
  await phone.page.reload();
  await phone.shows('#presence-text', 'Offline');
  await waits('Waits for your agent');
  const address = phone.page.url();
  await phone.page.goto('about:blank');
  begin();
  await agent.says(/Connected/);
  await phone.page.goto(address);
  await phone.shows(DONE, 'You said: later');
  await isDelivered(2);
  await phone.say('and now');
  await phone.shows(DONE, 'You said: and now');
  assert.deepEqual(await phone.messages('me'), ['hello', 'later', 'and now']);
  assert.deepEqual(await phone.messages('agent'), ['hello', 'later', 'and now'].map((text) => `You said: ${text}`));
});

test('what the relay does not keep waits in the page, which says why, and arrives with the rest', async () => {
  const begin = await alone();
  for (const text of ['one', 'two']) {
    await phone.say(text);
    await waits('Waits for your agent');
  }
  await phone.say('three');
  await last().locator('.meta', { hasText: 'Waits here for your agent. The relay says (not verified): the messages of one device that may wait for the agent are used up' }).waitFor();
  await phone.say('four');
  await last().locator('.meta', { hasText: 'Waits to be sent' }).waitFor();
  begin();
  await isDelivered(5);
  await phone.shows(DONE, 'You said: four');
});

for (const colorScheme of ['light', 'dark']) {
  test(`what is longer than the relay keeps waits in the page: ${colorScheme}`, async () => {
    const begin = await alone({ colorScheme });
    await phone.say('word '.repeat(20_000));
    await last().locator('.meta', { hasText: 'the relay keeps nothing longer than 46 KiB' }).waitFor();
    await phone.say('short');
    await last().locator('.meta', { hasText: 'Waits to be sent' }).waitFor();
    await check(phone);
    begin();
    await isDelivered(3);
    await phone.shows(DONE, 'You said: short');
  });
}

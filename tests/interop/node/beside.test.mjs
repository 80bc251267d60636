// What stands beside the text: files of the agent's, what it did, and what a person can do with what was said.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, test } from 'node:test';
import { DONE, House, check } from './house.mjs';

const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';
const TEXT = Buffer.from('one,two\n').toString('base64');
const DIFF = '--- a/notes\n+++ b/notes\n@@ -1 +1 @@\n-old\n+new\n<b>not bold</b>\n';

let house, phone, agent;

before(async () => (house = await House.start()));
after(() => house?.stop());
afterEach(() => house.leave());

async function chatting(options) {
  agent = await house.begin();
  phone = await house.enrolled(undefined, options);
}

async function asked(question) {
  await phone.say(question);
  return agent.chat();
}

const picture = async (name) => process.env.PICTURES && phone.page.screenshot({ path: `${process.env.PICTURES}/${name}.png` });
const say = (type, payload) => agent.say(type, { ref: agent.lastId, ...payload });

async function act(selector, name) {
  await phone.page.locator(selector).last().getByRole('button', { name: 'What to do with this message' }).click();
  await phone.page.locator('#actions').getByRole('button', { name, exact: true }).click();
}

for (const colorScheme of ['light', 'dark']) {
  test(`files and what the agent did are shown, kept, and never opened or read as HTML: ${colorScheme}`, async () => {
    await chatting({ colorScheme, acceptDownloads: true });
    assert.equal((await asked('draw it')).files, 1);
    say('chat.tool_status', { status: 'thinking', detail: 'First this, ' });
    say('chat.tool_status', { status: 'thinking', detail: 'then that.' });
    say('chat.tool_status', { status: 'running', tool: 'edit', message: 'Edit notes', call_id: 'c1', detail: DIFF });
    await phone.shows('.thinking em', 'Edit notes');
    await phone.shows('.step summary', 'Edit notes');
    say('chat.tool_status', { status: 'done', tool: 'edit', call_id: 'c1' });
    await phone.page.locator('.thinking em', { hasText: 'Edit notes' }).waitFor({ state: 'detached' });
    say('chat.file', { name: 'chart.png', mime: 'image/png', data: PIXEL });
    say('chat.file', { name: '../table.csv', mime: 'text/html', data: TEXT });
    say('chat.file', { name: 'broken', mime: 'image/png', data: '!' });
    say('chat.done', { full_text: 'There.', files: 3 });
    await phone.shows(DONE, 'There.');
    await phone.shows('.meta', 'One file did not arrive');
    const look = async () => {
      await phone.page.locator('.picture img').waitFor();
      assert.equal(await phone.page.locator('.picture img').evaluate((image) => image.decode().then(() => image.naturalWidth)), 1);
      assert.deepEqual(await phone.page.locator('.step summary').allInnerTexts(), ['Thinking', 'Edit notes']);
      await phone.page.click('.step summary >> text=Edit notes');
      assert.equal(await phone.page.locator('.step[open] pre').innerText(), DIFF);
      assert.deepEqual(await phone.page.locator('.step[open] pre .added').allInnerTexts(), ['+new\n']);
      const [download] = await Promise.all([phone.page.waitForEvent('download'), phone.page.click('.file')]);
      assert.match(download.suggestedFilename(), /^[._]*table\.csv$/);
      assert.equal(readFileSync(await download.path(), 'utf8'), 'one,two\n');
    };
    await look();
    await check(phone);
    await picture(`beside-${colorScheme}`);
    await phone.page.reload();
    await phone.secure('Encrypted, verified');
    await look();
  });
}

test('an answer is stopped by its button, which is there only while the agent is at work', async () => {
  await chatting();
  assert.equal(await phone.page.isVisible('#stop'), false);
  await asked('count');
  say('chat.stream', { delta: 'one two', seq: 1 });
  await phone.shows('.message.agent .body', 'one two');
  await check(phone);
  await picture('stop');
  const cancelled = agent.next('cancel');
  await phone.page.click('#stop');
  await cancelled;
  say('chat.done', { full_text: 'one two', cancelled: true });
  await phone.shows('.meta', 'Stopped');
  assert.equal(await phone.page.isVisible('#stop'), false);
});

test('a message is copied, and a question changed and asked again', async () => {
  await chatting({ permissions: ['clipboard-read', 'clipboard-write'] });
  await phone.attachPixel();
  await asked('what is it?');
  agent.answer('A *pixel*.');
  await phone.shows(DONE, 'A pixel.');
  await act('.message.agent', 'Copy');
  assert.equal(await phone.page.evaluate(() => navigator.clipboard.readText()), 'A *pixel*.');
  await phone.page.locator('.message.me').getByRole('button', { name: 'What to do with this message' }).click();
  await check(phone);
  await picture('actions');
  await phone.page.locator('#actions').getByRole('button', { name: 'Change and ask again' }).click();
  await phone.page.locator('#attached li').waitFor();
  assert.equal(await phone.page.inputValue('#text'), 'what is it?');
  await phone.page.fill('#text', 'and its colour?');
  await phone.page.press('#text', 'Enter');
  const again = await agent.chat();
  assert.deepEqual([again.text, again.images.length], ['and its colour?', 1]);
});

test('words are found in the conversation, and all of it is stored as Markdown', async () => {
  await chatting({ acceptDownloads: true });
  for (const text of ['one apple', 'two pears', 'three apples']) {
    await asked(text);
    agent.answer(`You said **${text}**`);
    await phone.shows(DONE, `You said ${text}`);
  }
  await phone.page.click('#more');
  await check(phone);
  await phone.page.click('#find');
  await phone.page.fill('#search-text', 'APPLE');
  await phone.shows('#search-count', '4 messages');
  assert.deepEqual(await phone.page.locator('#search-list mark').allInnerTexts(), ['apple', 'apple', 'apple', 'apple']);
  await check(phone);
  await picture('search');
  await phone.page.locator('#search-list button').last().click();
  await phone.page.locator('.message.me:focus', { hasText: 'one apple' }).waitFor();
  await phone.page.click('#more');
  const [download] = await Promise.all([phone.page.waitForEvent('download'), phone.page.click('#export')]);
  assert.equal(download.suggestedFilename(), 'Home.md');
  const stored = readFileSync(await download.path(), 'utf8');
  assert.match(stored, /^# Home\n\n## You, \S+\n\none apple\n\n## Home, \S+\n\nYou said \*\*one apple\*\*\n/);
  assert.equal(stored.match(/^## /gm).length, 6);
});

// A browser with several agents: one list, what is new in each, and a chat that goes on while another one is shown.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { DONE, House, check } from './house.mjs';

let house, first, second, phone;

before(async () => (house = await House.start()));
after(() => house?.stop());
afterEach(async () => {
  await first?.close();
  await house.leave();
});

// A browser that two agents have let in; it shows the chat of the second one.
async function ofTwo(options) {
  first = await house.begin({ name: 'Home' });
  phone = await house.enrolled(undefined, options);
  first.device = phone.device;
  await house.talk(phone, 'hello', 'Hello from home.');
  second = await house.begin({ name: 'Work' });
  await phone.page.evaluate((hash) => (location.hash = hash), new URL((await second.invite()).web).hash);
  await phone.page.click('#confirm-yes');
  const { device } = await second.pending();
  second.device = device;
  await second.admit(device);
  await phone.shows('#agent-name', 'Work');
  await phone.secure('Encrypted, verified');
}

async function list() {
  await phone.page.click('#agents-open');
  await phone.page.locator('#agents[open]').waitFor();
}

async function show(name) {
  await list();
  await phone.page.locator('.agent-of', { hasText: name }).click();
  await phone.shows('#agent-name', name);
}

test('another agent is added beside the first one, and each has its own conversation, also after a reload', async () => {
  await ofTwo();
  await house.talk(phone, 'good morning', 'Good morning from work.');
  assert.deepEqual(await phone.messages('me'), ['good morning']);
  await show('Home');
  assert.deepEqual(await phone.messages('me'), ['hello']);
  await phone.page.reload();
  await phone.shows('#agent-name', 'Home');
  await phone.secure('Encrypted, verified');
  assert.deepEqual(await phone.messages('agent'), ['Hello from home.']);
  await show('Work');
  assert.deepEqual(await phone.messages('agent'), ['Good morning from work.']);
  await phone.secure('Encrypted, verified');
  await house.talk(phone, 'once more', 'As often as you like.');
});

test('what an agent says while another one’s chat is shown is counted, in the list, the title and after a reload, until it is looked at', async () => {
  await ofTwo();
  for (const text of ['One.', 'Two.']) first.say('chat.done', { full_text: text, ref: text });
  await phone.shows('#others', '2');
  assert.match(await phone.page.title(), /^\(2\) /);
  await list();
  await phone.shows('.agent-of', '2 new');
  await phone.shows('.agent-of[aria-current]', 'Work');
  await phone.page.keyboard.press('Escape');
  assert.deepEqual(await phone.messages('agent'), []);
  await phone.page.reload();
  await phone.shows('#others', '2');
  await show('Home');
  await phone.shows('.new', '2 new messages');
  assert.deepEqual(await phone.messages('agent'), ['Hello from home.', 'One.', 'Two.']);
  assert.equal(await phone.page.isVisible('#others'), false);
  assert.equal(await phone.page.title(), 'CoralMux');
});

test('an answer goes on while another chat is shown, and so does what the person has begun to write', async () => {
  await ofTwo();
  await show('Home');
  await phone.say('a long one');
  assert.equal((await first.chat()).text, 'a long one');
  first.say('chat.stream', { delta: 'It begins', seq: 1, ref: first.lastId });
  await phone.shows('.message.agent[data-state="streaming"] .body', 'It begins');
  await phone.page.fill('#text', 'half a thought');
  await show('Work');
  assert.equal(await phone.page.inputValue('#text'), '');
  first.say('chat.stream', { delta: ' and ends.', seq: 2, ref: first.lastId });
  first.say('chat.done', { full_text: 'It begins and ends.', ref: first.lastId });
  await phone.shows('#others', '1');
  await show('Home');
  await phone.shows(DONE, 'It begins and ends.');
  assert.equal(await phone.page.inputValue('#text'), 'half a thought');
});

test('the pairing page leads back to the chat, and a second tab takes all agents over', async () => {
  await ofTwo();
  await list();
  await phone.page.click('#add-agent');
  await phone.page.click('#back');
  await phone.shows('#agent-name', 'Work');
  const tab = await phone.context.newPage();
  await tab.goto(`http://127.0.0.1:${house.relay.port}/`);
  await phone.shows('#banner-title', 'open elsewhere');
  await tab.locator('#security-label', { hasText: 'Encrypted, verified' }).waitFor();
  await tab.close();
  await phone.page.click('#banner-action');
  await phone.secure('Encrypted, verified');
  first.say('chat.done', { full_text: 'Back home.', ref: 'x' });
  await phone.shows('#others', '1');
});

for (const colorScheme of ['light', 'dark']) {
  test(`the list fits into 360 pixels, a checker finds nothing to object to, and the keyboard is enough: ${colorScheme}`, async () => {
    await ofTwo({ colorScheme });
    first.say('chat.done', { full_text: 'Something **long** that does not fit into one line of the list, whatever one does.', ref: 'x' });
    await phone.shows('#others', '1');
    await check(phone);
    await phone.page.focus('#agents-open');
    await phone.page.keyboard.press('Enter');
    await phone.page.locator('#agents[open]').waitFor();
    await check(phone);
    if (process.env.PICTURES) await phone.page.screenshot({ path: `${process.env.PICTURES}/agents-${colorScheme}.png` });
    await phone.page.keyboard.press('Escape');
    if (process.env.PICTURES) await phone.page.screenshot({ path: `${process.env.PICTURES}/chat-${colorScheme}.png` });
    await phone.page.keyboard.press('Enter');
    await phone.page.locator('.agent-of', { hasText: 'Home' }).focus();
    await phone.page.keyboard.press('Enter');
    await phone.shows('#agent-name', 'Home');
  });
}

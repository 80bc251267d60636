// A device that goes, and what goes with it; a question that was answered on another one.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { DONE, House, check, openDevices } from './house.mjs';

let house;

before(async () => (house = await House.start()));
after(() => house?.stop());
afterEach(() => house.leave());

async function forget({ page }) {
  await page.click('#more');
  await page.click('#forget');
  const text = await page.locator('#confirm-text').innerText();
  await page.click('#confirm-yes');
  return text;
}

test('a browser that forgets its pairing is removed at the agent, and what it has added stays', async () => {
  const agent = await house.begin();
  const phone = await house.enrolled();
  await house.talk(phone, 'hello', 'Hello.');
  const other = await house.enrolled(phone.device);
  await phone.page.click('#devices header button');
  assert.match(await forget(phone), /Your agent removes this browser/);
  await phone.page.locator('#welcome').waitFor();
  assert.ok(await phone.page.locator('#welcome-note').isHidden(), 'nothing stays');
  assert.deepEqual([...agent.devices.keys()], [other.device]);
  await other.say('still here');
  assert.equal((await agent.chat()).text, 'still here');
  const kept = await phone.page.evaluate(async () => {
    const request = indexedDB.open('coralmux');
    const database = await new Promise((done) => (request.onsuccess = () => done(request.result)));
    const all = database.transaction('messages').objectStore('messages').getAllKeys();
    return new Promise((done) => (all.onsuccess = () => done([all.result, localStorage.getItem('coralmux.pairing')])));
  });
  assert.deepEqual(kept, [[], null]);
});

test('where the agent is away, or does not answer, the page says what stays', async () => {
  const agent = await house.begin();
  const phone = await house.enrolled();
  const other = await house.enrolled();
  await agent.drop();
  await phone.shows('#presence-text', 'Offline');
  assert.match(await forget(phone), /stays among its devices/);
  await phone.shows('#welcome-note', 'coralmux-agent devices');
  await agent.open();
  agent.isDeaf = true;
  assert.match(await forget(other), /Your agent removes this browser/);
  await other.shows('#welcome-note', 'could not remove this browser');
});

test('one of several agents is forgotten, and the others stay', async () => {
  const first = await house.begin();
  const phone = await house.enrolled();
  await house.talk(phone, 'hello', 'Hello.');
  const second = await house.begin();
  await phone.page.evaluate((hash) => (location.hash = hash), new URL((await second.invite()).web).hash);
  await phone.shows('#confirm-title', 'Add another agent?');
  await phone.page.click('#confirm-yes');
  const { device } = await second.pending();
  await second.admit(device);
  await phone.secure('Encrypted, verified');
  assert.equal(first.devices.size, 1);
  assert.match(await forget(phone), /Your agent removes this browser/);
  await phone.shows(DONE, 'Hello.');
  assert.deepEqual([first.devices.size, second.devices.size], [1, 0]);
  await second.close();
  house.agent = first;
  await house.talk(phone, 'still there?', 'Yes.');
});

test('who removes a device chooses what becomes of those that it has added', async () => {
  const agent = await house.begin();
  const owner = await house.enrolled();
  const one = await house.enrolled();
  const two = await house.enrolled(one.device);
  const three = await house.enrolled(two.device);
  agent.devices.get(two.device).name = 'Tablet';
  agent.devices.get(three.device).name = 'Laptop';
  await openDevices(owner);
  const ask = async (at) => {
    await owner.page.locator(`#device-list li:nth-child(${at})`).getByRole('button', { name: 'Remove' }).click();
    await owner.page.locator('#confirm[open]').waitFor();
  };
  // The names that the agent has now, not those that the page knew before it asked.
  await owner.shows('#device-list li:nth-child(4)', 'Laptop');
  await ask(2);
  await owner.shows('#confirm-option', 'Tablet, Laptop');
  assert.ok(await owner.page.isChecked('#confirm-check'), 'they go as well, unless somebody says otherwise');
  await check(owner);
  await owner.page.uncheck('#confirm-check');
  await owner.page.click('#confirm-yes');
  await one.shows('#banner-title', 'This browser was removed');
  await owner.page.locator('#device-list li:nth-child(4)').waitFor({ state: 'detached' });
  assert.equal(agent.devices.size, 3);
  await ask(3);
  assert.ok(await owner.page.locator('#confirm-option').isHidden(), 'it has added nobody');
  await owner.page.click('#confirm .plain');
  await ask(2);
  await owner.shows('#confirm-option', 'Laptop');
  await owner.page.click('#confirm-yes');
  await three.shows('#banner-title', 'This browser was removed');
  assert.equal(agent.devices.size, 1);
});

test('a question that is answered on one device shows as answered on the others, also where two answer at once', async () => {
  const agent = await house.begin();
  const one = await house.enrolled();
  const two = await house.enrolled();
  await house.talk(one, 'hello', 'Hello.');
  const ask = (name) => agent.say('chat.ask', { ask: name, text: `May I (${name})?`, options: [{ id: 'y', label: 'Yes' }, { id: 'n', label: 'No' }], ref: 'r' });
  ask('q1');
  for (const { page } of [one, two]) await page.locator('.question button').first().waitFor();
  await one.page.locator('.question button', { hasText: 'Yes' }).click();
  const { ask: name, option, device } = await agent.next('answer');
  assert.deepEqual([name, option, device], ['q1', 'y', one.device]);
  agent.say('chat.answered', { ask: 'q1', outcome: 'answered', option: 'y', ref: 'r' });
  await one.shows('.question .doing', /^Yes$/);
  await two.shows('.question .doing', 'Answered elsewhere: Yes');
  assert.equal(await two.page.locator('.question button').count(), 0);
  ask('q2');
  for (const [phone, choice] of [[one, 'Yes'], [two, 'No']]) {
    await phone.page.locator('.question button', { hasText: choice }).click();
    await agent.next('answer');
  }
  agent.say('chat.answered', { ask: 'q2', outcome: 'answered', option: 'y', ref: 'r' });
  await two.shows('.question:nth-child(2) .doing', 'Answered elsewhere: Yes');
  await one.shows('.question:nth-child(2) .doing', /^Yes$/);
  agent.say('chat.done', { full_text: 'Done.', ref: 'r' });
  await two.shows(DONE, 'Done.');
  await two.page.reload();
  await two.shows('.question .doing', 'Answered elsewhere: Yes');
});

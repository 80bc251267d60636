// The phone in the browser, end to end: the real relay, the real page in headless Chromium, an agent on Node's own
// cryptography.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { Agent } from './agent.mjs';
import { PHONE, Phone, launch, link } from './browser.mjs';
import * as chat from './chat.mjs';
import { talk } from './chat.mjs';
import { Client } from './client.mjs';
import { Relay } from './relay.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

let relay;
let browser;

before(async () => {
  [relay, browser] = await Promise.all([Relay.start('--phone-rate', '0'), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
});

const pairing = (options, at = relay) => chat.pairing(at, options);
const pair = (options, at = relay) => chat.pair(browser, at, options);

test('a link pairs, and leaves neither token nor key in the address', async () => {
  const { phone, agent, token } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.shows('#presence-text', 'Online');
  assert.equal(new URL(phone.page.url()).hash, '');
  await talk({ agent, phone }, 'hello', 'Good morning. How can I help?');
  const elsewhere = phone.requests.filter((url) => new URL(url).host !== `127.0.0.1:${relay.port}`);
  assert.deepEqual(elsewhere, [], 'nothing is asked of anybody else');
  assert.ok(phone.requests.every((url) => url.includes('#') || !url.includes(token)), 'no request names the token');
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  await phone.shows('.message.agent', 'Good morning.');
  await talk({ agent, phone }, 'again', 'Still here.');
  await phone.close();
  await agent.close();
});

test('the policy holds: no script but its own, no word to anybody else', async () => {
  const phone = await Phone.open(browser, `http://127.0.0.1:${relay.port}/`);
  const violated = await phone.page.evaluate(async () => {
    const seen = [];
    addEventListener('securitypolicyviolation', (event) => seen.push(event.effectiveDirective));
    const script = document.createElement('script');
    script.append('globalThis.ran = true');
    document.body.append(script);
    for (const make of [(html) => (document.body.innerHTML = html), (html) => new DOMParser().parseFromString(html, 'text/html'), eval]) {
      try {
        make('<img src=x onerror="globalThis.ran = true">');
        seen.push('HTML was made of text');
      } catch {}
    }
    try {
      trustedTypes.createPolicy('another', { createHTML: (html) => html });
      seen.push('a policy was made');
    } catch {}
    await fetch('http://127.0.0.1:9/').catch(() => {});
    const image = new Image();
    await new Promise((done) => ((image.onerror = done), (image.src = 'http://127.0.0.1:9/x.png')));
    return { seen, ran: globalThis.ran };
  });
  const typed = Array(3).fill('require-trusted-types-for');
  assert.deepEqual(violated, { seen: [...typed, 'trusted-types', 'connect-src', 'img-src'], ran: undefined });
  assert.ok(phone.faults.length >= 3, 'a violation is a fault that every other test would see');
  phone.faults.length = 0;
  await phone.close();
});

test('an answer streams in, as text and never as HTML', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const asked = agent.chat();
  await phone.say('show me');
  await asked;
  await phone.page.locator('.thinking').waitFor();
  const first = '# Steps\n\n- **one**\n- `two`\n\n<img src=x onerror=alert(1)> <b>bold</b>\n\n```html\n<script>alert(1)';
  agent.stream(first, 5);
  await phone.shows('.message.agent[data-state="streaming"] code', '<script>alert(1)');
  assert.equal(await phone.page.locator('.message.agent .thinking').count(), 0);
  const rest = '</script>\n```\n\n[bad](javascript:alert(1)) and [good](https://example.org/a)';
  agent.say('chat.stream', { delta: rest, seq: 99 });
  agent.say('chat.done', { full_text: first + rest });
  const body = phone.page.locator('.message.agent[data-state="done"] .body');
  await body.waitFor();
  assert.deepEqual(await body.locator('img, b, script').count(), 0);
  assert.equal(await body.locator('h2').innerText(), 'Steps');
  assert.deepEqual(await body.locator('li').allInnerTexts(), ['one', 'two']);
  assert.equal(await body.locator('pre code').innerText(), '<script>alert(1)</script>');
  assert.deepEqual(await body.locator('a').evaluateAll((all) => all.map((a) => [a.href, a.rel])), [['https://example.org/a', 'noopener noreferrer']]);
  assert.ok((await body.innerText()).includes('<img src=x onerror=alert(1)> <b>bold</b>'));
  await phone.close();
  await agent.close();
});

test('a second question while the first is being answered: each answer is whole', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const first = agent.chat();
  await phone.say('count to a thousand');
  await first;
  agent.stream('one, two, ');
  await phone.shows('.message.agent .body', 'one, two,');
  const second = agent.chat();
  await phone.say('stop, just say hello');
  await second;
  agent.say('chat.stream', { delta: 'three', seq: 3 });
  agent.say('chat.done', { full_text: 'one, two, three', cancelled: true });
  agent.answer('Hello.');
  await phone.shows('.message.agent[data-state="done"] .body', 'Hello.');
  assert.deepEqual(await phone.messages('agent'), ['one, two, three', 'Hello.']);
  await phone.shows('.message.agent .meta', 'Stopped by your next message');
  await phone.close();
  await agent.close();
});

test('an error of the agent ends its answer; one of the relay is about the message', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const asked = agent.chat();
  await phone.say('do something hard');
  await asked;
  agent.say('chat.error', { code: 'BACKEND_ERROR', message: 'The model is not loaded.', ref: agent.lastId });
  await phone.shows('.message.me[data-state="failed"] .meta', 'The agent says: The model is not loaded.');
  assert.deepEqual(await phone.messages('agent'), [], 'no line is left for an answer without a word');
  const { tokens } = await (await relay.admin('GET', '/api/v1/tokens?limit=1000')).json();
  const { id } = tokens.find(({ online }) => online.agent && online.phone);
  await relay.admin('PATCH', `/api/v1/tokens/${id}`, '{"limits":{"message_bytes_max":2048}}');
  await phone.say('x'.repeat(3000));
  await phone.shows('.message.me[data-state="failed"] .meta', 'The relay says (not verified): The message is too large');
  assert.equal(await phone.page.locator('.thinking').count(), 0, 'no answer is expected');
  await relay.admin('PATCH', `/api/v1/tokens/${id}`, '{"limits":null}');
  const again = agent.chat();
  await phone.page.getByRole('button', { name: 'Send again' }).last().click();
  assert.equal((await again).text.length, 3000);
  await phone.close();
  await agent.close();
});

test('images go along, made small enough for a message', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  // A photo of noise is the worst that can be compressed: 2000 x 1400, some 8 MB as PNG.
  await phone.page.evaluate(async () => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [2000, 1400];
    const context = canvas.getContext('2d');
    const image = context.createImageData(2000, 1400);
    for (let at = 0; at < image.data.length; at += 65536) crypto.getRandomValues(image.data.subarray(at, at + 65536));
    for (let at = 3; at < image.data.length; at += 4) image.data[at] = 255;
    context.putImageData(image, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
    const chosen = new DataTransfer();
    for (const name of ['1.png', '2.png', '3.png', '4.png']) chosen.items.add(new File([blob], name, { type: blob.type }));
    const input = document.getElementById('file');
    input.files = chosen.files;
    input.dispatchEvent(new Event('change'));
  });
  await phone.page.locator('#attached li').nth(3).waitFor({ timeout: 60_000 });
  const asked = agent.chat();
  await phone.say('what is this?');
  const { text, images } = await asked;
  assert.equal(text, 'what is this?');
  assert.equal(images.length, 4);
  for (const { mime, data } of images) {
    assert.equal(mime, 'image/jpeg');
    assert.deepEqual([...Buffer.from(data, 'base64').subarray(0, 3)], [0xff, 0xd8, 0xff]);
  }
  await phone.page.locator('.message.me .pictures img').nth(3).waitFor();
  await phone.page.setInputFiles('#file', { name: 'no.txt', mimeType: 'text/plain', buffer: Buffer.from('no image') });
  await phone.shows('#composer-error', 'cannot be read as an image');
  await phone.close();
  await agent.close();
});

test('the agent goes in the middle of an answer and comes back with new keys', async () => {
  const { phone, agent, token, secret } = await pair();
  await phone.secure('Encrypted, verified');
  const asked = agent.chat();
  await phone.say('tell me a story');
  await asked;
  agent.stream('Once upon a time');
  await phone.shows('.message.agent .body', 'Once upon a time');
  await agent.close();
  await phone.shows('#presence-text', 'Offline');
  await phone.shows('.message.agent[data-state="cut"] .meta', 'broke off');
  await phone.say('are you there?');
  await phone.shows('.message.me[data-state="waiting"] .meta', 'Waits to be sent');
  const again = await Agent.connect(relay.url, token, { secret });
  const { text } = again.chats[0] ?? (await again.chat());
  assert.equal(text, 'are you there?', 'what waited goes out by itself');
  again.answer('Yes.');
  await phone.shows('.message.agent[data-state="done"] .body', 'Yes.');
  await phone.close();
  await again.close();
});

test('the relay restarts, and both come back by themselves', async () => {
  const own = await Relay.start();
  const token = await own.token();
  const secret = randomBytes(32);
  const phone = await Phone.open(browser, link(own, token, secret));
  await phone.shows('#presence-text', 'Offline');
  await own.halt();
  await phone.shows('#presence-text', 'Reconnecting in');
  await own.run();
  const agent = await Agent.connect(own.url, token, { secret });
  await phone.page.evaluate(() => dispatchEvent(new Event('online')));
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Back again.');
  await phone.close();
  await agent.close();
  await own.stop();
});

test('the page is there while the relay is away, with the conversation', async () => {
  const own = await Relay.start();
  const { phone, agent } = await pair(undefined, own);
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'remember this', 'I do.');
  await phone.page.evaluate(() => navigator.serviceWorker.ready);
  await agent.close();
  await own.stop();
  await phone.page.reload();
  await phone.shows('.message.agent', 'I do.');
  await phone.shows('#presence-text', 'Reconnecting in');
  await phone.close();
});

test('a wrong secret is refused at both ends, and nothing is sent', async () => {
  const { token, agent } = await pairing();
  const phone = await Phone.open(browser, link(relay, token, randomBytes(32)));
  await phone.secure('Not secure');
  await phone.shows('#banner-text', 'another pairing key');
  assert.ok(await phone.page.locator('#send').isDisabled());
  await phone.page.fill('#text', 'secret');
  await phone.page.press('#text', 'Enter');
  await phone.page.click('#more');
  await phone.shows('#about-text', 'another pairing key');
  assert.deepEqual([agent.chats, agent.refused], [[], []]);
  await phone.close();
  await agent.close();
});

test('with a secret, an agent of version 1 is refused: no downgrade', async () => {
  const { token, agent } = await pairing({});
  const phone = await Phone.open(browser, link(relay, token, randomBytes(32)));
  await phone.shows('#banner-text', 'not verified');
  assert.ok(await phone.page.locator('#send').isDisabled());
  // And what it says in clear is not shown.
  agent.client.send('chat.stream', { delta: 'trust me', seq: 1 });
  agent.client.send('chat.done', { full_text: 'trust me' });
  await phone.shows('.message.note', 'could not be read');
  assert.deepEqual(await phone.messages('agent'), []);
  assert.deepEqual([agent.chats, agent.refused], [[], []]);
  await phone.close();
  await agent.close();
});

test('without a secret, an agent of version 1 is encrypted with, and its number shown', async () => {
  const { phone, agent } = await pair({});
  await phone.secure('Encrypted, not verified');
  await phone.page.click('#security');
  const number = await phone.page.locator('#fingerprint').innerText();
  assert.match(number, /^\d{5} \d{5} \d{5} \d{5}$/);
  assert.equal(number, agent.fingerprint);
  await phone.page.keyboard.press('Escape');
  await talk({ agent, phone }, 'hello', 'Hello yourself.');
  agent.client.send('chat.stream', { delta: 'in clear', seq: 1 });
  await phone.shows('.message.note', 'could not be read');
  await phone.close();
  await agent.close();
});

test('without any encryption the page says so, and sends nothing before the user agrees', async () => {
  const { phone, agent } = await pair({ plain: true });
  await phone.secure('Not encrypted');
  assert.ok(await phone.page.locator('#send').isDisabled());
  await phone.page.click('#banner-action');
  await talk({ agent, phone }, 'hello', 'Hello in clear.');
  await phone.secure('Not encrypted');
  await phone.close();
  await agent.close();
});

test('a relay that speaks for the agent is not believed', async () => {
  const { phone, agent, token } = await pair();
  await phone.secure('Encrypted, verified');
  await agent.close();
  await phone.shows('#presence-text', 'Offline');
  // Somebody with the token, but without the secret, in the agent's place.
  const liar = await Client.authed(relay.url, token, 'agent');
  liar.send('key_exchange', { pubkey: randomBytes(32).toString('base64'), e2e: 2 });
  const opening = await liar.expect('key_exchange');
  assert.equal(Buffer.from(opening.noise, 'base64').length, 48);
  liar.send('key_exchange', { pubkey: opening.pubkey, e2e: 2, noise: randomBytes(48).toString('base64'), re: 'another' });
  await phone.say('can you read this?');
  await phone.shows('.message.me[data-state="waiting"]', 'can you read this?');
  await liar.expectSilence();
  await phone.close();
  await liar.close();
});

// Between page and relay: what the page sends is kept in `said`; `toAgent` and `toPage` say something more.
async function between(secret, options) {
  const { token, agent } = await pairing({ secret, ...options });
  const phone = await Phone.open(browser, 'about:blank');
  const middle = { said: [] };
  await phone.page.routeWebSocket(/\/ws$/, (socket) => {
    const server = socket.connectToServer();
    middle.toAgent = (message) => server.send(JSON.stringify(message));
    middle.toPage = (type, payload) => socket.send(JSON.stringify({ v: 1, type, id: 'm', ts: 0, payload }));
    socket.onMessage((text) => {
      middle.said.push(JSON.parse(text));
      if (!middle.swallows) server.send(text);
    });
    server.onMessage((text) => socket.send(text));
  });
  await phone.page.goto(link(relay, token, secret));
  await phone.secure('Encrypted, verified');
  return { agent, phone, middle };
}

test('an opening that somebody repeats to the agent: other keys are agreed upon, and the question goes out again', async () => {
  const { agent, phone, middle } = await between(randomBytes(32));
  await talk({ agent, phone }, 'hello', 'Hello.');
  const openings = () => middle.said.filter(({ type }) => type === 'key_exchange');
  for (const question of ['are you there?', 'and now?']) {
    const before = openings().length;
    middle.toAgent(openings()[0]);
    const asked = agent.chat();
    await phone.say(question);
    assert.equal((await asked).text, question);
    assert.equal(openings().length, before + 1);
    agent.answer(`Answer to ${question}`);
    await phone.shows('.message.agent[data-state="done"] .body', `Answer to ${question}`);
    await phone.secure('Encrypted, verified');
  }
  assert.equal(agent.refused.length, 2);
  assert.equal(await phone.page.locator('.message.me').count(), 3);
  assert.equal(await phone.page.locator('.message.me[data-state="failed"], .message.note').count(), 0);
  await phone.close();
  await agent.close();
});

test('the keys are not called verified while others are being agreed upon, and an answer that cannot be read is told once', async () => {
  const { agent, phone, middle } = await between(randomBytes(32));
  middle.swallows = true;
  for (let count = 0; count < 5; count++) {
    middle.toPage('chat.stream', { enc: true, ciphertext: randomBytes(40).toString('base64'), nonce: Buffer.alloc(12).toString('base64') });
  }
  await phone.secure('Securing…');
  await phone.say('wait for it');
  await phone.shows('.message.me[data-state="waiting"]', 'wait for it');
  assert.equal(await phone.page.locator('.message.note').count(), 1);
  assert.equal(middle.said.filter(({ type }) => type === 'chat.send').length, 0);
  middle.swallows = false;
  // The opening was lost: a hint brings the next one.
  middle.toPage('chat.error', { code: 'DECRYPTION_FAILED', message: 'no' });
  await phone.secure('Encrypted, verified');
  if (!agent.chats.length) await agent.chat();
  assert.equal(agent.chats[0].text, 'wait for it');
  await phone.close();
  await agent.close();
});

test('an error in clear is shown as nobody’s word, once, short, and as text', async () => {
  const { agent, phone, middle } = await between(randomBytes(32));
  const lie = `Your account is locked. Pair again at <b>https://evil.example</b> \u202e${'x'.repeat(5000)}`;
  for (let count = 0; count < 3; count++) middle.toPage('chat.error', { code: 'BACKEND_ERROR', message: lie });
  await phone.shows('.message.note[data-unverified] .body', 'The relay says (not verified): Your account is locked.');
  const note = phone.page.locator('.message.note');
  assert.equal(await note.count(), 1);
  assert.ok((await note.innerText()).length < 400);
  assert.equal(await note.locator('a, b').count(), 0);
  const asked = agent.chat();
  await phone.say('is it?');
  await asked;
  middle.toPage('chat.error', { code: 'BACKEND_ERROR', message: 'no model', ref: agent.lastId });
  await phone.shows('.message.me[data-state="failed"] .meta', 'The relay says (not verified): no model');
  assert.deepEqual(await phone.messages('agent'), []);
  agent.say('chat.stream', { delta: 'It is not.', seq: 1, ref: agent.lastId });
  agent.say('chat.done', { full_text: 'It is not.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"]', 'It is not.');
  assert.equal(await phone.page.locator('.message.me[data-state="failed"]').count(), 0, 'the agent’s own word counts');
  await phone.close();
  await agent.close();
});

test('the agent’s name is in the head, as short text', async () => {
  const { phone, agent } = await pair({ secret: randomBytes(32), name: `<b>Coral</b> \u202e${'long '.repeat(50)}` });
  await phone.shows('#agent-name', '<b>Coral</b> long long');
  assert.ok((await phone.page.locator('#agent-name').innerText()).length <= 61);
  assert.ok((await phone.page.locator('#agent-name').boundingBox()).height < 30, 'on one line');
  assert.ok((await phone.page.evaluate(() => document.documentElement.scrollWidth)) <= PHONE.width);
  await phone.close();
  await agent.close();
});

test('a reload keeps what was said of an answer, and tells what is missing until it comes whole', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const [first, second] = [agent.chat(), agent.chat()];
  await phone.say('say nothing');
  await first;
  agent.say('chat.done', { full_text: '', ref: agent.lastId });
  await phone.shows('.message.agent .meta', 'The answer is empty');
  await phone.say('say much');
  await second;
  const ref = agent.lastId;
  agent.say('chat.stream', { delta: 'one ', seq: 1, ref });
  await phone.shows('.message.agent .body', 'one');
  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  await phone.shows('.message.agent .meta', 'The answer is empty');
  agent.say('chat.stream', { delta: 'three \u202e[https://bank.example](https://evil.example/)', seq: 3, ref });
  await phone.shows('.message.agent[data-state="streaming"] .doing', 'is missing here; it comes when the answer is complete');
  await phone.shows('.message.agent a', 'https://bank.example (evil.example)');
  agent.say('chat.done', { full_text: 'one two three', ref });
  await phone.shows('.message.agent[data-state="done"] .body', 'one two three');
  assert.equal(await phone.page.locator('.message.agent .doing:visible').count(), 0);
  await phone.close();
  await agent.close();
});

test('a token that is not known, and one that is revoked, end it with a word', async () => {
  const token = await relay.token();
  const phone = await Phone.open(browser, link(relay, token, randomBytes(32)));
  await phone.shows('#presence-text', 'Offline');
  await relay.admin('DELETE', `/api/v1/pair/${token}`);
  await phone.shows('#banner-title', 'revoked');
  await phone.page.reload();
  await phone.shows('#banner-title', 'does not know this pairing');
  await phone.page.click('#banner-action');
  await phone.page.locator('#welcome').waitFor();
  await phone.close();
});

test('a second tab takes over, and the first says so and can take back', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const second = await phone.context.newPage();
  await second.goto(`http://127.0.0.1:${relay.port}/`);
  await phone.shows('#banner-title', 'open elsewhere');
  await second.close();
  await phone.page.click('#banner-action');
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Here again.');
  await phone.close();
  await agent.close();
});

test('another agent is added only after a question, and the one before stays', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'First agent.');
  const { token, secret, agent: other } = await pairing();
  await phone.page.goto(link(relay, token, secret));
  await phone.page.locator('#confirm').waitFor();
  await phone.page.getByRole('button', { name: 'Cancel' }).click();
  await talk({ agent, phone }, 'still you?', 'Still me.');
  await phone.page.goto(link(relay, token, secret));
  await phone.page.getByRole('button', { name: 'Add it' }).click();
  await talk({ agent: other, phone }, 'and now?', 'Second agent.');
  assert.deepEqual(await phone.messages('agent'), ['Second agent.']);
  await phone.close();
  await agent.close();
  await other.close();
});

// How many messages this browser keeps, of all pairings; with `all` also what it keeps beside them.
function countKept({ page }, all = false) {
  return page.evaluate(async (all) => {
    const done = (request) => new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    const database = await done(indexedDB.open('coralmux'));
    const store = database.transaction('messages').objectStore('messages');
    const count = await done((all ? store : store.index('pairing')).count());
    database.close();
    return count;
  }, all);
}

test('a message that changes before it has been kept is kept once, and none is that was cleared', async () => {
  const { phone } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.serveModules();
  const kept = await phone.page.evaluate(async () => {
    const { History } = await import('/phone/history.js');
    const history = await History.open('twice');
    const message = { role: 'agent', text: 'Hel', time: 1, state: 'coming' };
    const first = history.put(message);
    message.text = 'Hello';
    await Promise.all([first, history.put(message)]);
    const texts = (await history.load()).messages.map((message) => message.text);
    const late = history.put({ role: 'me', text: 'late', time: 2, state: 'sent' });
    await Promise.all([late, history.clear()]);
    return [texts, (await history.load()).messages];
  });
  assert.deepEqual(kept, [['Hello'], []]);
  await phone.close();
});

test('a conversation that is cleared, or forgotten with its pairing, is no longer in the browser', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const choose = async (button, yes) => {
    await phone.page.click('#more');
    await phone.page.click(button);
    await phone.page.getByRole('button', { name: yes, exact: true }).click();
  };
  await talk({ agent, phone }, 'hello', 'First.');
  assert.ok((await countKept(phone)) >= 2);
  await choose('#clear', 'Clear');
  await phone.page.locator('#empty').waitFor();
  assert.equal(await countKept(phone), 0);
  assert.deepEqual(await phone.messages('agent'), []);
  await talk({ agent, phone }, 'again', 'Second.');
  // Kept by a page before: this one has not counted them.
  await phone.page.reload();
  await phone.shows('.message.agent', 'Second.');
  await choose('#forget', 'Forget');
  await phone.page.locator('#welcome').waitFor();
  assert.equal(await countKept(phone, true), 0);
  await phone.close();
  await agent.close();
});

test('links are read in each form, and what is wrong with one is said', async () => {
  const token = await relay.token();
  const k = randomBytes(32).toString('base64url');
  const phone = await Phone.open(browser, `http://127.0.0.1:${relay.port}/`);
  await phone.page.locator('#welcome').waitFor();
  for (const [text, says] of [
    ['hello', 'not a pairing link'],
    [`http://127.0.0.1:${relay.port}/#token=oc_pair_1`, 'no valid pairing token'],
    [`http://127.0.0.1:${relay.port}/#token=${token}&k=short`, 'damaged'],
    [`openclaw://pair?token=${token}&relay=${encodeURIComponent('wss://relay.example.org/ws')}&k=${k}`, 'relay.example.org'],
  ]) {
    await phone.page.fill('#link', text);
    await phone.page.press('#link', 'Enter');
    await phone.shows('#link-error', says);
  }
  const secret = Buffer.from(k, 'base64url');
  const agent = await Agent.connect(relay.url, token, { secret });
  await phone.page.fill('#link', ` openclaw://pair?token=${token}&relay=${encodeURIComponent(relay.url)}&k=${k}\n`);
  await phone.page.press('#link', 'Enter');
  await phone.secure('Encrypted, verified');
  await phone.close();
  await agent.close();
});

test('a QR code is read through the camera', async () => {
  const { token, secret, agent } = await pairing();
  const phone = await Phone.open(browser, 'about:blank');
  // The camera is Chromium's own fake; what is seen in its picture comes from here.
  await phone.page.addInitScript((found) => {
    globalThis.BarcodeDetector = class {
      static getSupportedFormats = async () => ['qr_code'];
      detect = async (video) => (video.videoWidth ? [{ rawValue: found }] : []);
    };
  }, link(relay, token, secret));
  await phone.page.goto(`http://127.0.0.1:${relay.port}/`);
  await phone.page.getByRole('button', { name: 'Scan the QR code' }).click();
  await phone.secure('Encrypted, verified');
  await phone.close();
  await agent.close();
});

test('an origin without encryption is told apart, and a secret is not used there', async () => {
  const token = await relay.token();
  const phone = await Phone.open(browser, 'about:blank');
  // What a browser does for http:// on another host than localhost.
  await phone.page.addInitScript(() => {
    Object.defineProperty(globalThis.crypto, 'subtle', { value: undefined });
    Object.defineProperty(globalThis.crypto, 'randomUUID', { value: undefined });
  });
  const agent = await Agent.connect(relay.url, token, { secret: randomBytes(32) });
  await phone.page.goto(link(relay, token, randomBytes(32)));
  await phone.shows('#banner-text', 'https://');
  assert.ok(await phone.page.locator('#send').isDisabled());
  assert.deepEqual([agent.chats, agent.refused], [[], []]);
  await phone.close();
  await agent.close();
});

test('the keyboard alone is enough', async () => {
  const { token, secret, agent } = await pairing();
  const phone = await Phone.open(browser, `http://127.0.0.1:${relay.port}/`);
  const { keyboard } = phone.page;
  const focused = () => phone.page.evaluate(() => document.activeElement.id);
  assert.equal(await focused(), 'link', 'the field for the link has the focus');
  await keyboard.insertText(link(relay, token, secret));
  await keyboard.press('Enter');
  await phone.secure('Encrypted, verified');
  assert.equal(await focused(), 'text');
  const asked = agent.chat();
  await keyboard.type('two');
  await keyboard.press('Shift+Enter');
  await keyboard.type('lines');
  await keyboard.press('Enter');
  assert.equal((await asked).text, 'two\nlines');
  agent.answer('Fine.');
  await phone.shows('.message.agent[data-state="done"]', 'Fine.');
  await phone.page.locator('#announcer', { hasText: 'Agent: Fine.' }).waitFor({ state: 'attached' });
  for (let presses = 0; (await focused()) !== 'more'; presses++) {
    assert.ok(presses < 10, 'the menu is not reached');
    await keyboard.press('Shift+Tab');
  }
  await keyboard.press('Enter');
  await phone.page.locator('#about[open]').waitFor();
  await keyboard.press('Escape');
  assert.equal(await focused(), 'more', 'the focus comes back');
  await phone.close();
  await agent.close();
});

for (const colorScheme of ['light', 'dark']) {
  test(`360 pixels are enough, and a checker finds nothing to object to: ${colorScheme}`, async () => {
    const { token, secret, agent } = await pairing();
    const phone = await Phone.open(browser, `http://127.0.0.1:${relay.port}/`, { colorScheme, reducedMotion: 'reduce' });
    await phone.page.locator('#welcome').waitFor();
    await check(phone, 'welcome');
    await phone.page.goto(link(relay, token, secret));
    await phone.secure('Encrypted, verified');
    await check(phone, 'empty');
    const asked = agent.chat();
    await phone.say('x'.repeat(300));
    await asked;
    const code = `\`\`\`\n${'y'.repeat(300)}\n\`\`\``;
    agent.answer(`## Title\n\nText with \`code\`, a [link](https://example.org/) and\n\n${code}\n\n> quoted\n\n1. one\n2. two\n\n${code}`);
    await phone.page.locator('.message.agent[data-state="done"]').waitFor();
    const table = `| ${'wide '.repeat(9)}${'z'.repeat(60)} | b |\n|:-:|--:|\n| 1 | 2 |`;
    agent.say('chat.done', { full_text: `- [x] done\n- [ ] open\n  - nested\n\n${table}\n\nThen\n\n${table}`, finish: 'length' });
    await phone.shows('.message.agent .meta .bad', 'length limit');
    await phone.attachPixel();
    await check(phone, 'chat');
    await phone.page.fill('#text', 'x'.repeat(200_001));
    await check(phone, 'too long');
    await phone.page.fill('#text', '');
    await phone.page.click('#more');
    await check(phone, 'about');
    await phone.page.click('#take');
    await check(phone, 'the link on request');
    await phone.page.keyboard.press('Escape');
    await agent.close();
    await phone.shows('#presence-text', 'Offline');
    await check(phone, 'offline');
    await phone.close();
  });
}

async function check(phone, what) {
  const width = await phone.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `${what}: ${width} pixels wide`);
  // Evaluated through the debugger: the page's own policy would not let it in.
  await phone.page.evaluate(axe);
  const { violations } = await phone.page.evaluate(() => globalThis.axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`)}`);
  assert.deepEqual(found, [], what);
}

// Phones and agents of the packed package over the real relay, against coralmux-agent, the Python client and each other.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, within } from '../../../tests/interop/node/client.mjs';
import { Program } from '../../../tests/interop/node/program.mjs';
import { ADMIN_KEY, ROOT, Relay, binary } from '../../../tests/interop/node/relay.mjs';
import { unpacked } from './packed.mjs';

const PYTHON = join(ROOT, '.venv/bin/python');
const LIMITS = ['--phone-rate', '0', '--agent-rate', '0', '--register-rate', '0'];

// entry: of the package's dist/; WebSocket: whose
export function suite(entry, WebSocket) {
  let packed, relay, folder, client;
  const ends = [];

  before(async () => {
    packed = unpacked();
    client = await packed.entry(entry);
    client.configure({ WebSocket });
    relay = await Relay.start(...LIMITS);
  });

  after(async () => {
    await relay?.stop();
    packed?.remove();
  });

  afterEach(async () => {
    for (const end of ends.splice(0)) await (end.close ? end.close() : end.stop());
    if (folder) rmSync(folder, { recursive: true, force: true });
    folder = null;
  });

  const made = (end) => (ends.push(end), end);
  const phoneOf = (link, options) => made(new client.Phone(link, options));
  const agentOf = (link, answer) => made(new client.Agent(link, { answer, name: 'Package' }));
  const state = () => (folder ??= mkdtempSync(join(tmpdir(), 'coralmux-js-')));
  const newPair = () => client.pair(relay.url.replace(/\/ws$/, ''), { adminKey: ADMIN_KEY });
  const hears = (end, name, is = () => true) => within(new Promise((done) => end.on(name, (...what) => is(...what) && done(what[0]))), name);
  const until = (end, is) => (is(end.state) ? Promise.resolve() : hears(end, 'state', is));

  // coralmux-agent, and a link that it shows.
  async function rustAgent(...flags) {
    const args = ['--relay', relay.url.replace(/\/ws$/, ''), '--state', join(state(), 'agent'), '--qr', 'none', ...flags];
    const agent = made(new Program(binary('coralmux-agent'), args, {}));
    await agent.says(/^Connected/m);
    return { agent, link: () => shownBy('link', ...args.slice(0, 6)) };
  }

  // The link that a command of coralmux-agent prints.
  async function shownBy(...args) {
    const program = new Program(binary('coralmux-agent'), args, {});
    await within(program.ended, 'link');
    return program.said.match(/openclaw:\S+/)[0];
  }

  function python(...args) {
    return made(new Program(PYTHON, args, { cwd: state(), env: { ...process.env, PYTHONPATH: join(ROOT, 'clients/python'), PYTHONDONTWRITEBYTECODE: '1' } }));
  }

  test('a phone of a pairing secret with coralmux-agent: pieces, whole, name, history', async () => {
    const { link } = await rustAgent('--echo', '--e2e', '2', '--name', 'Echo');
    const phone = phoneOf(await link());
    const answer = phone.ask('to be or not to be');
    const pieces = [];
    for await (const piece of answer) pieces.push(piece);
    assert.ok(pieces.length > 0);
    assert.equal(await answer, pieces.join(''));
    assert.match(answer.text, /to be or not to be/);
    assert.deepEqual(phone.state.security, { name: 'verified', resumes: true });
    assert.equal((await phone.request('agent.list')).agents[0].name, 'Echo');
    const { messages } = await phone.request('chat.history');
    assert.deepEqual(messages.map(({ role }) => role), ['user', 'assistant']);
  });

  test('a device of coralmux-agent enrols, and goes on from its storage without its link', async () => {
    const agent = await rustAgent('--echo');
    let link;
    // It names its agent as soon as the relay knows its key.
    await within((async () => { while (!client.parseLink((link = await agent.link())).a); })(), 'link for a device');
    let stored = null;
    const storage = { load: async () => stored, save: async (text) => void (stored = text) };
    const phone = phoneOf(link, { storage, name: 'Test phone', platform: 'test' });
    await until(phone, ({ ready }) => ready);
    assert.match(await phone.ask('first'), /first/);
    phone.close();
    assert.equal(typeof stored, 'string');
    assert.ok(!stored.includes(client.parseLink(link).k), 'the secret of the link is gone');
    const again = phoneOf(null, { storage });
    assert.match(await again.ask('second'), /second/);
    assert.deepEqual(again.state.security, { name: 'verified', resumes: true });
  });

  test('a device of the Python agent, which shows the same code', async () => {
    const { app } = await newPair();
    const { url, token } = client.parseLink(app);
    const agent = python(join(ROOT, 'clients/python/agent.py'), '--state', 'agent.json', url, token);
    const link = await agent.says(/(openclaw:\S+&a=\S+)/);
    const phone = phoneOf(link);
    let code;
    phone.on('state', ({ security }) => (code ??= security.code));
    assert.equal(await phone.ask('hello there'), 'You said: hello there');
    assert.equal(await agent.says(/show this code: (\d{6})/), code);
  });

  test('an agent of the package with the Python phone', async () => {
    const { app } = await newPair();
    const agent = agentOf(app, async function* ({ text }) {
      for (const word of text.split(' ')) yield `${word} `;
    });
    await until(agent, ({ connection }) => connection === 'open');
    const phone = python(join(ROOT, 'clients/python/phone.py'), app, 'sing a song');
    await phone.says(/sing a song/);
    assert.equal(await within(phone.ended, 'end of the phone'), 0, phone.said);
    assert.equal(agent.state.version, 2);
  });

  test('a phone and an agent of the package: images, questions, activity, and the agent speaks first', async () => {
    const { app, browser } = await newPair();
    const agent = agentOf(app, async ({ text, images, ask, activity }) => {
      if (text !== 'may you?') return `${images.length} of ${images[0].mime}: ${[...images[0].data]}`;
      activity({ tool: 'look', message: 'Looking' });
      return `you said ${await ask('May I?', { options: [{ id: 'y', label: 'Yes' }, 'no'] })}`;
    });
    const phone = phoneOf(browser);
    phone.on('question', (question) => question.reply('y'));
    const activity = hears(phone, 'activity');
    assert.equal(await phone.ask('look', { images: [{ mime: 'image/png', data: Uint8Array.of(1, 2, 3) }] }), '1 of image/png: 1,2,3');
    assert.equal(await phone.ask('may you?', { chatId: 'c1' }), 'you said y');
    assert.equal((await activity).message, 'Looking');
    let said;
    const heard = hears(phone, 'answer', (answer) => (said = answer));
    assert.equal(agent.say('it is done'), true);
    assert.equal(await heard, 'it is done');
    assert.equal(said.text, 'it is done');
  });

  test('an answer is cancelled, by itself, by a signal and by the next question', async () => {
    const { app } = await newPair();
    const ended = [];
    agentOf(app, async function* ({ text, signal }) {
      try {
        if (text === 'short') return;
        yield 'on';
        while (!signal.aborted) {
          await delay(20);
          yield '.';
        }
      } finally {
        ended.push(text);
      }
    });
    const phone = phoneOf(app);
    const first = phone.ask('one');
    for await (const piece of first) {
      if (piece.includes('.')) first.cancel();
    }
    assert.match(await first, /^on\./);
    assert.equal(first.cancelled, true);
    const abort = new AbortController();
    const second = phone.ask('two', { signal: abort.signal });
    for await (const piece of second) if (piece) abort.abort();
    assert.equal(second.cancelled, true);
    const third = phone.ask('three');
    for await (const piece of third) if (piece) break;
    assert.equal(await phone.ask('short'), '');
    assert.match(await third, /^on/);
    assert.equal(third.cancelled, true);
    // The program hears of it when it yields again.
    await within((async () => { while (ended.length < 4) await delay(10); })(), 'end of all');
    assert.deepEqual(ended.sort(), ['one', 'short', 'three', 'two']);
  });

  test('a break of the connection loses nothing, and brings nothing twice', async () => {
    const { app } = await newPair();
    const words = Array.from({ length: 60 }, (_, at) => `${at} `);
    agentOf(app, async function* () {
      for (const word of words) {
        yield word;
        await delay(20);
      }
    });
    const phone = phoneOf(app);
    const answer = phone.ask('count');
    const pieces = [];
    for await (const piece of answer) {
      if (pieces.push(piece) !== 5) continue;
      await relay.halt();
      await relay.run();
    }
    assert.equal(pieces.join(''), words.join(''));
    assert.equal(await answer, words.join(''));
  });

  test('what was not confirmed goes out again from the storage, once', async () => {
    const { app } = await newPair();
    const asked = [];
    const answering = ({ text }) => (asked.push(text), `re ${text}`);
    let agent = agentOf(app, answering);
    let stored = null;
    const storage = { load: async () => stored, save: async (text) => void (stored = text) };
    const first = phoneOf(app, { storage });
    await first.ask('one');
    agent.close();
    await until(first, ({ agentOnline }) => !agentOnline);
    const lost = first.ask('two');
    await delay(200);
    first.close();
    await assert.rejects(lost, { name: 'AskError', code: 'CLOSED' });
    const second = phoneOf(app, { storage });
    const told = hears(second, 'answer');
    agent = agentOf(app, answering);
    assert.equal(await told, 're two');
    assert.deepEqual(asked, ['one', 'two']);
  });

  test('a wrong secret, a damaged link and a relay that revokes are told apart', async () => {
    const { app } = await newPair();
    agentOf(app, () => 'never');
    const pairing = client.parseLink(app);
    const other = client.parseLink((await newPair()).app).k;
    const phone = phoneOf(client.formatLink({ ...pairing, k: other }).app);
    const answer = phone.ask('hello');
    await until(phone, ({ security }) => security.name === 'refused');
    assert.equal(phone.state.security.why, 'mismatch');
    assert.equal(phone.state.ready, false);
    phone.close();
    await assert.rejects(answer, { code: 'CLOSED' });
    for (const bad of ['', 'openclaw://pair?token=x', app.replace(/&k=.../, '&k='), 'https://relay.example/', 'x'.repeat(5_000)]) {
      assert.throws(() => new client.Phone(bad || 'nothing'), client.LinkError, bad);
    }
    const right = phoneOf(app);
    await until(right, ({ ready }) => ready);
    await relay.admin('DELETE', `/api/v1/pair/${pairing.token}`);
    await until(right, ({ connection }) => connection === 'ended');
    assert.equal(right.state.why, 'revoked');
  });

  test('an error of the agent, and a message that the relay refuses, fail their own answer', async () => {
    const { app } = await newPair();
    const agent = agentOf(app, ({ text }) => {
      if (text === 'fail') throw new Error('with /a/path in it');
      return 'fine';
    });
    const failed = hears(agent, 'error');
    const phone = phoneOf(app);
    await assert.rejects(phone.ask('fail'), { code: 'BACKEND_ERROR', message: 'The agent failed' });
    assert.match((await failed).message, /a\/path/);
    await assert.rejects(phone.ask('x'.repeat(6 << 20)), { code: 'MESSAGE_TOO_LARGE' });
    assert.equal(await phone.ask('next'), 'fine');
  });

  test('a text near the limit of a message goes both ways', async () => {
    const { app } = await newPair();
    agentOf(app, ({ text }) => text);
    const text = 'abcdefghij'.repeat(370_000);
    assert.ok((await phoneOf(app).ask(text)) === text);
  });

  test('without a secret: version 1, whose fingerprints agree', async () => {
    const token = await relay.token();
    const { app } = client.formatLink({ url: relay.url, token });
    const agent = agentOf(app, ({ text }) => `re ${text}`);
    const phone = phoneOf(app);
    assert.equal(await phone.ask('hello'), 're hello');
    assert.equal(phone.state.security.name, 'unverified');
    assert.equal(phone.state.security.fingerprint, agent.state.fingerprint);
    // An agent of a secret says nothing in clear, and takes nothing.
    const { app: secret } = await newPair();
    const silent = agentOf(secret, () => assert.fail('asked in clear'));
    await until(silent, ({ connection }) => connection === 'open');
    const spy = await Client.authed(relay.url, client.parseLink(secret).token, 'phone');
    spy.send('chat.send', { text: 'in clear' });
    let refusal;
    while ((refusal = await spy.receive()).type !== 'chat.error' || refusal.payload.code === 'PEER_OFFLINE');
    assert.equal(refusal.payload.code, 'DECRYPTION_FAILED');
    await spy.close();
  });
}

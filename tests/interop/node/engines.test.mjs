// The page in Firefox and in WebKit, as Debian has them: what the other tests try in Chromium, one of each kind.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Agent } from './agent.mjs';
import { link } from './browser.mjs';
import { within } from './client.mjs';
import { Firefox, WebKit } from './engines.mjs';
import { Relay } from './relay.mjs';

const DONE = '.message.agent[data-state="done"] .body';
const STREAMING = '.message.agent[data-state="streaming"] .body';

for (const Engine of [Firefox, WebKit]) {
  describe(Engine.name, () => {
    let relay, engine, agent;

    before(async () => {
      [relay, engine] = await Promise.all([Relay.start('--phone-rate', '0', '--agent-rate', '0'), Engine.launch()]);
    });

    after(async () => {
      await engine?.close();
      await agent?.close();
      await relay?.stop();
    });

    async function asks(question) {
      const asked = agent.chat();
      await engine.say(question);
      return asked;
    }

    test('pairs, is verified, streams, and shows what the agent writes as text', async () => {
      const [token, secret] = [await relay.token(), randomBytes(32)];
      agent = await Agent.connect(relay.url, token, { secret, resume: true, name: 'Coral' });
      await engine.open(link(relay, token, secret));
      await engine.shows('#security-label', 'Encrypted, verified');
      await engine.shows('#agent-name', 'Coral');
      assert.equal((await asks('hello')).text, 'hello');
      agent.say('chat.stream', { delta: 'one **two** ', seq: 1, ref: agent.lastId });
      await engine.shows(STREAMING, 'one two');
      const whole = 'one **two** <img src=x onerror=alert(1)>\n\n```js\nlet a = 1;\n```';
      agent.say('chat.done', { full_text: whole, ref: agent.lastId });
      await engine.shows(DONE, '<img src=x onerror=alert(1)>');
      assert.deepEqual(await engine.run((body) => [...document.querySelector(body).querySelectorAll('img, strong, pre')].map(({ tagName }) => tagName), DONE), ['STRONG', 'PRE']);
    });

    test('sends an image that is made smaller', async () => {
      await engine.attach(3_000);
      const { text, images } = await asks('look');
      assert.equal(text, 'look');
      assert.equal(images.length, 1);
      assert.match(images[0].mime, /^image\/(jpeg|png|webp)$/);
      assert.ok(Buffer.from(images[0].data, 'base64').length > 500);
      agent.say('chat.done', { full_text: 'a square', ref: agent.lastId });
      await engine.shows(DONE, 'a square');
    });

    test('answers a question of the agent', async () => {
      await asks('clean up');
      const options = [{ id: 'once', label: 'Allow once' }, { id: 'no', label: 'Reject' }];
      agent.say('chat.ask', { ask: 'q-1', text: 'May I?', options, ref: agent.lastId });
      await engine.shows('.question', 'May I?');
      await engine.click('.question button');
      const given = async () => {
        for (;;) {
          const answer = agent.records.find(({ type }) => type === 'chat.answer');
          if (answer) return answer.p;
          await new Promise((done) => setTimeout(done, 20));
        }
      };
      assert.deepEqual(await within(given(), 'answer'), { ask: 'q-1', option: 'once' });
      agent.say('chat.answered', { ask: 'q-1', outcome: 'answered', option: 'once', ref: agent.lastId });
      agent.say('chat.done', { full_text: 'cleaned', ref: agent.lastId });
      await engine.shows(DONE, 'cleaned');
    });

    test('goes on with an answer over a restart of the relay, and after it is loaded again', async () => {
      await asks('count');
      agent.say('chat.stream', { delta: 'one ', seq: 1, ref: agent.lastId });
      await engine.shows(STREAMING, 'one');
      await relay.halt();
      agent.say('chat.stream', { delta: 'two ', seq: 2, ref: agent.lastId });
      await relay.run();
      await agent.reconnect();
      await engine.shows(STREAMING, 'one two');
      await engine.open(`http://127.0.0.1:${relay.port}/`);
      await engine.shows('#security-label', 'Encrypted, verified');
      agent.say('chat.stream', { delta: 'three', seq: 3, ref: agent.lastId });
      agent.say('chat.done', { full_text: 'one two three', ref: agent.lastId });
      await engine.shows(DONE, 'one two three');
      const texts = await engine.run((body) => [...document.querySelectorAll(body)].map(({ innerText }) => innerText.trim()), DONE);
      assert.equal(texts.filter((text) => text.startsWith('one two three')).length, 1, String(texts));
      await engine.shows('.message.me .body', 'clean up');
      await engine.until('the image', () => document.querySelector('.message.me img')?.naturalWidth > 0);
    });

    test('says that a secret is wrong, and sends nothing', async () => {
      const token = await relay.token();
      const other = await Agent.connect(relay.url, token, { secret: randomBytes(32) });
      try {
        await engine.run(() => localStorage.clear());
        await engine.open(link(relay, token, randomBytes(32)));
        await engine.shows('#banner-text', 'The agent has another pairing key');
        assert.equal(await engine.run(() => document.getElementById('send').disabled), true);
        assert.deepEqual(other.chats, []);
      } finally {
        await other.close();
      }
    });
  });
}

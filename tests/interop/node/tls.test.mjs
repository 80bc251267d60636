// TLS: the `ws` library, and a page in headless Chromium, on `wss://`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Agent } from './agent.mjs';
import { Phone, launch } from './browser.mjs';
import { Client, pair, sized } from './client.mjs';
import { freePort, Relay } from './relay.mjs';

let relay, port, directory, ca;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'coralmux-tls-'));
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
  const names = 'subjectAltName=DNS:localhost,IP:127.0.0.1';
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'];
  execFileSync('openssl', [...made, '-keyout', key, '-out', cert, '-subj', '/CN=localhost', '-addext', names], { stdio: 'ignore' });
  ca = readFileSync(cert);
  port = await freePort();
  relay = await Relay.start('-addr', `tls://127.0.0.1:${port}`, '--tls-cert', cert, '--tls-key', key, '--agent-rate', '0');
});

after(async () => {
  await relay?.stop();
  rmSync(directory, { recursive: true, force: true });
});

for (const maxVersion of ['TLSv1.2', 'TLSv1.3']) {
  test(`a pair talks over ${maxVersion}`, async () => {
    const { agent, phone } = await pair(relay, `wss://localhost:${port}/ws`, { ca, maxVersion });
    for (const size of [200, 16_385, 1_000_000]) {
      for (const [from, to] of [[phone, agent], [agent, phone]]) {
        const text = sized('file.data', size);
        from.ws.send(text);
        assert.equal(await to.receiveAny(), text);
      }
    }
    assert.equal(phone.ws._socket.getProtocol(), maxVersion);
    for (const client of [phone, agent]) client.ws.close();
    await Promise.all([phone.closed, agent.closed]);
  });
}

test('a certificate that nobody vouches for is refused', async () => {
  await assert.rejects(Client.open(`wss://localhost:${port}/ws`), /self-signed certificate/);
});

test('a page in Chromium opens wss', async () => {
  const token = await relay.token();
  const agent = await Client.authed(`wss://localhost:${port}/ws`, token, 'agent', { ca });
  const browser = await launch();
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.goto(`https://localhost:${port}/health`);
    const talk = page.evaluate(
      ([token, port]) =>
        new Promise((done, fail) => {
          const socket = new WebSocket(`wss://localhost:${port}/ws`);
          const seen = [];
          socket.onerror = () => fail(new Error('no connection'));
          socket.onopen = () => socket.send(JSON.stringify({ v: 1, type: 'auth', id: '1', ts: 1, payload: { token, role: 'phone' } }));
          socket.onmessage = ({ data }) => {
            seen.push(JSON.parse(data).type);
            if (seen.length === 1) socket.send(JSON.stringify({ v: 1, type: 'chat.send', id: '2', ts: 1, payload: { text: 'hi' } }));
            if (seen.length === 2) done(seen);
          };
        }),
      [token, port],
    );
    await agent.expect('status');
    assert.deepEqual(await agent.expect('chat.send'), { text: 'hi' });
    agent.send('chat.done', {});
    assert.deepEqual(await talk, ['auth.ok', 'chat.done']);
  } finally {
    await browser.close();
    agent.ws.close();
  }
});

test('the phone in the browser chats over https', async () => {
  const token = await relay.token();
  const secret = randomBytes(32);
  const agent = await Agent.connect(relay.url, token, { secret });
  const browser = await launch();
  try {
    const address = `https://localhost:${port}/#token=${token}&k=${secret.toString('base64url')}`;
    // A worker needs a certificate that the browser trusts; the page does without one.
    const phone = await Phone.open(browser, address, { ignoreHTTPSErrors: true, serviceWorkers: 'block' });
    await phone.secure('Encrypted, verified');
    const asked = agent.chat();
    await phone.say('hello');
    assert.equal((await asked).text, 'hello');
    agent.answer('Hello over TLS.');
    await phone.shows('.message.agent[data-state="done"] .body', 'Hello over TLS.');
    assert.ok(phone.requests.includes(`wss://localhost:${port}/ws`));
    await phone.close();
  } finally {
    await browser.close();
    await agent.close();
  }
});

// Page, agent and admin command behind the proxies that people run, with the files of deploy/proxy: at a host name of the
// relay's own, and below a path of a site.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { NAMES, Proxy, certificate } from './behind.mjs';
import { Phone, launch } from './browser.mjs';
import { Client, pair as clients, sized, within } from './client.mjs';
import { Program } from './program.mjs';
import { ADMIN_KEY, Relay, binary } from './relay.mjs';

let relay, browser, folder, pair;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'coralmux-behind-'));
  pair = certificate(folder);
  relay = await Relay.start('--trusted-proxy', '127.0.0.1', '--register-rate', '0', '--agent-rate', '0', '--phone-rate', '0');
  // A page's worker needs a certificate that the browser trusts.
  browser = await launch(`--ignore-certificate-errors-spki-list=${pair.pin}`);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
  rmSync(folder, { recursive: true, force: true });
});

// What a program of the project prints; it has to end well.
async function printed(name, ...args) {
  const program = new Program(binary(name), args, { env: { ...process.env, XDG_STATE_HOME: folder, RELAY_ADMIN_KEY: ADMIN_KEY } });
  assert.equal(await within(program.ended, `end of ${name}`), 0, program.said);
  return program.said;
}

// Status and text of an answer, and where it leads on to.
function fetched(address, options) {
  const answer = new Promise((done, fail) => {
    get(address, { ca: pair.ca, ...options }, async (from) => {
      let text = '';
      for await (const piece of from) text += piece;
      done({ status: from.statusCode, location: from.headers.location, text });
    }).on('error', fail);
  });
  return within(answer, `answer of ${address}`);
}

async function works(base) {
  const state = join(folder, `state-${new URL(base).port}`);
  const trust = ['--relay', base, '--ca-file', pair.cert, '--state', state];
  const agent = new Program(binary('coralmux-agent'), [...trust, '--echo'], {});
  try {
    // The agent registers, and shows a link to the page, through the proxy.
    await agent.says(/^Connected/m);
    const link = (await printed('coralmux-agent', 'link', ...trust.slice(0, 2), '--state', state, '--qr', 'none')).match(/https:\S+/)[0];
    assert.ok(link.startsWith(`${base}#token=`), link);

    const phone = await Phone.open(browser, link);
    await phone.secure('Encrypted, verified');
    await phone.say('good morning');
    await phone.shows('.message.agent[data-state="done"] .body', 'You said: good morning');
    const scope = await phone.page.evaluate(async () => (await navigator.serviceWorker.ready).scope);
    assert.equal(scope, base);
    const app = await phone.page.evaluate(async () => {
      const { href } = document.querySelector('link[rel=manifest]');
      const manifest = await (await fetch(href)).json();
      const icons = await Promise.all(manifest.icons.map(({ src }) => fetch(new URL(src, href))));
      return [...['start_url', 'scope'].map((name) => new URL(manifest[name], href).href), ...icons.map(({ status }) => status)];
    });
    assert.deepEqual(app, [base, base, 200, 200, 200]);
    const foreign = phone.requests.filter((url) => !url.replace('wss:', 'https:').startsWith(base));
    assert.deepEqual(foreign, []);
    assert.ok(phone.requests.includes(`${base.replace('https:', 'wss:')}ws`), phone.requests.join('\n'));
    // Once more, now through the worker.
    await phone.page.reload();
    await phone.secure('Encrypted, verified');
    await phone.shows('.message.agent .body', 'You said: good morning');
    await phone.close();

    const { sessions } = JSON.parse(await printed('coralmux-relay', 'admin', '--relay', base, '--ca', pair.cert, '--json', 'sessions'));
    assert.ok(sessions.some((session) => session.online.agent), JSON.stringify(sessions));
  } finally {
    await agent.stop();
  }
}

// Large messages pass both ways, and clients are told apart by where they come from, whatever they say.
async function passes(base, localAddress) {
  const url = `${base.replace('https:', 'wss:')}ws`;
  const { agent, phone } = await clients(relay, url, {
    ca: pair.ca,
    family: 4,
    localAddress,
    headers: { 'X-Forwarded-For': '192.0.2.1' },
  });
  for (const [from, to] of [[phone, agent], [agent, phone]]) {
    const text = sized('file.data', 3_000_000);
    from.ws.send(text);
    assert.equal(await to.receiveAny(), text);
  }
  for (const client of [phone, agent]) client.ws.close();
  await Promise.all([phone.closed, agent.closed]);
  assert.ok(relay.program.said.includes(localAddress), relay.program.said);
  assert.ok(!relay.program.said.includes('192.0.2.1'), relay.program.said);
}

for (const [at, name] of NAMES.entries()) {
  test(`behind ${name}, at a host name of its own`, async () => {
    const proxy = await Proxy.start(name, 'relay.example.com', relay, pair);
    try {
      await works(`${proxy.origin}/`);
      await passes(`${proxy.origin}/`, `127.0.1.${at + 1}`);
    } finally {
      await proxy.stop();
    }
  });

  test(`behind ${name}, below a path of a site`, async () => {
    const proxy = await Proxy.start(name, 'www.example.com', relay, pair);
    try {
      await works(`${proxy.origin}/coral/`);
      await passes(`${proxy.origin}/coral/`, `127.0.2.${at + 1}`);
      const bare = await fetched(`${proxy.origin}/coral`);
      assert.ok([301, 302, 307, 308].includes(bare.status), bare.status);
      assert.equal(new URL(bare.location, proxy.origin).href, `${proxy.origin}/coral/`);
      for (const path of ['/', '/ws', '/coralx/', '/health']) {
        assert.ok(!/CoralMux|connections/.test((await fetched(proxy.origin + path)).text), path);
      }
    } finally {
      await proxy.stop();
    }
  });
}

// The phone in the browser where something does not answer, or answers what nobody expects: real relay, headless Chromium.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createServer, request } from 'node:http';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { Phone, launch, link } from './browser.mjs';
import * as chat from './chat.mjs';
import { talk } from './chat.mjs';
import { Relay } from './relay.mjs';

let relay;
let browser;

before(async () => {
  [relay, browser] = await Promise.all([Relay.start('--phone-rate', '0'), launch()]);
});

after(async () => {
  await browser?.close();
  await relay?.stop();
});

const pair = (prepare, options) => chat.pair(browser, relay, options, prepare);

// Makes what a name stands for never answer, before the page's own scripts run.
function hangs(...names) {
  return (phone) =>
    phone.page.addInitScript((names) => {
      for (const name of names) {
        const path = name.split('.');
        const last = path.pop();
        const owner = path.reduce((value, key) => value?.[key], globalThis);
        if (owner) Object.defineProperty(owner, last, { value: () => new Promise(() => {}), configurable: true });
      }
    }, names);
}

test('the relay hangs: the page and the conversation come from the cache', async () => {
  const own = await Relay.start();
  const { phone, agent } = await chat.pair(browser, own);
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'remember this', 'I do.');
  await phone.page.evaluate(() => navigator.serviceWorker.ready);
  own.program.process.kill('SIGSTOP');
  try {
    await phone.page.reload({ waitUntil: 'commit', timeout: 5_000 });
    await phone.page.locator('.message.agent', { hasText: 'I do.' }).waitFor({ timeout: 5_000 });
    await phone.shows('#presence-text', 'Connecting');
  } finally {
    own.program.process.kill('SIGCONT');
  }
  await agent.close();
  await phone.close();
  await own.stop();
});

test('the whole of a page that is kept fits together: none of it is of another version', async () => {
  const own = await Relay.start();
  const { phone, agent } = await chat.pair(browser, own);
  await phone.secure('Encrypted, verified');
  await phone.page.evaluate(() => navigator.serviceWorker.ready);
  const missing = await phone.page.evaluate(async () => {
    const [name, ...others] = await caches.keys();
    if (others.length) throw new Error(`other caches: ${others}`);
    const kept = (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname);
    const used = performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname);
    return used.filter((path) => /\.(js|css)$/.test(path) && path !== '/sw.js' && !kept.includes(path));
  });
  assert.deepEqual(missing, []);
  await agent.close();
  await phone.close();
  await own.stop();
});

// The relay as another version of it would serve the page: with other names, and without those of this one.
class Upgraded {
  static mark = (text) => text.replace(/\.([0-9a-f]{8})\.(js|css)\b/g, '.new-$1.$2').replace(/phone-[0-9a-f]{8}\b/, '$&-new').replace('<title>CoralMux', '<title>New CoralMux');
  isOn = false;

  rewrite(path) {
    if (!this.isOn) return path;
    if (/\.[0-9a-f]{8}\.(js|css)$/.test(path)) return null;
    return path.replace('.new-', '.');
  }

  mark(path, text) {
    return this.isOn && /^\/($|sw\.js|phone\/(app|later))/.test(path) ? Upgraded.mark(text) : text;
  }
}

test('a new version comes while a chat is open: nothing is lost, and the next visit has it', async () => {
  const upgraded = new Upgraded();
  const proxy = await behind('', upgraded);
  const { token, secret, agent } = await chat.pairing(relay);
  const hash = new URL(link(relay, token, secret)).hash;
  const address = `http://127.0.0.1:${proxy.port}/`;
  const phone = await Phone.open(browser, address + hash);
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'before', 'The old one.');
  await phone.page.waitForFunction(() => navigator.serviceWorker.controller);
  await phone.page.fill('#text', 'half a mess');

  upgraded.isOn = true;
  await phone.page.evaluate(async () => {
    const changed = new Promise((done) => navigator.serviceWorker.addEventListener('controllerchange', done));
    await (await navigator.serviceWorker.ready).update();
    await changed;
  });
  // The open page is what it was, and what it has not loaded yet is still to be had.
  assert.equal(await phone.page.inputValue('#text'), 'half a mess');
  assert.equal(await phone.page.title(), 'CoralMux');
  await talk({ agent, phone }, 'half a message', 'Still the old one.');
  const later = await phone.page.evaluate(async () => {
    const [script] = document.querySelectorAll('script[type=module]');
    return [(await fetch(script.src)).status, typeof (await import(new URL('phone/qr.js', document.baseURI))).generate];
  });
  assert.deepEqual(later, [200, 'function']);

  await phone.page.reload();
  await phone.secure('Encrypted, verified');
  assert.equal(await phone.page.title(), 'New CoralMux');
  assert.deepEqual(await phone.messages('agent'), ['The old one.', 'Still the old one.']);
  await talk({ agent, phone }, 'after', 'The new one.');
  await phone.close();
  await agent.close();
  proxy.close();
});

test('storage that never answers keeps nothing from being shown or sent', async () => {
  const { phone, agent } = await pair((phone) =>
    phone.page.addInitScript(() => {
      IDBFactory.prototype.open = () => ({});
    }),
  );
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Here.');
  await phone.page.click('#more');
  await phone.shows('#kept', 'storage does not answer');
  await phone.page.keyboard.press('Escape');
  await phone.page.click('#more');
  await phone.page.click('#forget');
  await phone.page.getByRole('button', { name: 'Forget', exact: true }).click();
  await phone.shows('#welcome-note', 'may still be there');
  await phone.close();
  await agent.close();
});

test('storage that stops answering in the middle keeps nothing from being sent', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'one', 'First.');
  await phone.page.evaluate(() => {
    IDBObjectStore.prototype.put = () => ({});
  });
  await talk({ agent, phone }, 'two', 'Second.');
  await talk({ agent, phone }, 'three', 'Third.');
  await phone.close();
  await agent.close();
});

test('a service worker, a QR reader and a cache that never answer hold up nothing', async () => {
  const { phone, agent } = await pair(hangs('ServiceWorkerContainer.prototype.register', 'CacheStorage.prototype.open', 'BarcodeDetector.getSupportedFormats'));
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Here.');
  await phone.close();
  await agent.close();
  const fresh = await Phone.open(browser, 'about:blank');
  await hangs('BarcodeDetector.getSupportedFormats')(fresh);
  await fresh.page.goto(`http://127.0.0.1:${relay.port}/`);
  await fresh.page.locator('#link:focus').waitFor();
  await fresh.close();
});

test('encryption that never answers is told as a browser that has none', async () => {
  const { phone, agent } = await pair(hangs('SubtleCrypto.prototype.generateKey'));
  await phone.shows('#banner-text', 'lacks the encryption');
  await phone.close();
  await agent.close();
});

test('a camera that does not answer is told, and one that answers late is let go', async () => {
  const phone = await Phone.open(browser, 'about:blank');
  await phone.page.addInitScript(() => {
    globalThis.BarcodeDetector = class {
      static getSupportedFormats = async () => ['qr_code'];
      detect = () => new Promise(() => {});
    };
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      await new Promise((answer) => (globalThis.answerCamera = answer));
      return (globalThis.stream = await real(wanted));
    };
  });
  await phone.page.goto(`http://127.0.0.1:${relay.port}/`);
  await phone.page.getByRole('button', { name: 'Scan the QR code' }).click();
  await phone.shows('#camera-note', 'does not answer');
  await phone.page.keyboard.press('Escape');
  await phone.page.evaluate(() => globalThis.answerCamera());
  await phone.page.waitForFunction(() => globalThis.stream?.getTracks().every(({ readyState }) => readyState === 'ended'));
  await phone.close();
});

test('a clipboard that does not answer is told', async () => {
  const { phone, agent } = await pair(hangs('Clipboard.prototype.writeText'));
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'code', 'Here.');
  agent.answer('```\ncode\n```');
  await phone.page.getByRole('button', { name: 'Copy' }).click();
  await phone.shows('.copy', 'Not copied');
  await phone.close();
  await agent.close();
});

test('an image that can no longer be read fails alone, with words', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.attachPixel();
  await phone.page.evaluate(() => {
    const read = Blob.prototype.arrayBuffer;
    Blob.prototype.arrayBuffer = function () {
      Blob.prototype.arrayBuffer = read;
      return Promise.reject(new DOMException('gone', 'NotReadableError'));
    };
  });
  await phone.say('look');
  await phone.shows('.message.me[data-state="failed"] .meta', 'can no longer be read');
  await talk({ agent, phone }, 'and without?', 'Here.');
  await phone.close();
  await agent.close();
});

test('Enter that ends a composition sends nothing, in Safari’s order of events neither', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.page.fill('#text', 'にほんご');
  await phone.page.evaluate(() => {
    const text = document.getElementById('text');
    text.focus();
    const key = (init) => text.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...init }));
    key({ isComposing: true, keyCode: 229 });
    text.dispatchEvent(new CompositionEvent('compositionend', { bubbles: true }));
    key({ keyCode: 229 });
  });
  assert.equal(await phone.page.inputValue('#text'), 'にほんご');
  assert.equal(await phone.page.locator('.message.me').count(), 0);
  const asked = agent.chat();
  await phone.page.press('#text', 'Enter');
  assert.equal((await asked).text, 'にほんご');
  await phone.close();
  await agent.close();
});

test('a text that is too long loses nothing: it is told, and not sent', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.page.focus('#text');
  await phone.page.keyboard.insertText('x'.repeat(300_000));
  await phone.shows('#composer-error', 'This message has 300,000 characters, and 200,000 fit.');
  await phone.page.press('#text', 'Enter');
  await phone.page.click('#send');
  assert.equal((await phone.page.inputValue('#text')).length, 300_000);
  assert.equal(await phone.page.locator('.message.me').count(), 0);
  const asked = agent.chat();
  await phone.say('y'.repeat(200_000));
  assert.equal((await asked).text.length, 200_000);
  await phone.close();
  await agent.close();
});

test('text that comes with a picture is pasted as text, a picture alone is added', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const paste = (text) =>
    phone.page.evaluate(async (text) => {
      const canvas = document.createElement('canvas');
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
      const data = new DataTransfer();
      data.items.add(new File([blob], 'a.png', { type: 'image/png' }));
      if (text) data.setData('text/plain', text);
      const event = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
      document.getElementById('text').dispatchEvent(event);
      return event.defaultPrevented;
    }, text);
  assert.equal(await paste('a\tb'), false, 'the browser pastes the text');
  assert.equal(await paste(''), true);
  await phone.page.locator('#attached li').waitFor();
  await phone.close();
  await agent.close();
});

test('half a character is sent as the mark for one', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const asked = agent.chat();
  await phone.page.evaluate(() => {
    document.getElementById('text').value = 'a\ud800b';
    document.getElementById('send').click();
  });
  assert.equal((await asked).text, 'a\ufffdb');
  await phone.close();
  await agent.close();
});

test('the pairing is taken along: the link is shown on request, with a warning, and pairs another browser', async () => {
  const { phone, agent, token, secret } = await pair();
  await phone.secure('Encrypted, verified');
  await phone.page.click('#more');
  assert.equal(await phone.page.locator('#taken').isVisible(), false);
  assert.equal(await phone.page.inputValue('#taken-link'), '', 'the key is not on the page before it is asked for');
  await phone.page.getByRole('button', { name: 'Take the pairing along' }).click();
  await phone.shows('#taken', 'The link is a secret');
  const taken = await phone.page.inputValue('#taken-link');
  assert.equal(taken, link(relay, token, secret));
  await phone.context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await phone.page.click('#copy-link');
  await phone.shows('#copy-link', 'Copied');
  assert.equal(await phone.page.evaluate(() => navigator.clipboard.readText()), taken);
  await phone.page.keyboard.press('Escape');
  await phone.page.waitForFunction(() => document.getElementById('taken-link').value === '');
  // The app on the home screen has a storage of its own.
  const app = await Phone.open(browser, 'about:blank');
  await app.page.addInitScript(() => Object.defineProperty(navigator, 'standalone', { value: true }));
  await app.page.goto(`http://127.0.0.1:${relay.port}/`);
  await app.shows('#app-note', 'Take the pairing along');
  await app.page.fill('#link', taken);
  await app.page.press('#link', 'Enter');
  await app.secure('Encrypted, verified');
  await talk({ agent, phone: app }, 'hello', 'From the app.');
  await app.close();
  await phone.close();
  await agent.close();
});

// Passes what is below `prefix` on to the relay, without it; as `upgraded` has it, if there is one.
async function behind(prefix, upgraded) {
  const proxy = createServer((from, to) => {
    if (!from.url.startsWith(`${prefix}/`) && from.url !== prefix) return to.writeHead(404).end('not here');
    const asked = from.url.slice(prefix.length) || '/';
    const path = upgraded ? upgraded.rewrite(asked) : asked;
    if (!path) return to.writeHead(404).end('not in this version');
    const headers = upgraded ? { ...from.headers, 'accept-encoding': 'identity', 'if-none-match': '' } : from.headers;
    const passed = request({ port: relay.port, path, method: from.method, headers }, async (answer) => {
      if (!upgraded) {
        to.writeHead(answer.statusCode, answer.headers);
        return answer.pipe(to);
      }
      const pieces = [];
      for await (const piece of answer) pieces.push(piece);
      const whole = Buffer.concat(pieces);
      const body = /text|script/.test(answer.headers['content-type']) ? Buffer.from(upgraded.mark(path, whole.toString())) : whole;
      return to.writeHead(answer.statusCode, { ...answer.headers, 'content-length': body.length }).end(body);
    });
    return from.pipe(passed);
  });
  proxy.on('upgrade', (from, socket, head) => {
    if (!from.url.startsWith(`${prefix}/`)) return socket.destroy();
    const onward = connect(relay.port, '127.0.0.1', () => {
      const headers = from.rawHeaders.reduce((text, part, at) => text + part + (at % 2 ? '\r\n' : ': '), '');
      onward.write(`GET ${from.url.slice(prefix.length)} HTTP/1.1\r\n${headers}\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const one of [onward, socket]) one.on('error', () => {});
    return undefined;
  });
  await new Promise((done) => proxy.listen(0, '127.0.0.1', done));
  return { port: proxy.address().port, close: () => (proxy.closeAllConnections(), proxy.close()) };
}

test('behind a path prefix the page works, and without the last slash says what is wrong', async () => {
  const proxy = await behind('/relay');
  const { token, secret, agent } = await chat.pairing(relay);
  const hash = new URL(link(relay, token, secret)).hash;
  const phone = await Phone.open(browser, `http://127.0.0.1:${proxy.port}/relay/${hash}`);
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Through the proxy.');
  const scope = await phone.page.evaluate(async () => (await navigator.serviceWorker.ready).scope);
  assert.equal(new URL(scope).pathname, '/relay/');
  await phone.page.click('#more');
  await phone.page.click('#take');
  assert.equal(await phone.page.inputValue('#taken-link'), `http://127.0.0.1:${proxy.port}/relay/${hash}`);
  await phone.close();
  const bare = await Phone.open(browser, `http://127.0.0.1:${proxy.port}/relay`);
  await bare.shows('#starting', 'ends with /');
  bare.faults.length = 0;
  await bare.close();
  await agent.close();
  proxy.close();
});

test('what the relay held back is counted, and said', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  // Sealed, and never sent: as if it had been lost on the way.
  agent.sealed('chat.stream', { delta: 'lost', seq: 1 });
  agent.answer('Found.');
  await phone.shows('.message.note .body', 'One message from the agent did not arrive.');
  for (let count = 0; count < 3; count++) agent.sealed('chat.stream', { delta: 'lost', seq: 1 });
  agent.answer('Found again.');
  await phone.shows('.message.note .body', '4 messages from the agent did not arrive.');
  assert.equal(await phone.page.locator('.message.note').count(), 1);
  await phone.close();
  await agent.close();
});

test('messages that nobody expects are passed over, and the chat goes on', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const odd = [null, 5, 'text', [], [null], true, {}, { delta: {} }, { full_text: [] }, { agents: [null] }, { agents: 5 }, { ref: {} }, { code: {}, message: [] }, { delta: '\ud800', seq: '1' }, { ['__proto__']: { delta: 'x' } }];
  for (const type of ['chat.stream', 'chat.done', 'chat.error', 'chat.tool_status', 'agent.list.result', 'chat.history.result', 'nobody.knows']) {
    for (const payload of odd) agent.say(type, payload);
  }
  for (const type of ['chat.error', 'status', 'pong', 'auth.ok', 'auth.fail']) {
    for (const payload of odd) agent.client.send(type, payload);
  }
  await talk({ agent, phone }, 'still there?', 'Still here.');
  assert.deepEqual(phone.faults.filter((fault) => !/could not be read/.test(fault)), []);
  await phone.close();
  await agent.close();
});

test('how an answer ended that is not whole is said, and stays said', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  const ends = [
    [{ finish: 'length', notice: 'The answer was cut off: <b>4096</b> tokens.' }, 'The answer was cut off: <b>4096</b> tokens.', true],
    [{ finish: 'content_filter' }, 'a content filter cut it off', true],
    [{ finish: 'refusal' }, 'The model refused to answer', false],
    [{ finish: 'constructor', notice: 7 }, 'may not be complete', true],
    [{ finish: 'other', notice: 'x'.repeat(10_000) }, 'x'.repeat(300), true],
  ];
  for (const [end, says, isPart] of ends) {
    agent.say('chat.done', { full_text: JSON.stringify(end).slice(0, 30), ...end });
    const remark = phone.page.locator('.message.agent .meta span', { hasText: says }).last();
    await remark.waitFor();
    assert.equal((await remark.getAttribute('class')) ?? '', isPart ? 'bad' : '', says);
    assert.ok((await remark.innerText()).length <= 301);
  }
  await phone.page.reload();
  await phone.shows('.message.agent .meta .bad', 'a content filter cut it off');
  await phone.secure('Encrypted, verified');
  const asked = agent.chat();
  await phone.say('think');
  await asked;
  agent.say('chat.tool_status', { status: 'thinking', message: 'The model is thinking', ref: agent.lastId });
  await phone.shows('.thinking em', 'The model is thinking');
  agent.say('chat.stream', { delta: 'Thought.', seq: 1, ref: agent.lastId });
  agent.say('chat.done', { full_text: 'Thought.', ref: agent.lastId });
  await phone.shows('.message.agent[data-state="done"] .body', 'Thought.');
  assert.equal(await phone.page.locator('.thinking').count(), 0);
  await phone.close();
  await agent.close();
});

test('a message that is too much, or cannot be drawn, keeps no other from being drawn', async () => {
  const { phone, agent } = await pair();
  await phone.secure('Encrypted, verified');
  agent.say('chat.done', { full_text: 'line\n'.repeat(200_000) });
  await phone.shows('.message.agent .body', 'line');
  assert.equal(await phone.page.evaluate(() => document.querySelector('.message.agent .body').textContent.match(/line/g).length), 200_000);
  await talk({ agent, phone }, 'hello', 'After it.');
  await phone.page.evaluate(() => {
    const make = document.createElement.bind(document);
    document.createElement = (name) => {
      if (name === 'table') throw new Error('no tables today');
      return make(name);
    };
  });
  agent.say('chat.done', { full_text: '| a | b |\n|---|---|\n| 1 | 2 |' });
  await phone.shows('.message.agent .raw', '|---|---|');
  await talk({ agent, phone }, 'and now?', 'Still *drawn*.'.replaceAll('*', ''));
  assert.ok(phone.faults.every((fault) => fault.includes('no tables today')), phone.faults.join());
  phone.faults.length = 0;
  await phone.close();
  await agent.close();
});

test('an agreement on keys whose beginning is lost is tried again', async () => {
  let lost = 0;
  const { phone, agent } = await pair(async ({ page }) => {
    await page.clock.install();
    await page.routeWebSocket(/\/ws$/, (socket) => {
      const server = socket.connectToServer();
      socket.onMessage((text) => {
        if (JSON.parse(text).type === 'key_exchange' && !lost++) return;
        server.send(text);
      });
    });
  });
  while (!lost) await phone.page.waitForTimeout(20);
  await phone.secure('Securing…');
  await phone.page.clock.fastForward(20_000);
  await phone.secure('Securing…');
  await phone.page.clock.fastForward(11_000);
  await phone.secure('Encrypted, verified');
  await talk({ agent, phone }, 'hello', 'Hello.');
  await phone.close();
  await agent.close();
});

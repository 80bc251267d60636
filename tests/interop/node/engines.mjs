// Firefox and WebKit, with one interface for tests: Firefox by WebDriver BiDi, WebKit by WebDriver, both as Debian packages
// them. A script runs in the page, and its value comes back as JSON.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { within } from './client.mjs';
import { Program } from './program.mjs';
import { freePort } from './relay.mjs';

const TRIES = 300;
const BETWEEN_MS = 50;

// What both have; `run(function, ...args)` is an engine's own.
class Engine {
  // Waits until a function of the page returns something, and returns that.
  async until(what, look, ...args) {
    for (let tries = 0; tries < TRIES; tries++) {
      const found = await this.run(look, ...args);
      if (found) return found;
      await delay(BETWEEN_MS);
    }
    throw new Error(`${this.name}: no ${what} in\n${await this.run(() => document.body.innerText)}`);
  }

  shows(selector, text) {
    const look = (selector, text) => [...document.querySelectorAll(selector)].some((one) => one.checkVisibility() && one.innerText.includes(text));
    return this.until(`${text} in ${selector}`, look, selector, text);
  }

  click(selector) {
    return this.run((selector) => document.querySelector(selector).click(), selector);
  }

  async say(text) {
    await this.run((text) => {
      const field = document.getElementById('text');
      field.value = text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
      document.getElementById('composer').requestSubmit();
    }, text);
  }

  // As if a picture of this size had been chosen.
  async attach(side) {
    await this.run(async (side) => {
      const canvas = Object.assign(document.createElement('canvas'), { width: side, height: side });
      canvas.getContext('2d').fillRect(0, 0, side / 2, side);
      const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
      const files = new DataTransfer();
      files.items.add(new File([blob], 'a.png', { type: 'image/png' }));
      const input = document.getElementById('file');
      input.files = files.files;
      input.dispatchEvent(new Event('change', { bubbles: true }));
    }, side);
    await this.until('attached image', () => document.querySelector('#attached li') !== null);
  }
}

export class Firefox extends Engine {
  name = 'Firefox';
  #waiting = new Map();
  #last = 0;

  // `preferences`: more of them, by their names.
  static async launch(preferences = {}) {
    const engine = new Firefox();
    engine.folder = mkdtempSync(join(tmpdir(), 'coralmux-firefox-'));
    const quiet = ['app.update.enabled', 'browser.shell.checkDefaultBrowser', 'datareporting.policy.dataSubmissionEnabled', 'network.captive-portal-service.enabled', 'network.connectivity-service.enabled', 'services.settings.enabled'];
    writeFileSync(join(engine.folder, 'user.js'), quiet.map((name) => [name, false]).concat(Object.entries(preferences)).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`).join(''));
    const options = ['--headless', '--no-remote', '--profile', engine.folder, '--remote-debugging-port', '0', 'about:blank'];
    engine.program = new Program('firefox-esr', options, { env: { ...process.env, HOME: engine.folder } });
    const address = await engine.program.says(/WebDriver BiDi listening on (\S+)/);
    engine.socket = new WebSocket(`${address}/session`);
    await within(new Promise((done, fail) => engine.socket.once('open', done).once('error', fail)), 'connection to Firefox');
    engine.socket.on('message', (text) => engine.#receive(JSON.parse(text)));
    // The push service of the tests has a certificate of its own making.
    await engine.#call('session.new', { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
    const { contexts } = await engine.#call('browsingContext.getTree', {});
    engine.context = contexts[0].context;
    return engine;
  }

  #receive({ id, result, message }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (result) waiting?.done(result);
    else waiting?.fail(new Error(message));
  }

  #call(method, params) {
    const id = (this.#last += 1);
    const answer = new Promise((done, fail) => this.#waiting.set(id, { done, fail }));
    this.socket.send(JSON.stringify({ id, method, params }));
    return within(answer, `answer to ${method}`);
  }

  async open(address) {
    await this.#call('browsingContext.navigate', { context: this.context, url: 'about:blank', wait: 'complete' });
    await this.#call('browsingContext.navigate', { context: this.context, url: address, wait: 'complete' });
  }

  async run(script, ...args) {
    const functionDeclaration = `async (args) => JSON.stringify((await (${script})(...JSON.parse(args))) ?? null)`;
    const { result, exceptionDetails } = await this.#call('script.callFunction', {
      functionDeclaration,
      awaitPromise: true,
      target: { context: this.context },
      arguments: [{ type: 'string', value: JSON.stringify(args) }],
    });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return JSON.parse(result.value);
  }

  async close() {
    this.socket?.close();
    await this.program.stop('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const LIBRARIES = '/usr/lib';

// MiniBrowser of the newest WebKitGTK that is installed.
function miniBrowser() {
  const folders = readdirSync(LIBRARIES).flatMap((architecture) => ['4.1', '4.0'].map((version) => join(LIBRARIES, architecture, `webkit2gtk-${version}`, 'MiniBrowser')));
  return folders.find((path) => existsSync(path));
}

export class WebKit extends Engine {
  name = 'WebKit';

  static async launch() {
    const engine = new WebKit();
    engine.folder = mkdtempSync(join(tmpdir(), 'coralmux-webkit-'));
    // Its own display, the number of which Xvfb chooses.
    engine.display = new Program('Xvfb', ['-displayfd', '1', '-screen', '0', '800x900x24', '-nolisten', 'tcp'], {});
    const display = await engine.display.says(/^(\d+)$/m);
    const port = await freePort();
    const env = { ...process.env, DISPLAY: `:${display}`, HOME: engine.folder, GDK_BACKEND: 'x11', LIBGL_ALWAYS_SOFTWARE: '1', WEBKIT_DISABLE_COMPOSITING_MODE: '1', NO_AT_BRIDGE: '1' };
    engine.program = new Program('WebKitWebDriver', [`--port=${port}`], { env, detached: true });
    engine.base = `http://127.0.0.1:${port}`;
    const browser = { binary: miniBrowser(), args: ['--automation'] };
    for (let tries = 0; !engine.session; tries++) {
      const opened = await engine.#call('POST', '/session', { capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': browser } } }).catch((error) => {
        if (tries > TRIES || error.cause?.code !== 'ECONNREFUSED') throw error;
      });
      if (opened) engine.session = `/session/${opened.sessionId}`;
      else await delay(BETWEEN_MS);
    }
    return engine;
  }

  async #call(method, path, body) {
    const answer = await fetch(this.base + path, { method, body: body && JSON.stringify(body), headers: { 'Content-Type': 'application/json' } });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${value?.error}: ${value?.message}`);
    return value;
  }

  async open(address) {
    await this.#call('POST', `${this.session}/url`, { url: 'about:blank' });
    await this.#call('POST', `${this.session}/url`, { url: address });
  }

  async run(script, ...args) {
    const call = `const [given, done] = arguments;
      const work = async () => JSON.stringify((await (${script})(...JSON.parse(given))) ?? null);
      work().then(done, (error) => done(JSON.stringify({ fault: String(error) })));`;
    const value = JSON.parse(await this.#call('POST', `${this.session}/execute/async`, { script: call, args: [JSON.stringify(args)] }));
    if (value?.fault) throw new Error(value.fault);
    return value;
  }

  async close() {
    if (this.session) await this.#call('DELETE', this.session).catch(() => {});
    // It and its browser: the group that it leads.
    process.kill(-this.program.process.pid, 'SIGKILL');
    await this.program.ended;
    await this.display.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

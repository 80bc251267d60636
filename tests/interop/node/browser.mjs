// The phone in the browser, in headless Chromium: opens the page with a pairing link and reads what is on it.
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { ROOT } from './relay.mjs';

export const PHONE = { width: 360, height: 740 };

// `flags`: more of them, for Chromium.
export async function launch(...flags) {
  const options = { args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', ...flags] };
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ ...options, executablePath });
}

export function link(relay, token, secret) {
  const key = secret ? `&k=${secret.toString('base64url')}` : '';
  return `http://127.0.0.1:${relay.port}/#token=${token}${key}`;
}

const PIXEL = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==', 'base64');

// A browser profile of its own. Everything that the page complains about is kept in `faults`.
export class Phone {
  faults = [];
  // The addresses that the page asked for.
  requests = [];

  static async open(browser, address, options = {}) {
    const phone = new Phone();
    phone.context = await browser.newContext({ viewport: PHONE, hasTouch: false, ...options });
    phone.page = await phone.context.newPage();
    phone.page.setDefaultTimeout(45_000);
    phone.page.on('pageerror', (error) => phone.faults.push(String(error)));
    phone.page.on('console', (message) => {
      // A relay that is away is no fault of the page, and the browser reports it as one.
      if (message.type() === 'error' && !/ERR_CONNECTION_REFUSED|WebSocket connection/.test(message.text())) {
        phone.faults.push(message.text());
      }
    });
    phone.page.on('request', (request) => phone.requests.push(request.url()));
    phone.page.on('websocket', (socket) => phone.requests.push(socket.url()));
    await phone.page.goto(address);
    return phone;
  }

  // Lets a test import the page's modules one by one, which the relay serves as one.
  serveModules() {
    return this.context.route(/\/phone\/[\w-]+\.js$/, (route) => {
      const file = new URL(route.request().url()).pathname.split('/').at(-1);
      return route.fulfill({ path: join(ROOT, 'src/phone', file) });
    });
  }

  // Waits until the element has this text.
  async shows(selector, text) {
    await this.page.locator(selector, { hasText: text }).first().waitFor();
  }

  secure(text) {
    return this.shows('#security-label', text);
  }

  async say(text) {
    await this.page.fill('#text', text);
    await this.page.press('#text', 'Enter');
  }

  // Puts an image of one pixel into the message that is being written.
  async attachPixel() {
    await this.page.setInputFiles('#file', { name: 'a.png', mimeType: 'image/png', buffer: PIXEL });
    await this.page.locator('#attached li').waitFor();
  }

  // The texts of the agent's messages, and those of the user.
  messages(role) {
    return this.page.locator(`.message.${role} .body`).allInnerTexts();
  }

  async close() {
    await this.context.close();
    if (this.faults.length) throw new Error(`the page complained: ${this.faults.join('\n')}`);
  }
}

// An agent with devices, and the browsers that it has let in, over a relay of their own.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Phone, launch } from './browser.mjs';
import { DeviceAgent } from './device-agent.mjs';
import { Relay } from './relay.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
export const DONE = '.message.agent[data-state="done"] .body';

// The code that the page shows, as the agent has it.
export async function shownCode({ page }) {
  await page.locator('#enrol-code:not([hidden])').waitFor();
  return (await page.locator('#enrol-code').innerText()).replace(' ', '');
}

export async function openDevices({ page }) {
  await page.click('#more');
  await page.click('#show-devices');
  await page.locator('#devices[open]').waitFor();
}

// What a person sees is within its bounds, and a checker finds nothing to object to.
export async function check({ page }) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`), []);
  const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= width, `${wide} of ${width}`);
}

// As if the page were looked at, or not.
export function look({ page }, state) {
  return page.evaluate((value) => {
    Object.defineProperty(document, 'visibilityState', { value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, state);
}

export class House {
  phones = [];
  agent = null;

  static async start(...flags) {
    const house = new House();
    [house.browser, house.relay] = await Promise.all([launch(), Relay.start(...flags)]);
    return house;
  }

  async stop() {
    await this.browser?.close();
    await this.relay?.stop();
  }

  // After each test.
  async leave() {
    await this.agent?.close();
    this.agent = null;
    for (const phone of this.phones.splice(0)) await phone.close();
  }

  // A new token and its agent.
  async begin(more) {
    this.agent = await DeviceAgent.connect(this.relay, await this.relay.token(), more);
    return this.agent;
  }

  async opened(address, options, prepare) {
    const phone = await Phone.open(this.browser, prepare ? 'about:blank' : address, options);
    this.phones.push(phone);
    if (!prepare) return phone;
    await prepare(phone);
    await phone.page.goto(address);
    return phone;
  }

  // A browser that the agent has let in.
  async enrolled(by, options, prepare) {
    const phone = await this.opened((await this.agent.invite({ by })).web, options, prepare);
    const { device, code } = await this.agent.pending();
    assert.equal(await shownCode(phone), code);
    await this.agent.admit(device);
    await phone.secure('Encrypted, verified');
    phone.device = device;
    return phone;
  }

  async talk(phone, question, answer) {
    await phone.say(question);
    assert.equal((await this.agent.chat()).text, question);
    this.agent.answer(answer);
    await phone.shows(DONE, answer);
  }
}

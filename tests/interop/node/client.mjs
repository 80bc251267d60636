// A phone or an agent on the `ws` library: incoming messages queue up until a test asks for them.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { WebSocket } from 'ws';

const TIMEOUT_MS = 45_000;

export const MAX_SIZE = 5 * 1024 * 1024;

export function envelope(type, payload = {}, more = {}) {
  return { v: 1, type, id: randomUUID(), ts: Date.now(), payload, ...more };
}

// The text of a message of exactly `size` bytes.
export function sized(type, size, id = 'sized') {
  const empty = JSON.stringify(envelope(type, { text: '' }, { id }));
  return JSON.stringify(envelope(type, { text: 'x'.repeat(size - empty.length) }, { id }));
}

export function within(promise, what) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`no ${what}`)), TIMEOUT_MS)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export class Client {
  #queue = [];
  #waiting = [];

  static async open(url, options = {}) {
    const client = new Client();
    client.ws = new WebSocket(url, { maxPayload: MAX_SIZE, ...options });
    client.closed = new Promise((done) => client.ws.once('close', (code, reason) => done([code, reason.toString()])));
    client.ws.on('message', (data, binary) => {
      assert.equal(binary, false, 'the relay forwards as text');
      const next = client.#waiting.shift();
      next ? next(data.toString()) : client.#queue.push(data.toString());
    });
    client.ws.on('upgrade', (response) => (client.upgrade = response.headers));
    await within(new Promise((done, fail) => client.ws.once('open', done).once('error', fail)), 'upgrade');
    return client;
  }

  static async authed(url, token, role, options) {
    const client = await Client.open(url, options);
    client.send('auth', { token, role });
    client.authOk = await client.expect('auth.ok');
    return client;
  }

  send(type, payload, more) {
    const message = envelope(type, payload, more);
    this.ws.send(JSON.stringify(message));
    return message.id;
  }

  // The next message, however long it takes.
  receiveAny() {
    if (this.#queue.length) return Promise.resolve(this.#queue.shift());
    return new Promise((done) => this.#waiting.push(done));
  }

  receiveText() {
    return within(this.receiveAny(), 'message');
  }

  async receive() {
    return JSON.parse(await this.receiveText());
  }

  // The next message, which must be of this type; its payload.
  async expect(type) {
    const message = await this.receive();
    assert.equal(message.type, type, JSON.stringify(message));
    return message.payload;
  }

  // Nothing was on its way to this client: a ping sent now is answered before anything else comes.
  async expectSilence() {
    this.send('ping');
    await this.expect('pong');
  }

  close() {
    this.ws.close(1000);
    return within(this.closed, 'close');
  }
}

// An agent and a phone of the same token; the agent has been told of the phone.
export async function pair(relay, url = relay.url, options) {
  const token = await relay.token();
  const agent = await Client.authed(url, token, 'agent', options);
  const phone = await Client.authed(url, token, 'phone', options);
  assert.deepEqual(await agent.expect('status'), { peer: 'online' });
  return { agent, phone, token };
}

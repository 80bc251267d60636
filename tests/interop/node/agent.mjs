// An agent of both versions of the encryption, on Node's own cryptography: the independent other side of src/phone/e2e.js.
import * as node from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Receiver, Resume, Sender, readAck, readRecord } from '../../../src/phone/resume.js';
import { Client, within } from './client.mjs';

const X25519_SPKI = Buffer.from('302a300506032b656e032100', 'hex');
const sha256 = (...data) => node.createHash('sha256').update(Buffer.concat(data)).digest();
const hmac = (key, ...data) => node.createHmac('sha256', key).update(Buffer.concat(data)).digest();

function keyPair() {
  const { privateKey, publicKey } = node.generateKeyPairSync('x25519');
  return { privateKey, publicKey: publicKey.export({ format: 'der', type: 'spki' }).subarray(-32) };
}

function agree(privateKey, theirs) {
  const publicKey = node.createPublicKey({ key: Buffer.concat([X25519_SPKI, theirs]), format: 'der', type: 'spki' });
  return node.diffieHellman({ privateKey, publicKey });
}

function hkdf(chainingKey, material, count) {
  const temporary = hmac(chainingKey, material);
  const keys = [];
  for (let number = 1; number <= count; number++) {
    keys.push(hmac(temporary, keys.at(-1) ?? Buffer.alloc(0), Buffer.of(number)));
  }
  return keys;
}

export function seal(key, nonce, plaintext, aad = Buffer.alloc(0)) {
  const cipher = node.createCipheriv('aes-256-gcm', key, nonce).setAAD(aad);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

export function open(key, nonce, sealed, aad = Buffer.alloc(0)) {
  const decipher = node.createDecipheriv('aes-256-gcm', key, nonce).setAAD(aad);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}

function counterNonce(counter) {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(counter), 4);
  return nonce;
}

// Answers the first message of Noise_NNpsk0_25519_AESGCM_SHA256: { answer, receiving, sending }. Throws where it was not
// made with this secret.
export function respond(secret, token, message, resumes = false) {
  const zero = Buffer.alloc(12);
  let chainingKey = Buffer.from('Noise_NNpsk0_25519_AESGCM_SHA256');
  let hash = sha256(chainingKey, Buffer.from(`coralmux-relay-e2e-v2:${token}${resumes ? ':rs1' : ''}`));
  let key;
  const theirs = message.subarray(0, 32);
  let mixed;
  [chainingKey, mixed, key] = hkdf(chainingKey, secret, 3);
  hash = sha256(sha256(hash, mixed), theirs);
  [chainingKey, key] = hkdf(chainingKey, theirs, 2);
  open(key, zero, message.subarray(32), hash);
  hash = sha256(hash, message.subarray(32));
  const mine = keyPair();
  hash = sha256(hash, mine.publicKey);
  [chainingKey, key] = hkdf(chainingKey, mine.publicKey, 2);
  [chainingKey, key] = hkdf(chainingKey, agree(mine.privateKey, theirs), 2);
  const tag = seal(key, zero, Buffer.alloc(0), hash);
  const [receiving, sending] = hkdf(chainingKey, Buffer.alloc(0), 2);
  return { answer: Buffer.concat([mine.publicKey, tag]), receiving, sending };
}

export function fingerprint(one, other) {
  const keys = Buffer.concat([one, other].sort(Buffer.compare));
  const bytes = node.pbkdf2Sync(keys, 'coralmux-fingerprint-v1', 10_000, 16, 'sha256');
  return [0, 4, 8, 12].map((at) => String(bytes.readUInt32BE(at) % 100_000).padStart(5, '0')).join(' ');
}

function newStream() {
  const window = { messages: 256, bytes: 192 << 10 };
  return new Resume(new Sender(() => node.randomBytes(8).toString('base64url'), window), new Receiver());
}

// Connects as the agent of a token. With `secret` (32 bytes) it speaks version 2, with `plain` nothing is encrypted,
// otherwise version 1; with `resume` it numbers, acknowledges and sends again, as long as this process lives: `reconnect`
// brings it back after a break. `chats` has the payload of each chat.send that it could read.
export class Agent {
  chats = [];
  refused = [];
  #waiting = [];
  #v1 = null;
  #v1Key = null;
  #v2 = null;
  // Its state of resume; null where the phone does not want it.
  #stream = null;
  // The records that arrived, in order; and up to which number the phone has what was said.
  acknowledged = 0;
  records = [];

  static async connect(url, token, options = {}) {
    const agent = new Agent();
    Object.assign(agent, { token, url, ...options });
    await agent.#open();
    return agent;
  }

  async #open() {
    this.client = await Client.authed(this.url, this.token, 'agent');
    this.#announce();
    this.running = this.#run().catch((error) => (this.error = error));
  }

  // Comes back after its connection broke, or the relay was away.
  async reconnect() {
    for (let tries = 0; ; tries++) {
      try {
        await this.client.close().catch(() => {});
        return await this.#open();
      } catch (error) {
        if (tries > 50) throw error;
        await delay(100);
      }
    }
  }

  #announce() {
    this.#v1 = keyPair();
    const pubkey = this.#v1.publicKey.toString('base64');
    if (this.secret) this.client.send('key_exchange', { pubkey, e2e: 2, ...(this.resume && { rs: 1 }) });
    else if (!this.plain) this.client.send('key_exchange', { pubkey });
  }

  async #run() {
    while (!this.closed) {
      const message = JSON.parse(await Promise.race([this.client.receiveAny(), this.client.closed.then(() => '{}')]));
      const payload = message.payload ?? {};
      if (!message.type) return;
      if (message.type === 'status' && payload.peer === 'online') this.#announce();
      else if (message.type === 'key_exchange') this.#agree(message.id, payload);
      else if (this.#v2?.resumes && payload.enc) this.#resumed(message.type, message.id, payload);
      else if (message.type === 'chat.send') this.#chat(message.id, payload);
      else if (message.type === 'agent.list' && this.name) this.#list(message.id, payload);
    }
  }

  #agree(id, payload) {
    if (!this.secret) {
      const theirs = Buffer.from(payload.pubkey, 'base64');
      const shared = agree(this.#v1.privateKey, theirs);
      this.#v1Key = Buffer.from(node.hkdfSync('sha256', shared, 'openclaw-relay-e2e-v1', 'chat-encryption', 32));
      this.fingerprint = fingerprint(this.#v1.publicKey, theirs);
      return;
    }
    try {
      const resumes = Boolean(this.resume) && payload.rs === 1;
      const { answer, receiving, sending } = respond(this.secret, this.token, Buffer.from(payload.noise, 'base64'), resumes);
      this.#v2 = { receiving, sending, next: 0, sent: 0, resumes };
      const noise = answer.toString('base64');
      const pubkey = node.randomBytes(32).toString('base64');
      this.client.send('key_exchange', { pubkey, e2e: 2, noise, re: id, ...(resumes && { rs: 1 }) });
      if (!resumes) return;
      this.#stream ??= newStream();
      this.#stream.handleAgreed();
      this.#flow();
    } catch {
      const text = 'the pairing secret does not match: pair again';
      this.client.send('chat.error', { code: 'DECRYPTION_FAILED', message: text });
    }
  }

  #resumed(type, id, payload) {
    const plain = JSON.parse(this.#opened(type, payload));
    const now = performance.now();
    if (type === 'ack') {
        this.acknowledged = plain.a.n;
      this.#stream.handleAck(now, readAck(plain));
    } else {
      this.records.push({ type, id, ...plain });
      const { taken } = this.#stream.handleRecord(now, readRecord(plain), 0, { type, id, payload: plain.p });
      for (const one of taken) this.#take(one);
    }
    this.#flow();
  }

  #take({ type, id, payload }) {
    if (type === 'agent.list' && this.name) this.say('agent.list.result', { agents: [{ id: 'default', name: this.name }], ref: id });
    if (type !== 'chat.send') return;
    this.lastId = id;
    this.chats.push(payload);
    this.#waiting.shift()?.(payload);
  }

  // Sends what is due, and comes back when more is.
  #flow() {
    clearTimeout(this.timer);
    if (this.closed || !this.#stream) return;
    for (let next; (next = this.#stream.poll(performance.now())); ) {
      const { ack, message } = next;
      const type = message?.type ?? 'ack';
      const record = message && this.#stream.sender.record(message, this.isMute ? { e: '', n: 0 } : this.#stream.receiver.told());
      if (ack && this.isMute) continue;
      if (type === 'skipped') {
        this.skippedTo = message.n + 1;
        continue;
      }
      if (record) record.b = Math.max(record.b, this.skippedTo ?? 1);
      this.client.send(type, this.sealed(type, record ?? ack));
    }
    const wait = this.#stream.deadline() - performance.now();
    if (wait < 1e9) this.timer = setTimeout(() => this.#flow(), Math.max(1, wait));
  }

  #chat(id, payload) {
    this.lastId = id;
    try {
      this.chats.push(this.plain ? payload : JSON.parse(this.#opened('chat.send', payload)));
      this.#waiting.shift()?.(this.chats.at(-1));
    } catch (error) {
      this.refused.push(payload);
      this.client.send('chat.error', { code: 'DECRYPTION_FAILED', message: 'these are not our keys' });
    }
  }

  #list(id, payload) {
    try {
      this.#opened('agent.list', payload);
      this.say('agent.list.result', { agents: [{ id: 'default', name: this.name }], ref: id });
    } catch {
      this.client.send('chat.error', { code: 'DECRYPTION_FAILED', message: 'these are not our keys' });
    }
  }

  #opened(type, { ciphertext, nonce }) {
    const iv = Buffer.from(nonce, 'base64');
    const sealed = Buffer.from(ciphertext, 'base64');
    if (!this.secret) return open(this.#v1Key, iv, sealed);
    if (Number(iv.readBigUInt64BE(4)) < this.#v2.next) throw new Error('replayed');
    this.#v2.next = Number(iv.readBigUInt64BE(4)) + 1;
    return open(this.#v2.receiving, iv, sealed, Buffer.from(type));
  }

  // What goes to the phone in place of `payload`.
  sealed(type, payload) {
    if (this.plain) return payload;
    const nonce = this.secret ? counterNonce(this.#v2.sent++) : node.randomBytes(12);
    const key = this.secret ? this.#v2.sending : this.#v1Key;
    const aad = this.secret ? Buffer.from(type) : undefined;
    const ciphertext = seal(key, nonce, Buffer.from(JSON.stringify(payload)), aad);
    return { enc: true, ciphertext: ciphertext.toString('base64'), nonce: nonce.toString('base64') };
  }

  say(type, payload) {
    if (this.#v2?.resumes) {
      this.#stream.sender.push({ type, id: node.randomUUID(), payload, size: JSON.stringify(payload).length });
      return this.#flow();
    }
    return this.client.send(type, this.sealed(type, payload));
  }

  // As if `count` messages had been given up: they are numbered, and never leave.
  skip(count) {
    while (count--) this.#stream.sender.push({ type: 'skipped', payload: {}, size: 2 });
    this.#flow();
  }

  // A whole answer, piece by piece.
  answer(text, size = 7) {
    this.stream(text, size);
    this.say('chat.done', { full_text: text });
  }

  stream(text, size = 7) {
    for (let at = 0, seq = 1; at < text.length; at += size) {
      this.say('chat.stream', { delta: text.slice(at, at + size), seq: seq++ });
    }
  }

  // The next chat.send that can be read.
  chat() {
    const next = new Promise((resolve) => this.#waiting.push(resolve));
    return within(next, 'chat.send');
  }

  async close() {
    this.closed = true;
    clearTimeout(this.timer);
    await this.client.close();
    await this.running;
    if (this.error) throw this.error;
  }
}

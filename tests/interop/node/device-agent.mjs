// An agent whose phones are devices, over the real relay: it binds its token, lets devices in, seals for each of them, and
// answers what they ask about each other.
import { randomBytes, randomUUID } from 'node:crypto';
import { respond, seal } from './agent.mjs';
import { Enrolments } from './agent-end.mjs';
import { Client, within } from './client.mjs';
import { makeKeyPair, sha256, toBase64, toBase64url } from '../../../src/phone/crypto.js';
import { agentPrint, inviteOf } from '../../../src/phone/keys.js';
import { Receiver, Resume, Sender, readAck, readRecord } from '../../../src/phone/resume.js';

const WINDOW = { messages: 256, bytes: 192 << 10 };
const INVITE_MS = 600_000;

const now = () => ({ monotonic: performance.now(), unix: Date.now() });
const newStream = () => new Resume(new Sender(() => randomBytes(8).toString('base64url'), WINDOW), new Receiver());

export class DeviceAgent {
  // Device id to { end, stream, name, platform, online, isOwner, addedAt, by, code }; those that wait to be let in have no
  // `isAdmitted` at their `end`.
  devices = new Map();
  // { k, web, until, by } of the links that are open.
  links = [];
  refused = [];
  // Sealed payloads that came, and openings of the plain phone.
  sealed = [];
  openings = [];
  turns = [];
  name = 'Home';
  #waiting = [];
  #asked = new Map();

  // at: the relay; `more` replaces fields of a stored agent.
  static async connect(at, token, more = {}) {
    const agent = new DeviceAgent();
    const key = randomBytes(32);
    const pair = await makeKeyPair();
    Object.assign(agent, { at, token, key, pair, enrolments: new Enrolments(token, pair) }, more);
    await agent.open();
    return agent;
  }

  async open() {
    this.client = await Client.open(this.at.url);
    this.client.send('auth', { token: this.token, role: 'agent', ext: 1, key: toBase64url(this.key) });
    this.authOk = await this.client.expect('auth.ok');
    for (const { device, online } of this.authOk.ext.devices ?? []) if (this.devices.has(device)) this.devices.get(device).online = online;
    this.running = this.#run().catch((error) => (this.error = error));
    await this.asked('relay.bind', { legacy_phone: Boolean(this.secret) });
    if (this.secret) this.#announce();
    for (const link of this.links) await this.#tellOf(link);
    for (const [device, { online, end }] of this.devices) if (online && end.isAdmitted) this.#meet(device);
  }

  async #tellOf({ k, until }) {
    const invite = toBase64(await sha256(await inviteOf(k)));
    const seconds = until && Math.max(1, Math.ceil((until - Date.now()) / 1000));
    return this.asked('relay.invite', { invite, ...(seconds && { ttl_sec: seconds }) });
  }

  // Asks the relay; resolves to what it answers.
  asked(type, payload) {
    const answered = new Promise((resolve) => this.#asked.set(this.client.send(type, payload), resolve));
    return within(answered, `answer to ${type}`);
  }

  // A new link. `by`: the device that asked for it; `lasts`: how long, in ms.
  async invite({ by, lasts = by && INVITE_MS, k = new Uint8Array(randomBytes(32)) } = {}) {
    const a = await agentPrint(this.pair.publicKey);
    const web = `http://127.0.0.1:${this.pagePort ?? this.at.port}/#token=${this.token}&k=${toBase64url(k)}&a=${a}`;
    const link = { k, web, by, until: lasts && Date.now() + lasts };
    this.links.push(link);
    this.enrolments.open(k);
    await this.#tellOf(link);
    return link;
  }

  async #run() {
    let handled = Promise.resolve();
    for (;;) {
      const text = await Promise.race([this.client.receiveAny(), this.client.closed.then(() => '')]);
      if (!text) return handled;
      const message = JSON.parse(text);
      const { type, payload } = message;
      const answered = this.#asked.get(payload?.ref);
      // What waits for the relay's answer is handled meanwhile.
      if (answered) answered({ type, ...payload });
      else handled = handled.then(() => this.#handle(message)).catch((error) => (this.error ??= error));
    }
  }

  async #handle({ type, id, device, payload }) {
    if (type === 'relay.device') {
      const known = this.devices.get(payload.device);
      if (!known) return;
      known.online = payload.online;
      if (payload.online && known.end.isAdmitted) this.#meet(payload.device);
      else known.stream?.handlePause();
    } else if (type === 'relay.mail') {
      // What came before it has been taken.
      if (payload.upto) this.client.send('relay.mail.ack', { upto: payload.upto });
    } else if (type === 'status' && this.secret) {
      if (payload.peer === 'online') this.#announce();
    } else if (type === 'key_exchange' && !device) {
      this.#lift(id, payload);
    } else if (type === 'key_exchange' && device) {
      await this.#agree(device, id, payload);
    } else if (device && payload?.enc) {
      await this.#open(device, type, id, payload);
    } else if (type === 'chat.error') {
      this.refused.push(payload);
    }
  }

  // To the plain phone, which has the `secret` of a link without `a`.
  #announce() {
    this.client.send('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2 });
  }

  // It knows version 3: it gets a link of its own.
  async #lift(id, payload) {
    const { answer, sending } = respond(this.secret, this.token, Buffer.from(payload.noise, 'base64'));
    this.client.send('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2, noise: toBase64(answer), re: id });
    this.openings.push(payload);
    if (payload.v3 !== 1 || !this.lifts) return;
    const { web, until } = await this.invite({ lasts: INVITE_MS });
    const text = Buffer.from(JSON.stringify({ link: web, web, expires_at: until }));
    const ciphertext = seal(sending, Buffer.alloc(12), text, Buffer.from('device.invite.result'));
    this.client.send('device.invite.result', { enc: true, ciphertext: toBase64(ciphertext), nonce: toBase64(Buffer.alloc(12)) });
  }

  async #agree(device, id, payload) {
    const known = this.devices.get(device);
    try {
      if (payload.enrol === 1) {
        if (this.isSilent) return;
        return void this.#send(device, 'key_exchange', await this.enrolments.handleFirst(device, id, payload));
      }
      if (payload.enrol !== 3) {
        const answer = await known.end.handleOpening(now(), id, payload);
        return void (answer && this.#send(device, 'key_exchange', answer));
      }
      if (known && (await known.end.repeatsEnrolment(payload))) return void (known.end.isAdmitted && (await this.#welcome(device)));
      const { end, code, invite, name, platform } = await this.enrolments.handleThird(now(), device, payload);
      const invites = await Promise.all(this.links.map(async (link) => toBase64url(await inviteOf(link.k))));
      const [{ by, until }] = this.links.splice(invites.indexOf(invite), 1);
      const joining = { end, code, name, platform, by, until, online: true, addedAt: Date.now() };
      this.devices.set(device, joining);
      this.#wake('pending', { device, code, name, platform });
      if (by) this.say('device.pending', { device, name, platform, code, expires_at: until }, { to: by });
    } catch (error) {
      this.refused.push({ device, why: error.message });
    }
  }

  async admit(device) {
    const joining = this.devices.get(device);
    const answer = await this.asked('relay.admit', { device, label: null });
    if (answer.type !== 'relay.ok') throw new Error(JSON.stringify(answer));
    joining.isOwner = ![...this.devices.values()].some(({ isOwner }) => isOwner);
    joining.end.isAdmitted = true;
    joining.end.sessions.handleDrained();
    await this.#welcome(device);
    this.#tellAll();
  }

  async revoke(device, keepsInvited = false) {
    this.devices.delete(device);
    for (const [id, { by }] of this.devices) if (by === device && !keepsInvited) await this.revoke(id);
    await this.asked('relay.revoke', { device });
    this.#tellAll();
  }

  async #welcome(device) {
    const { end } = this.devices.get(device);
    this.#send(device, 'device.welcome', await end.seal('device.welcome', 'welcome', { devices: this.#list(device), name: this.name }), 'welcome');
    this.#meet(device);
  }

  #meet(device) {
    const known = this.devices.get(device);
    known.stream ??= newStream();
    known.stream.handleAgreed();
    this.#flow(device);
  }

  #list(asker) {
    const admitted = [...this.devices].filter(([, { end }]) => end.isAdmitted);
    return admitted.map(([device, { name, platform, addedAt, online, isOwner, by }]) => ({
      device,
      name,
      platform,
      added_at: addedAt,
      seen_at: addedAt,
      ...(online && { online }),
      ...(isOwner && { owner: true }),
      ...(device === asker && { you: true }),
      ...(by && { by }),
    }));
  }

  #tellAll() {
    for (const [device, { end }] of this.devices) if (end.isAdmitted) this.say('device.list.result', { devices: this.#list(device) }, { to: device });
  }

  #send(device, type, payload, id = randomUUID()) {
    return this.client.send(type, payload, { device, id });
  }

  // Sends what is due for a device, and comes back when more is.
  async #flow(device) {
    const known = this.devices.get(device);
    if (!known?.stream || known.isFlowing || this.closed) return;
    known.isFlowing = true;
    clearTimeout(known.timer);
    const { stream, end } = known;
    for (let next; known.online && (next = stream.poll(performance.now())); ) {
      const { ack, message } = next;
      if (message?.type === 'skipped') {
        known.skippedTo = message.n + 1;
        continue;
      }
      const [type, id] = message ? [message.type, message.id] : ['ack', randomUUID()];
      const plain = message ? stream.sender.record(message, stream.receiver.told()) : ack;
      if (message) plain.b = Math.max(plain.b, known.skippedTo ?? 1);
      this.#send(device, type, await end.seal(type, id, plain), id);
    }
    known.isFlowing = false;
    const wait = stream.deadline() - performance.now();
    if (wait < 1e9) known.timer = setTimeout(() => this.#flow(device), Math.max(1, wait));
  }

  async #open(device, type, id, payload) {
    const known = this.devices.get(device);
    this.sealed.push({ type, ...payload });
    let opened;
    try {
      opened = await known.end.open(now(), type, id, payload);
    } catch (error) {
      this.refused.push({ device, why: error.message });
      this.#send(device, 'chat.error', { code: 'DECRYPTION_FAILED', message: 'these are not our keys', ref: id });
      return;
    }
    if (opened.isConfirming) known.stream.handleAgreed();
    const { stream } = known;
    if (type === 'ack') stream.handleAck(performance.now(), readAck(opened.payload));
    else {
      const item = { type, id, payload: opened.payload.p };
      for (const one of stream.handleRecord(performance.now(), readRecord(opened.payload), 0, item).taken) await this.#take(device, one);
    }
    this.#flow(device);
  }

  async #take(device, { type, id, payload }) {
    if (this.isDeaf) return;
    const reply = (kind, more) => this.say(kind, { ...more, ref: id }, { to: device });
    const list = () => reply('device.list.result', { devices: this.#list(device) });
    const may = payload.device === device || this.devices.get(device).isOwner;
    if (type === 'chat.send') {
      this.lastId = id;
      this.turns.push({ role: 'user', text: payload.text, ts: Date.now() });
      for (const [other, { end }] of this.devices) {
        if (other !== device && end.isAdmitted) this.say('chat.turn', { role: 'user', text: payload.text, ref: id, from: device }, { to: other });
      }
      this.#wake('chat', { ...payload, device });
    } else if (type === 'chat.answer') this.#wake('answer', { ...payload, device });
    else if (type === 'chat.cancel') this.#wake('cancel', { ...payload, device });
    else if (type === 'agent.list') reply('agent.list.result', { agents: [{ id: 'default', name: this.name }] });
    else if (type === 'chat.history') reply('chat.history.result', { messages: this.turns.slice(-(payload.limit ?? 100)) });
    else if (type === 'device.list') list();
    else if (type.startsWith('device.') && this.refusal) reply('chat.error', { code: this.refusal, message: 'no' });
    else if (type === 'device.rename' && may) {
      this.devices.get(payload.device).name = payload.name;
      list();
    } else if (type === 'device.invite') {
      const { web, until } = await this.invite({ by: device, lasts: this.inviteMs });
      reply('device.invite.result', { link: web.replace('http:', 'openclaw:'), web, expires_at: until ?? Date.now() + INVITE_MS });
    } else if (type === 'device.admit') {
      await this.admit(payload.device);
      list();
    } else if (type === 'device.refuse' || (type === 'device.revoke' && may)) {
      await this.revoke(payload.device, payload.keep_invited === true);
      if (this.devices.has(device)) list();
    } else if (type.startsWith('device.')) reply('chat.error', { code: 'NOT_ALLOWED', message: 'only the owner may' });
  }

  // Says something to all devices, or to one.
  say(type, payload, { to } = {}) {
    for (const [device, { end, stream }] of this.devices) {
      if (!end.isAdmitted || (to && to !== device)) continue;
      stream.sender.push({ type, id: randomUUID(), payload, size: JSON.stringify(payload).length });
      this.#flow(device);
    }
  }

  // Says something to a device that is away, for the relay to keep; resolves to what the relay answers.
  async mail(device, type, payload, keep = 'wake') {
    const { stream, end } = this.devices.get(device);
    const id = randomUUID();
    stream.sender.push({ type, id, payload, size: JSON.stringify(payload).length, t: Date.now() });
    stream.sender.isOpen = true;
    const message = stream.sender.poll(performance.now());
    stream.sender.isOpen = false;
    const sealed = await end.seal(type, id, stream.sender.record(message, stream.receiver.told()));
    const answered = new Promise((resolve) => this.#asked.set(id, resolve));
    this.client.send(type, sealed, { device, id, keep });
    return within(answered, 'answer about mail');
  }

  answer(text, size = 7) {
    for (let at = 0, seq = 1; at < text.length; at += size) this.say('chat.stream', { delta: text.slice(at, at + size), seq: seq++, ref: this.lastId });
    this.say('chat.done', { full_text: text, ref: this.lastId });
    this.turns.push({ role: 'assistant', text, ts: Date.now() });
  }

  #wake(what, value) {
    const at = this.#waiting.findIndex((one) => one.what === what);
    if (at >= 0) this.#waiting.splice(at, 1)[0].resolve(value);
    else this.#early.push({ what, value });
  }

  #early = [];

  // The next question that a device asks, or the next device that wants to be let in.
  next(what) {
    const at = this.#early.findIndex((one) => one.what === what);
    if (at >= 0) return Promise.resolve(this.#early.splice(at, 1)[0].value);
    return within(new Promise((resolve) => this.#waiting.push({ what, resolve })), what);
  }

  chat() {
    return this.next('chat');
  }

  pending() {
    return this.next('pending');
  }

  // The connection ends; the state stays.
  async drop() {
    for (const { timer, stream } of this.devices.values()) {
      clearTimeout(timer);
      stream?.handlePause();
    }
    await this.client.close();
    await this.running;
    if (this.error) throw this.error;
  }

  async close() {
    this.closed = true;
    await this.drop();
  }
}

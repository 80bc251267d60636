// The agent's half of version 3, on the page's own parts and only for tests: clients/vectors/e2e_v3.json holds both halves.
import { Refused, fromBase64url, sha256, toBase64url } from '../../../src/phone/crypto.js';
import { EnrolError, cleaned } from '../../../src/phone/enrol.js';
import { codeOf, commitmentTo, exchangeOf, inviteOf, keysOf, readExchange } from '../../../src/phone/keys.js';
import { Noise, expectBytes } from '../../../src/phone/noise.js';
import { OpenError, Sessions, partsOf } from '../../../src/phone/sessions.js';

const UNCONFIRMED_MAX = 2;
const UNCONFIRMED_MS = 60_000;
const OPENINGS_MAX = 12;
const FIRST_MAX = 8;

const isEqual = (one, other) => Buffer.compare(one, other) === 0;

// One device, as its agent has it.
export class AgentEnd {
  isAdmitted = false;
  #unconfirmed = [];
  #answered = [];

  constructor(fields) {
    Object.assign(this, fields);
  }

  async repeatsEnrolment(payload) {
    const exchange = readExchange(payload);
    return exchange?.enrol === 3 && isEqual(await sha256(exchange.noise), this.third);
  }

  // The answer; null where there were too many. `Refused`: it is not of this device.
  async handleOpening(now, id, payload, pair) {
    const exchange = readExchange(payload);
    if (!this.isAdmitted || !exchange || exchange.enrol) throw new Refused('not an opening of a device that is admitted');
    this.#answered = this.#answered.filter((at) => now.monotonic < at + UNCONFIRMED_MS);
    if (this.#answered.length >= OPENINGS_MAX) return null;
    const prologue = `coralmux-relay-e2e-v3:session:${this.token}:${this.sessions.device}`;
    const noise = await Noise.start('KK', prologue, this.psk, { own: this.key, remote: this.public, pair, isResponder: true });
    await noise.read(expectBytes(exchange.noise, 48, 'an opening'));
    const answer = await noise.write();
    const { sid, ofDevice, ofAgent } = await keysOf(noise);
    this.#answered.push(now.monotonic);
    const receiving = { sid, chain: ofDevice, since: now.unix };
    this.#unconfirmed = [...this.#unconfirmed, { at: now.monotonic, receiving, send: ofAgent }].slice(-UNCONFIRMED_MAX);
    return exchangeOf(answer, { re: id });
  }

  async seal(type, id, payload) {
    if (!this.isAdmitted) throw new Refused('not admitted');
    return this.sessions.seal(type, id, payload, async () => {});
  }

  // { payload, skipped, isConfirming }
  async open(now, type, id, payload) {
    if (!this.isAdmitted) throw new OpenError('not admitted');
    this.sessions.expire(now);
    this.#unconfirmed = this.#unconfirmed.filter(({ at }) => now.monotonic < at + UNCONFIRMED_MS);
    const parts = partsOf(type, payload);
    const session = this.sessions.find(parts.sid);
    if (session) return { ...(await this.sessions.open(session, now, type, id, parts)), isConfirming: false };
    const at = this.#unconfirmed.findIndex(({ receiving }) => isEqual(receiving.sid, parts.sid));
    if (at < 0) throw new OpenError('unknown session');
    const fresh = this.#unconfirmed[at];
    const opened = await this.sessions.open(fresh.receiving, now, type, id, parts);
    this.#unconfirmed = this.#unconfirmed.slice(at + 1);
    this.sessions.confirm({ sid: fresh.receiving.sid, receive: fresh.receiving.chain, send: fresh.send }, now);
    return { ...opened, isConfirming: true };
  }
}

// All the `k` by which a device can become one.
export class Enrolments {
  links = [];

  // key: the agent's static pair
  constructor(token, key) {
    Object.assign(this, { token, key });
  }

  open(k) {
    this.links.push({ k, answered: 0, pending: [] });
  }

  async handleFirst(device, id, payload, pair) {
    const exchange = readExchange(payload);
    if (exchange?.enrol !== 1 || exchange.noise.length !== 80) throw new EnrolError('malformed');
    const first = exchange.noise;
    for (const { pending } of this.links) {
      const known = pending.find((one) => one.device === device && isEqual(one.first, first));
      if (known) return exchangeOf(known.second, { enrol: 2, re: id });
    }
    for (const link of this.links) {
      const prologue = `coralmux-relay-e2e-v3:enrol:${this.token}:${device}`;
      const noise = await Noise.start('XX', prologue, link.k, { own: this.key, pair, isResponder: true });
      const commitment = await noise.read(first).catch(() => null);
      if (!commitment) continue;
      if (link.answered >= FIRST_MAX) {
        this.links = this.links.filter((one) => one !== link);
        throw new EnrolError('spent');
      }
      link.answered += 1;
      const second = await noise.write();
      link.pending.push({ device, first, second, noise, commitment });
      return exchangeOf(second, { enrol: 2, re: id });
    }
    throw new EnrolError('wrong secret');
  }

  // { end, code, invite, name, platform }; the `k` is forgotten then.
  async handleThird(now, device, payload) {
    const exchange = readExchange(payload);
    const third = exchange?.noise;
    if (exchange?.enrol !== 3 || third.length < 64 || third.length > 2_048) throw new EnrolError('malformed');
    for (const link of this.links) {
      for (const pending of link.pending.filter((one) => one.device === device && !one.isOver)) {
        const { noise } = pending;
        const h2 = noise.hash;
        const about = await noise.read(third).catch(() => null);
        if (!about) continue;
        pending.isOver = true;
        const { r, name, platform } = readAbout(about);
        if (!isEqual(await commitmentTo(noise.remote, r), pending.commitment)) throw new EnrolError('commitment');
        if (cleaned(name) !== name || cleaned(platform) !== platform) throw new EnrolError('name');
        const { sid, ofDevice, ofAgent, psk } = await keysOf(noise);
        const sessions = Sessions.of(device, { sid, receive: ofDevice, send: ofAgent }, now);
        this.links = this.links.filter((one) => one !== link);
        const { token, key } = this;
        const end = new AgentEnd({ token, key, public: noise.remote, psk, third: await sha256(third), sessions });
        return { end, code: await codeOf(h2, noise.remote, r), invite: toBase64url(await inviteOf(link.k)), name, platform };
      }
    }
    throw new EnrolError('wrong secret');
  }
}

function readAbout(text) {
  try {
    const about = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
    const r = fromBase64url(about.r);
    if (r.length !== 32 || typeof about.name !== 'string' || typeof about.platform !== 'string') throw new Refused('a field');
    return { ...about, r };
  } catch {
    throw new EnrolError('malformed');
  }
}

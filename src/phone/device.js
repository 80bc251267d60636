// The device's end of version 3: an enrolled one, across connections and reloads of the page. PROTOCOL.md's chapter
// "Version 3" has the rules.

import { Refused } from './crypto.js';
import { exchangeOf, keysOf, readExchange } from './keys.js';
import { Noise, expectBytes } from './noise.js';
import { OpenError, Sessions, partsOf } from './sessions.js';

const OPEN_EVERY_MS = 5_000;
const SESSION_MS = 60 * 60 * 1_000;
const SESSION_MESSAGES = 4_096;
const SESSION_BYTES = 48;

export class DeviceEnd {
  // Whether a sign has come that the agent has other keys.
  isDoubted = false;
  #isMet = false;
  // The newest opening of this connection: { id, noise }.
  #opening = null;
  #openedAt = -Infinity;
  // What uses keys waits for what used them before.
  #last = Promise.resolve();

  // pair: D; agent: public A; third: the enrolment's message until the agent's first sealed one has opened, else null
  constructor({ token, pair, agent, psk, third = null, sessions }) {
    Object.assign(this, { token, pair, agent, psk, third, sessions });
  }

  get id() {
    return this.sessions.device;
  }

  get isAdmitted() {
    return this.third === null;
  }

  // A new connection: whether the agent is there, and nothing waits for this device, is to be said again.
  handleConnected() {
    this.sessions.handleConnected();
    this.#isMet = false;
    this.#opening = null;
  }

  handleDrained() {
    this.sessions.handleDrained();
  }

  handleAgent(isOnline) {
    this.#isMet = isOnline;
  }

  // The third message, to be sent after each connect until the agent has said something sealed; or null.
  get enrolment() {
    return this.third && exchangeOf(this.third, { enrol: 3 });
  }

  // Whether a new session is to be opened now, and when to ask again.
  #isWorn(now) {
    const [newest] = this.sessions.receiving;
    if (!newest || this.sessions.sending.chain.next >= SESSION_MESSAGES || newest.chain.next >= SESSION_MESSAGES) return true;
    return !(now.unix >= newest.since && now.unix <= newest.since + SESSION_MS);
  }

  // The opening of a new session, to be sent with this `id`; null where it is not time for one.
  pollOpening(now, id, pair) {
    this.sessions.expire(now);
    const may = this.isAdmitted && this.#isMet && !this.sessions.isDraining && now.monotonic >= this.#openedAt + OPEN_EVERY_MS;
    if (!may || !(this.isDoubted || this.#isWorn(now))) return Promise.resolve(null);
    this.#openedAt = now.monotonic;
    return this.#inTurn(async () => {
      const prologue = `coralmux-relay-e2e-v3:session:${this.token}:${this.id}`;
      const noise = await Noise.start('KK', prologue, this.psk, { own: this.pair, remote: this.agent, pair });
      const opening = exchangeOf(await noise.write());
      this.#opening = { id, noise };
      return opening;
    });
  }

  // How long until an opening may be due that was not before; Infinity where nothing is in doubt.
  get openingAt() {
    return this.isDoubted ? this.#openedAt + OPEN_EVERY_MS : Infinity;
  }

  // Resolves to whether new keys are in use: they are to be stored, and an `ack` with `r` sealed at once. `Refused` where it
  // does not authenticate: the right one may still come.
  handleAnswer(now, payload) {
    return this.#inTurn(async () => {
      const exchange = readExchange(payload);
      const opening = this.#opening;
      if (!exchange || !opening || exchange.enrol || exchange.re !== opening.id) return false;
      await opening.noise.read(expectBytes(exchange.noise, SESSION_BYTES, 'the answer to the handshake'));
      const { sid, ofAgent, ofDevice } = await keysOf(opening.noise);
      // The connection may be another one by now: its keys are good all the same.
      this.sessions.confirm({ sid, receive: ofAgent, send: ofDevice }, now);
      this.#opening = null;
      this.isDoubted = false;
      return true;
    });
  }

  // The payload to send; `store()` as in `Sessions`.
  seal(type, id, payload, store, random) {
    if (!this.isAdmitted) return Promise.reject(new Refused('the device has not been admitted yet'));
    return this.#inTurn(() => this.sessions.seal(type, id, payload, store, random));
  }

  // { payload, skipped, isFirst }; `isFirst`: the agent has admitted the device.
  open(now, type, id, payload) {
    return this.#inTurn(async () => {
      this.sessions.expire(now);
      try {
        const parts = partsOf(type, payload);
        const session = this.sessions.find(parts.sid);
        if (!session) throw new OpenError('unknown session');
        const opened = await this.sessions.open(session, now, type, id, parts);
        const isFirst = !this.isAdmitted;
        this.third = null;
        return { ...opened, isFirst };
      } catch (error) {
        if (error instanceof OpenError && error.isSign(this.sessions.isDraining)) this.isDoubted = true;
        throw error;
      }
    });
  }

  #inTurn(work) {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }

  // What is to be stored: before a message leaves that `seal` says so about, and before one that opened is acknowledged.
  get state() {
    const { token, pair, agent, psk, third, sessions } = this;
    return { v: 1, token, pair, agent, psk, third, sessions: sessions.state };
  }

  static load(state) {
    if (state.v !== 1) throw new Refused('the stored keys are of a version that is not known here');
    return new DeviceEnd({ ...state, sessions: Sessions.load(state.sessions) });
  }
}

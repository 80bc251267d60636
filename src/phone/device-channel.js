// What stands between the chat and the connection where this browser is a device of its own: it enrols, keeps its keys, and
// speaks version 3 of the encryption or nothing. What comes in clear is the relay's word, and nothing hangs on it.

import { newResume } from './channel.js';
import { KEY_BYTES, Refused, makeKeyPair, randomBytes, readSecret, toBase64url } from './crypto.js';
import { DeviceEnd } from './device.js';
import { isSealed } from './e2e.js';
import { EnrolError, Enrolment } from './enrol.js';
import { deviceId, inviteOf } from './keys.js';
import { Relay, envelope, newId } from './relay.js';
import { Stream } from './stream.js';

// How often it is looked whether the keys are too old, and how soon where there is a doubt about them.
const LOOK_AT_KEYS_MS = 60_000;
const LOOK_SOON_MS = 5_000;
// What an envelope and a record have beside their payload, in bytes, generously.
const MAIL_OVERHEAD = 2_048;
// A page of mail that could not be kept is tried again after this.
const KEEP_MAIL_AGAIN_MS = 1_000;

const nowOf = () => ({ monotonic: performance.now(), unix: Date.now() });

// What this browser keeps as a device of a pairing: { key: its credential at the relay, id, pair: D, invite: of the link that
// it came with, code: once there is one, end: the state of its `DeviceEnd`, null before }. A link that it knows nothing of
// begins anew.
export async function deviceFor({ k }, kept) {
  const invite = k && toBase64url(await inviteOf(readSecret(k)));
  if (kept && (!invite || kept.invite === invite)) return kept;
  if (!invite) return null;
  const key = randomBytes(KEY_BYTES);
  return { key, id: await deviceId(key), pair: await makeKeyPair(), invite, code: '', end: null };
}

// In place of a channel where this browser cannot be a device: nothing is sent.
export function refusedChannel(why) {
  const nothing = () => {};
  const security = { name: 'refused', why };
  return { connection: { name: 'stopped' }, agentOnline: false, security, start: nothing, stop: nothing, wake: nothing, giveWay: nothing };
}

// `security` is one of
//   { name: 'none' }                     no agent, and not enrolled yet
//   { name: 'enrolling' }                the agent is asked
//   { name: 'waiting', code }            it has answered; a person compares the code and lets this browser in
//   { name: 'verified', resumes: true }  the agent is there
//   { name: 'away' }                     it is not, and the keys are kept
//   { name: 'refused', why }             nothing is sent: 'agent' (another one than the link's), 'link' (it is used up)
// Its other members are those of `Channel`.
export class DeviceChannel {
  #device;
  #end = null;
  #enrolment = null;
  #handlers;
  #relay;
  #stream;
  // What this browser is called, for the agent to show.
  #name;
  #platform;
  #pairing;
  // What the ends have met by: another object after each agreement; null while they have not.
  #met = null;
  // The same while the agent is absent and the relay keeps messages for it.
  #apart = null;
  #connection = 0;
  #isAsleep = false;
  // What the relay does for this device on this connection: { mail?, push? }.
  #offers = {};
  // What the relay has kept for this device is coming.
  #isDraining = false;
  #exchange = null;
  // What the relay was asked, and has not answered: id to what is done with the answer.
  #asked = new Map();
  #timer = null;
  #incoming = Promise.resolve();

  // device: see `deviceFor`; name: what this browser is called; platform: what it is
  // handlers: as of `Channel`, and: store(): resolves when `kept` is stored, rejects where it is not; enrolled(): the agent
  // has let this browser in; lost(): something that the relay kept for it has expired; kept(id): the relay has a message, and
  // keeps it for the agent; undelivered(id): the agent never got it.
  constructor(url, pairing, device, name, handlers, boots, platform = 'web') {
    this.#pairing = pairing;
    this.#device = device;
    this.#name = name;
    this.#platform = platform;
    this.#handlers = handlers;
    this.agentOnline = false;
    if (device.end) this.#end = DeviceEnd.load(device.end);
    this.security = { name: this.#end?.isAdmitted ? 'away' : 'none' };
    const owner = {
      keys: () => this.#met ?? this.#apart,
      seal: (_keys, type, id, plain) => this.#end.seal(type, id, plain, this.#handlers.store),
      hand: (type, sealed, id, keep, isAbsent) => this.#hand(type, sealed, id, keep, isAbsent),
      send: (type, sealed, id) => this.#send(type, sealed, id),
    };
    this.#stream = new Stream(newResume(boots, handlers), owner, handlers);
    const auth = { token: pairing.token, ext: 1, key: toBase64url(device.key) };
    if (!this.#isAdmitted) auth.invite = device.invite;
    this.#relay = new Relay(url, auth, {
      state: (state) => this.#handleState(state),
      message: (message) => this.#queue(message),
    });
    this.#auth = auth;
  }

  #auth;

  get #isAdmitted() {
    return this.#end?.isAdmitted === true;
  }

  // What is to be stored; the same object as long as nothing has changed.
  get kept() {
    return { ...this.#device, end: this.#end?.state ?? null };
  }

  // Whether the agent has not let this browser in yet.
  get isJoining() {
    return !this.#isAdmitted;
  }

  get id() {
    return this.#device.id;
  }

  get connection() {
    const { state } = this.#relay;
    if (state.name !== 'ended' || state.why === 'replaced') return state;
    if (state.why === 'revoked') return { ...state, why: this.#isAdmitted ? 'deviceRevoked' : 'notAdmitted' };
    return { ...state, why: state.why === 'refused' ? (this.#isAdmitted ? 'deviceRefused' : 'linkUsed') : state.why };
  }

  // What the relay offers for waking this device; another object with each connection.
  get push() {
    return this.#relay.state.name === 'open' && this.#isAdmitted ? this.#offers.push ?? null : null;
  }

  get resumes() {
    return this.#met !== null;
  }

  get ready() {
    return this.#met !== null && this.#stream.isOpen;
  }

  // Whether the agent is away, and what is sent now waits for it at the relay.
  get isMailing() {
    return this.#apart !== null && this.#stream.isMailing;
  }

  get boots() {
    return this.#stream.boots;
  }

  start() {
    this.#relay.start();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#relay.stop();
    this.#stream.stop();
  }

  giveWay() {
    this.#relay.end('replaced');
  }

  // The page is looked at again, or the network is back.
  wake() {
    this.#relay.wake();
    if (!this.#isAsleep) return;
    this.#isAsleep = false;
    this.#send('relay.awake', {});
    if (this.agentOnline) this.#meet();
    else this.#agentLeft();
  }

  // Nobody looks at the page: the browser may freeze it at any time.
  sleep() {
    if (this.#isAsleep || !this.#isAdmitted) return;
    this.#isAsleep = this.#send('relay.sleep', {});
    // Whatever it said would wake it.
    if (this.#isAsleep) this.#part();
  }

  send(type, payload, id = newId(), earlier = undefined) {
    if (!this.ready && !this.isMailing) return Promise.resolve(false);
    this.#stream.push(type, payload, id, earlier);
    return Promise.resolve(true);
  }

  get isDraining() {
    return this.#isDraining;
  }

  // Asks the relay; resolves to its answer, { type, payload }, or to null where the connection ends before.
  ask(type, payload) {
    const id = newId();
    if (!this.#send(type, payload, id)) return Promise.resolve(null);
    return new Promise((resolve) => this.#asked.set(id, resolve));
  }

  // Returns whether it was an answer.
  #handleAnswer(type, payload) {
    const answered = this.#asked.get(payload?.ref);
    this.#asked.delete(payload?.ref);
    answered?.({ type, payload });
    return Boolean(answered);
  }

  #send(type, payload, id = newId(), keep = undefined) {
    return this.#relay.send({ ...envelope(type, payload, id), device: this.id, ...(keep && { keep }) });
  }

  #hand(type, sealed, id, keep, isAbsent) {
    if (!this.#send(type, sealed, id, keep)) return false;
    this.#handlers.left?.(id);
    // The relay says by itself when it has kept it.
    if (!isAbsent) this.#relay.whenTaken(() => this.#handlers.taken?.(id), sealed.ciphertext.length);
    return true;
  }

  #secure(security) {
    this.security = security;
    this.#handlers.change();
  }

  // ---- The connection, and the agent on it ----

  #handleState(state) {
    this.#connection += 1;
    this.#part();
    this.agentOnline = false;
    this.#isAsleep = false;
    this.#exchange = null;
    for (const answered of this.#asked.values()) answered(null);
    this.#asked.clear();
    clearTimeout(this.#timer);
    if (state.name === 'open') {
      // Nothing is said to a relay that takes this browser for a phone without keys of its own: the link was made for one
      // that knows devices.
      if (!state.ext || state.ext.device !== this.id) return this.#relay.end('noDevices');
      this.#end?.handleConnected();
      const { mail } = state.ext;
      // A relay that has just started may not know yet whether something waits.
      this.#isDraining = Boolean(mail) && mail.waiting !== 0;
      this.#stream.handleConnected(this.#isDraining);
      this.#handleOffers(state.ext);
      if (!this.#isDraining) this.#end?.handleDrained();
      this.#enrolment?.handleConnected();
      if (state.paired) return this.#agentCame();
    }
    return this.#agentLeft();
  }

  #agentLeft() {
    this.agentOnline = false;
    this.#part();
    this.#end?.handleAgent(false);
    clearTimeout(this.#timer);
    const isOpen = this.#relay.state.name === 'open';
    if (isOpen && this.#isAdmitted && !this.#isDraining && !this.#isAsleep) {
      this.#apart = {};
      this.#stream.handleAbsent();
    }
    this.#secure(this.#isAdmitted ? { name: 'away' } : this.security.name === 'refused' ? this.security : { name: 'none' });
  }

  #agentCame() {
    this.agentOnline = true;
    this.#end?.handleAgent(true);
    if (this.#isAsleep) return undefined;
    if (this.#isAdmitted) return this.#isDraining ? this.#secure({ name: 'away' }) : this.#meet();
    if (this.#end) {
      this.#sendEnrolment();
    } else {
      this.#secure({ name: 'enrolling' });
      this.#look();
    }
    return undefined;
  }

  #part() {
    this.#met = this.#apart = null;
    this.#stream.handlePause();
  }

  // Both ends are there, with keys that both have: each asks for what it lacks.
  #meet() {
    this.#met = {};
    this.#apart = null;
    this.#secure({ name: 'verified', resumes: true });
    this.#stream.handleAgreed();
    this.#look();
  }

  // ---- Enrolment and new keys ----

  #look() {
    clearTimeout(this.#timer);
    const connection = this.#connection;
    const work = this.#end ? this.#lookAtKeys() : this.#ask();
    work
      .catch((error) => {
        if (!(error instanceof EnrolError)) console.error(error);
        else this.#secure({ name: 'refused', why: 'link' });
        return LOOK_AT_KEYS_MS;
      })
      .then((wait) => {
        if (connection === this.#connection && this.agentOnline) this.#timer = setTimeout(() => this.#look(), wait);
      });
  }

  async #ask() {
    const { token, k, a: agent } = this.#pairing;
    const { id: device, pair } = this.#device;
    this.#enrolment ??= new Enrolment({ token, device, pair, k: readSecret(k), agent, name: this.#name, platform: this.#platform });
    const first = await this.#enrolment.pollFirst(nowOf(), newId());
    if (first) this.#exchangeWith(first.payload, first.id);
    return Enrolment.silenceMs + 100;
  }

  async #lookAtKeys() {
    const id = newId();
    const opening = await this.#end.pollOpening(nowOf(), id);
    if (opening) this.#exchangeWith(opening, id);
    return opening || this.#end.isDoubted ? LOOK_SOON_MS : LOOK_AT_KEYS_MS;
  }

  #exchangeWith(payload, id = newId()) {
    this.#exchange = { payload, id };
    this.#send('key_exchange', payload, id);
  }

  #sendEnrolment() {
    this.#exchangeWith(this.#end.enrolment);
    this.#secure({ name: 'waiting', code: this.#device.code });
  }

  async #handleExchange(payload) {
    if (this.#end) {
      if (await this.#end.handleAnswer(nowOf(), payload)) {
        this.#handlers.store().catch((error) => console.warn('not kept:', error));
        if (this.agentOnline) this.#meet();
      }
      return;
    }
    const connection = this.#connection;
    let answered;
    try {
      answered = await this.#enrolment?.handleSecond(nowOf(), payload);
    } catch (error) {
      if (error.message === 'other agent') this.#secure({ name: 'refused', why: 'agent' });
      throw error;
    }
    if (!answered) return;
    this.#end = answered.end;
    this.#device.code = answered.code;
    this.#enrolment = null;
    try {
      await this.#handlers.store();
    } catch (error) {
      // Nothing was said yet: the next page, or try, begins anew.
      console.warn('not kept:', error);
      this.#end = null;
      this.#device.code = '';
      this.#secure({ name: 'refused', why: 'storage' });
      return;
    }
    if (connection !== this.#connection || !this.agentOnline) return;
    this.#end.handleAgent(true);
    this.#end.handleDrained();
    this.#sendEnrolment();
  }

  // ---- What arrives ----

  #queue(message) {
    const connection = this.#connection;
    this.#incoming = this.#incoming
      .then(() => (connection === this.#connection ? this.#handle(message) : undefined))
      .catch((error) => this.#handleFault(error, message))
      .catch((error) => console.error(error));
  }

  #handleFault(error, { type }) {
    if (!(error instanceof Refused)) throw error;
    if (this.#end?.isDoubted) this.#look();
    // What other keys sealed comes again when there are new ones.
    else if (this.#isAdmitted && type !== 'key_exchange') this.#handlers.unreadable(error.message);
  }

  async #handle({ type, id, payload }) {
    if (type === 'status') return payload?.peer === 'online' ? this.#agentCame() : this.#agentLeft();
    if (type === 'key_exchange') return this.#handleExchange(payload ?? {});
    // The relay's word.
    if (type === 'relay.mail') return this.#handleMail(payload ?? {});
    if (type === 'relay.admitted') return this.#handleOffers({ ...this.#offers, ...payload });
    if (type === 'relay.kept') return this.#stream.handleKept(payload?.ref);
    if (type.startsWith('relay.')) return this.#handleAnswer(type, payload);
    if (type === 'chat.error' && !isSealed(payload)) return this.#handleError(payload ?? {});
    const connection = this.#connection;
    if (!this.#end) throw new Refused('there is no key for this message');
    const { payload: plain, isFirst } = await this.#end.open(nowOf(), type, id, payload);
    if (isFirst) this.#handleAdmitted();
    if (connection !== this.#connection) return undefined;
    // Said before the ends have told each other what they lack, it has no number.
    if (type === 'device.welcome') return this.#handlers.message(type, plain ?? {});
    // Three quarters of base64 are its bytes.
    return this.#stream.handle(type, plain, payload.ciphertext.length * 0.75);
  }

  #handleOffers(offers) {
    this.#offers = offers;
    const { mail } = offers;
    // Sealed, a third is added.
    this.#stream.mailBytesMax = mail ? Math.floor((mail.message_max * 3) / 4) - MAIL_OVERHEAD : null;
  }

  // A page of what the relay has kept has come whole: it deletes it when this is on the disk here.
  #handleMail({ upto, left, lost }) {
    if (lost > 0) this.#handlers.lost?.();
    const confirmed = this.#stream.handleMail(upto, left);
    if (confirmed) this.#confirm(confirmed, this.#connection);
    if (left !== 0) return;
    this.#isDraining = false;
    this.#end?.handleDrained();
    if (!this.agentOnline) this.#agentLeft();
    else if (this.#isAdmitted && !this.#isAsleep) this.#meet();
  }

  #confirm(upto, connection) {
    const again = (error) => {
      console.warn('not kept:', error);
      setTimeout(() => this.#confirm(upto, connection), KEEP_MAIL_AGAIN_MS);
    };
    if (connection !== this.#connection) return;
    this.#handlers.store().then(() => connection === this.#connection && this.#send('relay.mail.ack', { upto }), again);
  }

  #handleAdmitted() {
    delete this.#auth.invite;
    this.#device.code = '';
    this.#handlers.enrolled();
    this.#handlers.store().catch((error) => console.warn('not kept:', error));
    if (this.agentOnline) this.#meet();
  }

  #handleError(payload) {
    if (this.#handleAnswer('chat.error', payload)) return;
    if (payload.code === 'DECRYPTION_FAILED') {
      if (!this.#isAdmitted) return;
      this.#end.isDoubted = true;
      return this.#look();
    }
    const exchange = this.#exchange;
    if (exchange && payload.ref === exchange.id) {
      const { retry_after_ms: wait } = payload;
      if (wait > 0) setTimeout(() => exchange === this.#exchange && this.#send('key_exchange', exchange.payload, exchange.id), wait);
      return;
    }
    if (!this.#stream.handleRefusal(payload)) this.#handlers.error(payload);
  }
}

// What stands between the chat and the connection: whether the agent is there, which keys hold, what is encrypted with
// them. With a pairing secret it speaks version 2 of the encryption or nothing; without one, version 1; in clear only
// where the agent has no encryption and the user has said yes to that.

import { Handshake, Refused, Version1, fromBase64, isSealed, makeKeyPair, offersResume, randomBytes, toBase64 } from './e2e.js';
import { Relay, envelope, newId } from './relay.js';
import { Malformed, Receiver, Resume, Sender, readAck, readRecord } from './resume.js';

// An agent that is there and encrypts sends its key at once; after this time it is taken for one that does not.
const KEY_WAIT_MS = 4_000;
// Keys that do not fit are agreed upon anew, this often at most: anybody on the way can make it look as if they did not.
const HEAL_EVERY_MS = 5_000;
// The longest that a timer can be set for.
const TIMER_MS_MAX = 2 ** 31 - 1;

// `security` is one of
//   { name: 'none' }                     no agent, so nobody to have keys with
//   { name: 'pending' }                  keys are being agreed upon
//   { name: 'verified', resumes }        version 2; `resumes`: both ends confirm what they have got
//   { name: 'unverified', fingerprint }  version 1
//   { name: 'plain', why }               no encryption: 'agent' (it has none), 'insecure' or 'old' (this browser)
//   { name: 'refused', why }             nothing is sent: 'version1', 'mismatch', 'tampered', 'secret', 'insecure', 'old'
export class Channel {
  #pairing;
  #support;
  #handlers;
  #relay;
  #session = null;
  #opening = null;
  // The newest key_exchange that was sent.
  #exchange = null;
  #plainTimer = null;
  #healTimer = null;
  #healedAt = -Infinity;
  // Messages are opened and sealed one after the other, in the order in which they came and were sent.
  #incoming = Promise.resolve();
  #outgoing = Promise.resolve();
  // Grows with each connection: what belongs to an older one is dropped.
  #connection = 0;
  // Null where this pairing cannot resume.
  #resume = null;
  // Whether the agent's newest announcement offers resume.
  #isOffered = false;
  #pumping = false;
  #keeping = false;
  #pumpTimer = null;
  // Whether the ends have agreed on it before, in this page or an earlier one.
  #hasResumed = false;
  // The newest ack that was sent.
  #ackId = null;
  // The agent's boot before the newest agreement, until its next one is known.
  #bootBefore = null;

  // pairing: { token, secret? (32 bytes), plainAllowed }; support: see e2e.js
  // handlers: change(), message(type, payload), error(payload): in clear; unreadable(reason),
  // refused(payload): the agent, as it seems, could not read what was sent; missed(count): so many messages never came;
  // left(id), taken(id): a message was handed to the socket, and the relay has it.
  // Where both ends resume: numbered(id, { e, n }): awaited before a message leaves for the first time; delivered(id);
  // void(id, payload), waits(id, payload): the relay refused it, for good or for now; resumed(): the ends know what each other lacks; restarted(): after that,
  // the agent's process is another one; keep(): keeps what has been taken, and resolves to the `boots` that are kept.
  // boots: those that an earlier page kept; undefined where it never resumed.
  constructor(url, pairing, support, handlers, boots) {
    this.#hasResumed = Boolean(boots);
    this.#pairing = pairing;
    this.#support = support;
    this.#handlers = handlers;
    this.agentOnline = false;
    this.security = { name: 'none' };
    if (pairing.secret && support === 'ok') {
      const receiver = new Receiver({ boots, keeps: Boolean(handlers.keep) });
      this.#resume = new Resume(new Sender(drawBoot), receiver);
    }
    const onRelay = {
      state: (state) => this.#handleState(state),
      message: (message) => this.#queue(message),
    };
    this.#relay = new Relay(url, { token: pairing.token, ...(this.#resume && { ext: 1 }) }, onRelay);
  }

  get connection() {
    return this.#relay.state;
  }

  // Whether a message can be sent now.
  get ready() {
    if (this.#relay.state.name !== 'open' || !this.agentOnline) return false;
    const { name } = this.security;
    if (this.resumes) return this.#resume.sender.isOpen && this.#resume.sender.hasRoom;
    return name === 'verified' || name === 'unverified' || (name === 'plain' && this.#pairing.plainAllowed);
  }

  // Whether what is sent now is confirmed, and sent again until it is.
  get resumes() {
    return this.security.resumes === true;
  }

  // What has been taken of the agent's messages, to be kept with them.
  get boots() {
    return this.#resume?.receiver.boots ?? [];
  }

  start() {
    this.#relay.start();
  }

  stop() {
    clearTimeout(this.#plainTimer);
    clearTimeout(this.#healTimer);
    this.#relay.stop();
    clearTimeout(this.#pumpTimer);
  }

  // Another page has the pairing.
  giveWay() {
    this.#relay.end('replaced');
  }

  wake() {
    this.#relay.wake();
  }

  // The user has read that nothing is encrypted, and wants to chat all the same.
  allowPlain() {
    this.#pairing.plainAllowed = true;
    this.#handlers.change();
  }

  // Resolves to whether the message went out; it is for the caller to try again when `ready` comes back. Where both ends
  // resume it is held from now on. `earlier`: its number in an earlier page, { e, n }.
  send(type, payload, id = newId(), earlier = undefined) {
    if (this.resumes) {
      if (!this.ready) return Promise.resolve(false);
      const size = new TextEncoder().encode(JSON.stringify(payload)).length;
      const o = earlier?.e === this.#resume.sender.boot ? undefined : earlier;
      this.#resume.sender.push({ type, id, payload, size, o });
      this.#pump();
      return Promise.resolve(true);
    }
    const sent = this.#outgoing.then(() => this.#seal(type, payload, id));
    this.#outgoing = sent.catch(() => {});
    return sent;
  }

  async #seal(type, payload, id) {
    if (!this.ready) return false;
    const session = this.security.name === 'plain' ? null : this.#session;
    if (session?.exhausted) {
      await this.#open();
      return false;
    }
    const sealed = session ? await session.seal(type, payload) : payload;
    // The keys may have changed meanwhile.
    if (!this.ready || (session && session !== this.#session)) return false;
    return this.#hand(type, sealed, id);
  }

  // Hands a message to the socket, and says so; the relay has it when it has answered a ping that came after it.
  #hand(type, sealed, id) {
    if (!this.#relay.send(envelope(type, sealed, id))) return false;
    this.#handlers.left?.(id);
    this.#relay.whenTaken(() => this.#handlers.taken?.(id), sealed.ciphertext?.length);
    return true;
  }

  // ---- Resume ----

  // Sends what is due, one after the other, and comes back when more is.
  async #pump() {
    if (this.#pumping || !this.#resume) return;
    this.#pumping = true;
    try {
      while (await this.#sendNext());
    } catch (error) {
      console.error(error);
    } finally {
      this.#pumping = false;
    }
    const now = performance.now();
    if (this.#resume.receiver.keepIsDue(now)) this.#keep();
    clearTimeout(this.#pumpTimer);
    const wait = this.resumes && !this.#keeping ? this.#resume.deadline() - now : Infinity;
    if (wait < Infinity) this.#pumpTimer = setTimeout(() => this.#pump(), Math.min(Math.max(wait, 0), TIMER_MS_MAX));
  }

  // Resolves to whether there may be more to send.
  async #sendNext() {
    const next = this.resumes && this.#resume.poll(performance.now());
    if (!next) return false;
    const session = this.#session;
    const { sender, receiver } = this.#resume;
    const { message } = next;
    // A place that is not kept would be given twice.
    if (message && !message.isPlaced) await this.#handlers.numbered?.(message.id, { e: sender.boot, n: message.n });
    if (message) message.isPlaced = true;
    // What could not leave is held: with other keys it leaves when the agent asks for it.
    if (session !== this.#session || !this.resumes) return true;
    if (session.exhausted) {
      await this.#open();
      return false;
    }
    const [type, id] = message ? [message.type, message.id] : ['ack', newId()];
    const sealed = await session.seal(type, message ? sender.record(message, receiver.told()) : next.ack);
    if (session !== this.#session || !this.resumes) return true;
    if (message) return this.#hand(type, sealed, id);
    this.#ackId = id;
    return this.#relay.send(envelope(type, sealed, id));
  }

  // What has been taken is acknowledged when it is kept.
  async #keep() {
    if (this.#keeping) return;
    this.#keeping = true;
    const boots = await this.#handlers.keep().catch((error) => console.error(error));
    this.#keeping = false;
    this.#resume.receiver.handleKept(performance.now(), boots ?? null);
    this.#pump();
  }

  #handleAck(plain) {
    const ack = readAck(plain);
    const { sender, receiver } = this.#resume;
    const isFirst = this.resumes && !sender.isOpen;
    const delivered = this.#resume.handleAck(performance.now(), ack);
    for (const { id } of delivered) this.#handlers.delivered?.(id);
    if (isFirst) {
      this.#handlers.resumed?.();
      this.#bootBefore = receiver.current;
      // It has taken nothing of this page or an earlier one: what it was doing is gone.
      if (ack.a.e === '') this.#handlers.restarted?.();
      this.#handlers.change();
    }
    this.#pump();
    if (delivered.length) this.#handlers.change();
  }

  #handleRecord(type, plain, size) {
    const record = readRecord(plain);
    if (this.#bootBefore && record.e !== this.#bootBefore) this.#handlers.restarted?.();
    this.#bootBefore = null;
    const { acknowledged, taken, missed } = this.#resume.handleRecord(performance.now(), record, size, { type, payload: record.p });
    for (const { id } of acknowledged) this.#handlers.delivered?.(id);
    if (missed) this.#handlers.missed(missed);
    for (const one of taken) this.#handlers.message(one.type, one.payload ?? {});
    this.#pump();
    if (acknowledged.length) this.#handlers.change();
  }

  #secure(security) {
    clearTimeout(this.#plainTimer);
    if (security.name !== 'pending') this.#stopHealing();
    this.security = security;
    this.#handlers.change();
  }

  #stopHealing() {
    clearTimeout(this.#healTimer);
    this.#healTimer = null;
  }

  // The two ends have not the same keys: somebody may have repeated an old opening to the agent. Nothing is sent until
  // new ones are agreed upon.
  #heal() {
    if (!this.#pairing.secret || this.#healTimer || !this.agentOnline) return;
    const { name } = this.security;
    if (name !== 'verified' && !(name === 'pending' && this.#opening?.healing)) return;
    const connection = this.#connection;
    this.#healTimer = setTimeout(() => {
      this.#healTimer = null;
      if (connection !== this.#connection || !this.agentOnline) return;
      this.#healedAt = performance.now();
      this.#open(true).catch((error) => console.error(error));
    }, Math.max(0, this.#healedAt + HEAL_EVERY_MS - performance.now()));
    if (name !== 'verified') return;
    this.#resume?.handlePause();
    this.#secure({ name: 'pending' });
  }

  #handleState(state) {
    this.#stopHealing();
    this.#connection += 1;
    this.#opening = null;
    this.#exchange = null;
    this.#forgetKeys();
    this.agentOnline = false;
    this.#isOffered = false;
    if (this.#resume && state.name === 'open') this.#resume.receiver.counted = !state.ext;
    if (state.name === 'open' && state.paired) this.#agentCame();
    else this.#agentLeft();
  }

  #agentLeft() {
    this.#resume?.handlePause();
    this.#secure({ name: 'none' });
  }

  // An agent of version 2 goes on with the old keys until it has answered: they are good for reading until then.
  #forgetKeys() {
    if (!this.#pairing.secret) this.#session = null;
  }

  // The agent, or another one in its place, sends its key now; until then the old key is good for reading only.
  #agentCame() {
    this.agentOnline = true;
    this.#resume?.handlePause();
    if (this.#pairing.secret) {
      this.#secure(this.#support === 'ok' ? { name: 'pending' } : { name: 'refused', why: this.#support });
    } else if (this.#support === 'ok') {
      this.#session = null;
      this.#secure({ name: 'pending' });
      this.#plainTimer = setTimeout(() => this.#secure({ name: 'plain', why: 'agent' }), KEY_WAIT_MS);
    } else {
      this.#secure({ name: 'plain', why: this.#support });
    }
  }

  #queue(message) {
    const connection = this.#connection;
    this.#incoming = this.#incoming
      .then(() => (connection === this.#connection ? this.#handle(message) : undefined))
      .catch((error) => {
        if (!(error instanceof Refused)) throw error;
        // What was sealed for an earlier page comes again.
        if (!this.#session && this.#hasResumed) return;
        // One word is enough for all that cannot be read until there are new keys. While they are agreed it may be of an
        // opening whose answer went down with a connection.
        const between = Boolean(this.#pairing.secret) && this.security.name === 'pending' && isSealed(message.payload);
        if (!this.#healTimer && !this.#opening?.healing && !between) this.#handlers.unreadable(error.message);
        if (isSealed(message.payload) && !(error instanceof Malformed)) this.#heal();
      })
      .catch((error) => console.error(error));
  }

  async #handle({ type, payload }) {
    if (type === 'status') return this.#handleStatus(payload?.peer);
    if (type === 'key_exchange') return this.#handleKeyExchange(payload ?? {});
    // In clear it is the relay's own word, or that of an agent which has no keys to encrypt it with.
    if (type === 'chat.error' && !isSealed(payload)) return this.#handleError(payload ?? {});
    const connection = this.#connection;
    const session = this.#session;
    const missedBefore = session?.missed;
    const opened = await this.#unseal(type, payload);
    if (connection !== this.#connection) return;
    // Three quarters of base64 are its bytes.
    if (session?.resumes) return type === 'ack' ? this.#handleAck(opened) : this.#handleRecord(type, opened, payload.ciphertext.length * 0.75);
    if (session?.missed > missedBefore) this.#handlers.missed(session.missed - missedBefore);
    this.#handlers.message(type, opened ?? {});
  }

  #handleStatus(peer) {
    if (peer === 'online') return this.#agentCame();
    this.#stopHealing();
    this.agentOnline = false;
    this.#forgetKeys();
    this.#opening = null;
    this.#agentLeft();
  }

  #handleError(payload) {
    const isHint = payload.code === 'DECRYPTION_FAILED' && Boolean(this.#pairing.secret);
    if (this.#exchange && payload.ref === this.#exchange.id && !isHint) return this.#exchangeAgain(payload.retry_after_ms);
    const { name } = this.security;
    if (isHint && (name === 'verified' || this.#healTimer || this.#opening?.healing)) {
      const { resumes } = this;
      this.#heal();
      return resumes || this.#opening?.handshake.resumes ? undefined : this.#handlers.refused(payload);
    }
    // The opening is kept: an answer to it that is good proves more than an error in clear.
    if (isHint && this.#opening && name !== 'verified') this.#secure({ name: 'refused', why: 'mismatch' });
    if (!this.#handleRefusal(payload)) this.#handlers.error(payload);
  }

  // The relay refused a message that is held: returns whether that is all there is to say.
  #handleRefusal(payload) {
    if (!this.#resume || typeof payload.ref !== 'string') return false;
    // The next one says the same.
    if (payload.ref === this.#ackId) return true;
    const outcome = this.#resume.sender.handleRefused(performance.now(), payload.ref, payload.code, Number(payload.retry_after_ms) || 0);
    if (outcome === 'void') this.#handlers.void?.(payload.ref, payload);
    if (outcome === 'held') this.#handlers.waits?.(payload.ref, payload);
    if (outcome) this.#pump();
    return Boolean(outcome);
  }

  // The relay refused our part of the agreement on keys: too many messages for now. Without it no key is shared.
  #exchangeAgain(retryAfterMs) {
    if (!(retryAfterMs > 0)) return;
    const exchange = this.#exchange;
    setTimeout(() => exchange === this.#exchange && this.#relay.send(exchange), retryAfterMs);
  }

  #unseal(type, payload) {
    if (this.#session) return this.#session.open(type, payload);
    if (isSealed(payload)) throw new Refused('there is no key for this message');
    if (this.#pairing.secret || this.security.name !== 'plain') throw new Refused('the message is not encrypted');
    return payload;
  }

  #handleKeyExchange(payload) {
    if (this.#support !== 'ok') return undefined;
    if (this.#pairing.secret) return this.#handleVersion2(payload);
    // This agent has a secret and will take nothing that is not encrypted with it.
    if (payload.e2e === 2) return this.#secure({ name: 'refused', why: 'secret' });
    return this.#handleVersion1(payload);
  }

  async #handleVersion1(payload) {
    const theirs = fromBase64(payload.pubkey);
    const connection = this.#connection;
    const pair = await makeKeyPair();
    const session = await Version1.agree(pair, theirs);
    if (connection !== this.#connection) return;
    this.#exchange = envelope('key_exchange', { pubkey: toBase64(pair.publicKey) });
    this.#relay.send(this.#exchange);
    this.#session = session;
    this.#pairing.plainAllowed = false;
    this.agentOnline = true;
    this.#secure({ name: 'unverified', fingerprint: session.fingerprint });
  }

  async #handleVersion2(payload) {
    if (payload.e2e !== 2) {
      this.#session = null;
      this.#opening = null;
      return this.#secure({ name: 'refused', why: 'version1' });
    }
    if (payload.noise === undefined) {
      this.#isOffered = offersResume(payload);
      return this.#open();
    }
    const opening = this.#opening;
    // An answer to an opening that a newer one has replaced.
    if (payload.re !== opening?.id) return undefined;
    const session = await opening.handshake.finish(payload).catch((error) => {
      if (opening === this.#opening) this.#secure({ name: 'refused', why: 'tampered' });
      throw error;
    });
    if (opening !== this.#opening) return undefined;
    this.#opening = null;
    this.#session = session;
    this.agentOnline = true;
    if (!session.resumes) {
      this.#resume.sender.clear();
      return this.#secure({ name: 'verified', resumes: false });
    }
    this.#resume.handleAgreed();
    this.#hasResumed = true;
    this.#secure({ name: 'verified', resumes: true });
    this.#pump();
    return undefined;
  }

  // Opens a handshake; its answer brings new keys.
  async #open(healing = false) {
    const connection = this.#connection;
    const handshake = await Handshake.start(this.#pairing.secret, this.#pairing.token, { resumes: this.#isOffered });
    if (connection !== this.#connection) return;
    const noise = toBase64(handshake.opening);
    this.#exchange = envelope('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2, noise, ...(handshake.resumes && { rs: 1 }) });
    this.#opening = { id: this.#exchange.id, handshake, healing };
    this.agentOnline = true;
    this.#resume?.handlePause();
    this.#secure({ name: 'pending' });
    this.#relay.send(this.#exchange);
  }
}

function drawBoot() {
  return toBase64(randomBytes(8)).replaceAll('+', '-').replaceAll('/', '_').slice(0, 11);
}

// What stands between the chat and the connection: whether the agent is there, which keys hold, what is encrypted with
// them. With a pairing secret it speaks version 2 of the encryption or nothing; without one, version 1; in clear only
// where the agent has no encryption and the user has said yes to that.

import { Refused, fromBase64, makeKeyPair, randomBytes, toBase64, toBase64url } from './crypto.js';
import { Handshake, Version1, isSealed, offersResume } from './e2e.js';
import { Relay, envelope, newId } from './relay.js';
import { Malformed, Receiver, Resume, Sender } from './resume.js';
import { Stream } from './stream.js';

// An agent that is there and encrypts sends its key at once; after this time it is taken for one that does not.
const KEY_WAIT_MS = 4_000;
// Keys that do not fit are agreed upon anew, this often at most: anybody on the way can make it look as if they did not.
const HEAL_EVERY_MS = 5_000;
// An opening without an answer was lost on the way.
const OPEN_AGAIN_MS = 30_000;

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
  #stream = null;
  // Whether the agent's newest announcement offers resume.
  #isOffered = false;
  // Whether the ends have agreed on it before, in this page or an earlier one.
  #hasResumed = false;
  #openTimer = null;

  // pairing: { token, secret? (32 bytes), plainAllowed }; support: see e2e.js
  // handlers: change(), message(type, payload), error(payload): in clear; unreadable(reason),
  // refused(payload): the agent, as it seems, could not read what was sent; missed(count): so many messages never came;
  // left(id), taken(id): a message was handed to the socket, and the relay has it.
  // Where both ends resume: numbered(id, { e, n }): awaited before a message leaves for the first time; delivered(id);
  // void(id, payload), waits(id, payload): the relay refused it, for good or for now; resumed(): the ends know what each other lacks; restarted(): after that,
  // the agent's process is another one; keep(): keeps what has been taken, and resolves to the `boots` that are kept.
  // canLift(): whether this browser can become a device, which the agent is told.
  // boots: those that an earlier page kept; undefined where it never resumed.
  constructor(url, pairing, support, handlers, boots) {
    this.#hasResumed = Boolean(boots);
    this.#pairing = pairing;
    this.#support = support;
    this.#handlers = handlers;
    this.agentOnline = false;
    this.security = { name: 'none' };
    if (pairing.secret && support === 'ok') {
      const owner = {
        keys: () => (this.resumes ? this.#session : null),
        seal: (session, type, id, plain) => this.#sealWith(session, type, plain),
        hand: (type, sealed, id) => this.#hand(type, sealed, id),
        send: (type, sealed, id) => this.#relay.send(envelope(type, sealed, id)),
      };
      this.#stream = new Stream(newResume(boots, handlers), owner, handlers);
    }
    const onRelay = {
      state: (state) => this.#handleState(state),
      message: (message) => this.#queue(message),
    };
    this.#relay = new Relay(url, { token: pairing.token, ...(this.#stream && { ext: 1 }) }, onRelay);
  }

  get connection() {
    return this.#relay.state;
  }

  // Whether a message can be sent now.
  get ready() {
    if (this.#relay.state.name !== 'open' || !this.agentOnline) return false;
    const { name } = this.security;
    if (this.resumes) return this.#stream.isOpen;
    return name === 'verified' || name === 'unverified' || (name === 'plain' && this.#pairing.plainAllowed);
  }

  // Whether what is sent now is confirmed, and sent again until it is.
  get resumes() {
    return this.security.resumes === true;
  }

  // What has been taken of the agent's messages, to be kept with them.
  get boots() {
    return this.#stream?.boots ?? [];
  }

  start() {
    this.#relay.start();
  }

  stop() {
    clearTimeout(this.#plainTimer);
    clearTimeout(this.#healTimer);
    clearTimeout(this.#openTimer);
    this.#relay.stop();
    this.#stream?.stop();
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
      this.#stream.push(type, payload, id, earlier);
      return Promise.resolve(true);
    }
    const sent = this.#outgoing.then(() => this.#seal(type, payload, id));
    this.#outgoing = sent.catch(() => {});
    return sent;
  }

  async #seal(type, payload, id) {
    if (!this.ready) return false;
    const session = this.security.name === 'plain' ? null : this.#session;
    const sealed = session ? await this.#sealWith(session, type, payload) : payload;
    if (!sealed) return false;
    // The keys may have changed meanwhile.
    if (!this.ready || (session && session !== this.#session)) return false;
    return this.#hand(type, sealed, id);
  }

  // Null where the keys are used up: others are agreed upon.
  async #sealWith(session, type, payload) {
    if (!session.exhausted) return session.seal(type, payload);
    await this.#open();
    return null;
  }

  // Hands a message to the socket, and says so; the relay has it when it has answered a ping that came after it.
  #hand(type, sealed, id) {
    if (!this.#relay.send(envelope(type, sealed, id))) return false;
    this.#handlers.left?.(id);
    this.#relay.whenTaken(() => this.#handlers.taken?.(id), sealed.ciphertext?.length);
    return true;
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
    this.#stream?.handlePause();
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
    if (this.#stream && state.name === 'open') this.#stream.counted = !state.ext;
    if (state.name === 'open' && state.paired) this.#agentCame();
    else this.#agentLeft();
  }

  #agentLeft() {
    this.#stream?.handlePause();
    this.#secure({ name: 'none' });
  }

  // An agent of version 2 goes on with the old keys until it has answered: they are good for reading until then.
  #forgetKeys() {
    if (!this.#pairing.secret) this.#session = null;
  }

  // The agent, or another one in its place, sends its key now; until then the old key is good for reading only.
  #agentCame() {
    this.agentOnline = true;
    this.#stream?.handlePause();
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
    if (session?.resumes) return this.#stream.handle(type, opened, payload.ciphertext.length * 0.75);
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
    if (!this.#stream?.handleRefusal(payload)) this.#handlers.error(payload);
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
      this.#stream.forget();
      return this.#secure({ name: 'verified', resumes: false });
    }
    this.#hasResumed = true;
    this.#secure({ name: 'verified', resumes: true });
    this.#stream.handleAgreed();
    return undefined;
  }

  // Opens a handshake; its answer brings new keys.
  async #open(healing = false) {
    const connection = this.#connection;
    const handshake = await Handshake.start(this.#pairing.secret, this.#pairing.token, { resumes: this.#isOffered });
    if (connection !== this.#connection) return;
    const noise = toBase64(handshake.opening);
    this.#exchange = envelope('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2, noise, ...(handshake.resumes && { rs: 1 }), ...(this.#handlers.canLift?.() && { v3: 1 }) });
    this.#opening = { id: this.#exchange.id, handshake, healing };
    this.agentOnline = true;
    this.#stream?.handlePause();
    this.#secure({ name: 'pending' });
    this.#relay.send(this.#exchange);
    const opening = this.#opening;
    clearTimeout(this.#openTimer);
    this.#openTimer = setTimeout(() => {
      if (opening === this.#opening) this.#open(healing).catch((error) => console.error(error));
    }, OPEN_AGAIN_MS);
  }
}

// The phone's side of resume; as of `Channel`: boots, handlers.
export function newResume(boots, handlers) {
  return new Resume(new Sender(() => toBase64url(randomBytes(8))), new Receiver({ boots, keeps: Boolean(handlers.keep) }));
}

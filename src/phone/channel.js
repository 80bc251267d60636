// What stands between the chat and the connection: whether the agent is there, which keys hold, what is encrypted with
// them. With a pairing secret it speaks version 2 of the encryption or nothing; without one, version 1; in clear only
// where the agent has no encryption and the user has said yes to that.

import { Handshake, Refused, Version1, fromBase64, isSealed, makeKeyPair, randomBytes, toBase64 } from './e2e.js';
import { Relay, envelope, newId } from './relay.js';

// An agent that is there and encrypts sends its key at once; after this time it is taken for one that does not.
const KEY_WAIT_MS = 4_000;
// Keys that do not fit are agreed upon anew, this often at most: anybody on the way can make it look as if they did not.
const HEAL_EVERY_MS = 5_000;

// `security` is one of
//   { name: 'none' }                     no agent, so nobody to have keys with
//   { name: 'pending' }                  keys are being agreed upon
//   { name: 'verified' }                 version 2
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

  // pairing: { token, secret? (32 bytes), plainAllowed }; support: see e2e.js
  // handlers: change(), message(type, payload), error(payload): in clear; unreadable(reason),
  // refused(payload): the agent, as it seems, could not read what was sent; missed(count): so many messages never came
  constructor(url, pairing, support, handlers) {
    this.#pairing = pairing;
    this.#support = support;
    this.#handlers = handlers;
    this.agentOnline = false;
    this.security = { name: 'none' };
    this.#relay = new Relay(url, pairing.token, {
      state: (state) => this.#handleState(state),
      message: (message) => this.#queue(message),
    });
  }

  get connection() {
    return this.#relay.state;
  }

  // Whether a message can be sent now.
  get ready() {
    if (this.#relay.state.name !== 'open' || !this.agentOnline) return false;
    const { name } = this.security;
    return name === 'verified' || name === 'unverified' || (name === 'plain' && this.#pairing.plainAllowed);
  }

  start() {
    this.#relay.start();
  }

  stop() {
    clearTimeout(this.#plainTimer);
    clearTimeout(this.#healTimer);
    this.#relay.stop();
  }

  wake() {
    this.#relay.wake();
  }

  // The user has read that nothing is encrypted, and wants to chat all the same.
  allowPlain() {
    this.#pairing.plainAllowed = true;
    this.#handlers.change();
  }

  // Resolves to whether the message went out; it is for the caller to try again when `ready` comes back.
  send(type, payload, id = newId()) {
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
    return this.#relay.send(envelope(type, sealed, id));
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
    if (name === 'verified') this.#secure({ name: 'pending' });
  }

  #handleState(state) {
    this.#stopHealing();
    this.#connection += 1;
    this.#opening = null;
    this.#exchange = null;
    this.#forgetKeys();
    this.agentOnline = false;
    if (state.name === 'open' && state.paired) this.#agentCame();
    else this.#secure({ name: 'none' });
  }

  // An agent of version 2 goes on with the old keys until it has answered: they are good for reading until then.
  #forgetKeys() {
    if (!this.#pairing.secret) this.#session = null;
  }

  // The agent, or another one in its place, sends its key now; until then the old key is good for reading only.
  #agentCame() {
    this.agentOnline = true;
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
        // One word is enough for all that cannot be read until there are new keys.
        if (!this.#healTimer && !this.#opening?.healing) this.#handlers.unreadable(error.message);
        if (isSealed(message.payload)) this.#heal();
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
    if (session?.missed > missedBefore) this.#handlers.missed(session.missed - missedBefore);
    this.#handlers.message(type, opened ?? {});
  }

  #handleStatus(peer) {
    if (peer === 'online') return this.#agentCame();
    this.#stopHealing();
    this.agentOnline = false;
    this.#forgetKeys();
    this.#opening = null;
    this.#secure({ name: 'none' });
  }

  #handleError(payload) {
    const isHint = payload.code === 'DECRYPTION_FAILED' && Boolean(this.#pairing.secret);
    if (this.#exchange && payload.ref === this.#exchange.id && !isHint) return this.#exchangeAgain(payload.retry_after_ms);
    const { name } = this.security;
    if (isHint && (name === 'verified' || this.#healTimer || this.#opening?.healing)) {
      this.#heal();
      return this.#handlers.refused(payload);
    }
    // The opening is kept: an answer to it that is good proves more than an error in clear.
    if (isHint && this.#opening && name !== 'verified') this.#secure({ name: 'refused', why: 'mismatch' });
    this.#handlers.error(payload);
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
    if (payload.noise === undefined) return this.#open();
    const opening = this.#opening;
    // An answer to an opening that a newer one has replaced.
    if (payload.re !== opening?.id) return undefined;
    const session = await opening.handshake.finish(fromBase64(payload.noise)).catch((error) => {
      if (opening === this.#opening) this.#secure({ name: 'refused', why: 'tampered' });
      throw error;
    });
    if (opening !== this.#opening) return undefined;
    this.#opening = null;
    this.#session = session;
    this.agentOnline = true;
    return this.#secure({ name: 'verified' });
  }

  // Opens a handshake; its answer brings new keys.
  async #open(healing = false) {
    const connection = this.#connection;
    const handshake = await Handshake.start(this.#pairing.secret, this.#pairing.token);
    if (connection !== this.#connection) return;
    const noise = toBase64(handshake.opening);
    this.#exchange = envelope('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2, noise });
    this.#opening = { id: this.#exchange.id, handshake, healing };
    this.agentOnline = true;
    this.#secure({ name: 'pending' });
    this.#relay.send(this.#exchange);
  }
}

// The agent's side of a connection: it announces its keys, answers the phone's handshake, and seals and opens what passes. With
// a pairing secret it speaks version 2 of the encryption or nothing; without one, version 1.

import { Refused, fromBase64, makeKeyPair, randomBytes, toBase64, toBase64url } from '../../../src/phone/crypto.js';
import { Version1, Version2, isSealed, offersResume } from '../../../src/phone/e2e.js';
import { Noise, expectBytes } from '../../../src/phone/noise.js';
import { Relay, envelope, newId } from '../../../src/phone/relay.js';
import { Receiver, Resume, Sender } from '../../../src/phone/resume.js';
import { Stream } from '../../../src/phone/stream.js';

const OPENING_BYTES = 48;
const EPHEMERAL_BYTES = 32;
const OPENINGS_MAX = 1_024;
// So many messages wait for a phone that is away.
const HELD_MAX = 256;
const WINDOW = { messages: 256, bytes: 192 << 10 };

export class AgentChannel {
  #pairing;
  #handlers;
  #relay;
  #stream = null;
  #session = null;
  // Of version 1, until the phone answers.
  #pair = null;
  #exchange = null;
  // The beginnings of the openings that were accepted: none is twice.
  #accepted = new Set();
  // What the phone has not confirmed.
  #held = new Set();
  #incoming = Promise.resolve();
  #outgoing = Promise.resolve();
  #connection = 0;
  phoneOnline = false;

  // pairing: { token, secret? (32 bytes) }; handlers: change(); message(type, id, payload): in clear; error(payload): of the
  // relay, or anybody on the way
  constructor(url, pairing, handlers) {
    this.#pairing = pairing;
    this.#handlers = handlers;
    if (pairing.secret) {
      const owner = {
        keys: () => (this.#session?.resumes ? this.#session : null),
        seal: (session, type, _id, plain) => (session.exhausted ? null : session.seal(type, plain)),
        hand: (type, sealed, id) => this.#relay.send(envelope(type, sealed, id)),
        send: (type, sealed, id) => this.#relay.send(envelope(type, sealed, id)),
      };
      const resume = new Resume(new Sender(() => toBase64url(randomBytes(8)), WINDOW), new Receiver());
      const onStream = {
        message: (type, payload, id) => handlers.message(type, id, payload),
        missed: (count) => handlers.missed?.(count),
        delivered: (id) => this.#held.delete(id),
        void: (id) => this.#held.delete(id),
        change: () => handlers.change(),
      };
      this.#stream = new Stream(resume, owner, onStream);
    }
    const auth = { token: pairing.token, role: 'agent', ...(this.#stream && { ext: 1 }) };
    this.#relay = new Relay(url, auth, {
      state: (state) => this.#handleState(state),
      message: (message) => this.#queue(message),
    });
  }

  get connection() {
    return this.#relay.state;
  }

  // The version of the encryption that is agreed upon; 0 where none is.
  get version() {
    if (!this.#session) return 0;
    return this.#pairing.secret ? 2 : 1;
  }

  get fingerprint() {
    return this.#session?.fingerprint;
  }

  // Whether a message that is said now leaves now.
  get hasRoom() {
    return this.#session?.resumes ? this.#stream.isOpen : this.phoneOnline;
  }

  start() {
    this.#relay.start();
  }

  wake() {
    this.#relay.wake();
  }

  stop() {
    this.#relay.stop();
    this.#stream?.stop();
  }

  // Returns whether it is on its way. Where both ends resume it arrives whatever the network does; otherwise only a phone that
  // is there gets it.
  send(type, payload, id = newId()) {
    if (this.#session?.resumes) {
      if (this.#held.size >= HELD_MAX) return false;
      this.#held.add(id);
      this.#stream.push(type, payload, id);
      return true;
    }
    const session = this.#session;
    // Nothing leaves in clear that has a secret.
    if (!this.phoneOnline || (this.#pairing.secret && !session)) return false;
    this.#outgoing = this.#outgoing
      .then(async () => {
        if (session !== this.#session) return;
        this.#relay.send(envelope(type, session ? await session.seal(type, payload) : payload, id));
      })
      .catch((error) => console.error(error));
    return true;
  }

  #handleState(state) {
    this.#connection += 1;
    this.#stream?.handlePause();
    this.phoneOnline = state.name === 'open' && state.paired;
    if (state.name === 'open') {
      if (this.#stream) this.#stream.counted = !state.ext;
      this.#announce();
    }
    this.#handlers.change();
  }

  async #announce() {
    const { secret } = this.#pairing;
    const connection = this.#connection;
    const pair = secret ? null : await makeKeyPair();
    if (connection !== this.#connection) return;
    if (!secret) [this.#pair, this.#session] = [pair, null];
    const pubkey = toBase64(secret ? randomBytes(32) : pair.publicKey);
    this.#exchange = envelope('key_exchange', { pubkey, ...(secret && { e2e: 2, rs: 1 }) });
    this.#relay.send(this.#exchange);
  }

  #queue(message) {
    const connection = this.#connection;
    this.#incoming = this.#incoming
      .then(() => (connection === this.#connection ? this.#handle(message) : undefined))
      .catch((error) => {
        if (!(error instanceof Refused)) throw error;
        this.#relay.send(envelope('chat.error', { code: 'DECRYPTION_FAILED', message: error.message, ref: message.id }));
      })
      .catch((error) => console.error(error));
  }

  async #handle({ type, id, payload }) {
    if (type === 'status') return this.#handleStatus(payload?.peer);
    if (type === 'key_exchange') return this.#pairing.secret ? this.#handleOpening(id, payload ?? {}) : this.#handleVersion1(payload ?? {});
    if (type === 'chat.error' && !isSealed(payload)) return this.#handleError(payload ?? {});
    const session = this.#session;
    if (!session && (this.#pairing.secret || isSealed(payload))) throw new Refused('there is no key for this message');
    const plain = session ? await session.open(type, payload) : payload;
    // Three quarters of base64 are its bytes.
    if (session?.resumes) return this.#stream.handle(type, plain, payload.ciphertext.length * 0.75, id);
    return this.#handlers.message(type, id, plain ?? {});
  }

  #forget() {
    this.#held.clear();
    this.#stream.forget();
  }

  #handleStatus(peer) {
    this.phoneOnline = peer === 'online';
    this.#stream?.handlePause();
    if (this.phoneOnline) this.#announce();
    else if (!this.#pairing.secret) this.#session = null;
    this.#handlers.change();
  }

  // The relay did not take our part of the agreement on keys.
  #handleError(payload) {
    const exchange = this.#exchange;
    if (!exchange || payload.ref !== exchange.id) {
      if (!this.#stream?.handleRefusal(payload)) this.#handlers.error(payload);
      return;
    }
    const { retry_after_ms: wait } = payload;
    if (wait > 0) setTimeout(() => exchange === this.#exchange && this.#announce(), wait);
  }

  async #handleVersion1(payload) {
    const pair = this.#pair;
    const session = await Version1.agree(pair, fromBase64(payload.pubkey));
    if (pair !== this.#pair) return;
    this.#session = session;
    this.#handlers.change();
  }

  async #handleOpening(id, payload) {
    if (payload.e2e !== 2 || payload.noise === undefined) throw new Refused('this agent wants version 2 of the encryption');
    const opening = expectBytes(fromBase64(payload.noise), OPENING_BYTES, 'an opening');
    const ephemeral = toBase64(opening.subarray(0, EPHEMERAL_BYTES));
    if (this.#accepted.has(ephemeral)) return;
    const { secret, token } = this.#pairing;
    const resumes = offersResume(payload);
    const noise = await Noise.start('NN', `coralmux-relay-e2e-v2:${token}${resumes ? ':rs1' : ''}`, secret, { isResponder: true });
    await noise.read(opening).catch(() => {
      throw new Refused('the pairing secret does not match: pair again');
    });
    this.#accepted.add(ephemeral);
    if (this.#accepted.size > OPENINGS_MAX) this.#accepted.delete(this.#accepted.keys().next().value);
    const answer = toBase64(await noise.write());
    const [receiving, sending] = await noise.split();
    this.#session = await Version2.withKeys(sending, receiving, resumes);
    this.phoneOnline = true;
    this.#relay.send(envelope('key_exchange', { pubkey: toBase64(randomBytes(32)), e2e: 2, noise: answer, re: id, ...(resumes && { rs: 1 }) }));
    if (resumes) this.#stream.handleAgreed();
    else this.#forget();
    this.#handlers.change();
  }
}

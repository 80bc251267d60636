// What the user sends, and what becomes of it: what waits for the agent, what has left, how far each message has got. The
// screen, the history and the connection are the handlers'.

import { toBase64 } from './crypto.js';
import { within } from './patience.js';
import { newId } from './relay.js';
import { KEPT, UNDELIVERED, UNKNOWN, unverifiedText, waitsText } from './words.js';

const PICTURES_MS = 20_000;
// How many messages wait for the agent at most.
const WAITING_MAX = 10;
// So many sent messages can be told from their errors.
const SENT_MAX = 100;
// A rate limit is waited for by itself if it is not longer than this.
const PATIENCE_MS = 90_000;

export class Sending {
  #answers;
  #handlers;
  // Messages of the user that could not go out yet, and those that went out on this connection: id to message.
  #waiting = [];
  #sent = new Map();
  #flushing = false;

  // answers: see answers.js
  // handlers: channel(): the present one, or null; hasResumed(); show(message); keep(message): resolves when it is kept;
  // announce(text)
  constructor(answers, handlers) {
    this.#answers = answers;
    this.#handlers = handlers;
  }

  get #channel() {
    return this.#handlers.channel();
  }

  // What an earlier page kept goes on where that cannot make two of one.
  restore(message) {
    const { id, state, ticks, place, isOut } = message;
    if (id) this.#remember(message);
    if (state === 'failed' || ticks === 2) return;
    if (place || (ticks === 0 && !isOut)) {
      // What the relay keeps is asked again when the agent is there to say that it has it.
      if (!message.isKept) message.state = 'waiting';
      this.#waiting.push(message);
    } else if (state !== 'sent') {
      Object.assign(message, { state: 'failed', error: isOut ? UNKNOWN : 'Not sent' });
    }
  }

  clear() {
    this.#waiting = [];
    this.#sent.clear();
  }

  // Whether the agent has all that was asked, as far as anybody says so.
  get isQuiet() {
    const isOnItsWay = ({ state, ticks, place }) => state === 'sending' || (state === 'sent' && ticks < 2 && place);
    return !this.#waiting.length && ![...this.#sent.values()].some(isOnItsWay);
  }

  isDelivered(ref) {
    return this.#sent.get(ref)?.ticks === 2;
  }

  // Takes a new message. Returns what keeps it from that, or ''.
  submit(text, images) {
    if (this.#waiting.filter(({ isKept }) => !isKept).length >= WAITING_MAX) return 'Enough messages wait for the agent already.';
    const message = { role: 'me', text, images, time: Date.now(), state: 'sending', ticks: 0 };
    this.#waiting.push(message);
    this.#handlers.show(message);
    // Storage that does not answer keeps nothing from being sent.
    this.#handlers.keep(message);
    this.flush();
    return '';
  }

  async resend(message) {
    if (this.#waiting.includes(message)) return;
    this.#waiting.push(message);
    message.ticks = 0;
    for (const field of ['error', 'answered', 'again', 'place', 'isOut', 'isKept', 'waits']) delete message[field];
    await this.flush();
  }

  // Sends what waits, in order, while the channel is ready.
  async flush() {
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      for (let next; (next = this.#next); ) if (!(await this.#sendFirst(next))) break;
    } finally {
      this.#flushing = false;
    }
    for (const message of this.#waiting) if (!message.isKept) this.#setState(message, 'waiting');
  }

  // What can leave now: to the agent, or to be kept for it.
  get #next() {
    if (this.#channel?.ready) return this.#waiting[0];
    return this.#channel?.isMailing && this.#waiting.find(({ isKept }) => !isKept);
  }

  // Whether what is sent now is held until the agent has it.
  get #isHeld() {
    return Boolean(this.#channel?.resumes || this.#channel?.isMailing);
  }

  // Resolves to whether the next one may be tried.
  async #sendFirst(message) {
    // Nobody would tell it from the first time.
    if (message.place && !this.#isHeld) {
      this.#waiting.shift();
      this.fail(message.id, UNKNOWN);
      return true;
    }
    if (!message.isKept) this.#setState(message, 'sending');
    if (!message.place) message.id = newId();
    this.#remember(message);
    const payload = await payloadOf(message).catch(() => null);
    if (!payload) {
      this.#unqueue(message);
      this.#setState(message, 'failed', 'An image can no longer be read. Add it again.');
      return true;
    }
    // Whoever finds it half sent must know that it may have left.
    if (!this.#isHeld) {
      message.isOut = true;
      await this.#handlers.keep(message);
    }
    // The chat may have been closed, or the channel lost, meanwhile.
    if (await this.#channel?.send('chat.send', payload, message.id, message.place)) {
      this.#unqueue(message);
      return true;
    }
    delete message.isOut;
    if (!message.place) this.#sent.delete(message.id);
    return Boolean(this.#next);
  }

  #unqueue(message) {
    this.#waiting = this.#waiting.filter((one) => one !== message);
  }

  #remember(message) {
    this.#sent.set(message.id, message);
    if (this.#sent.size > SENT_MAX) this.#sent.delete(this.#sent.keys().next().value);
  }

  // What could not go out goes out later, before what was written after it.
  #putBack(message) {
    if (!this.#waiting.includes(message)) this.#waiting = [...this.#waiting, message].sort((one, other) => one.time - other.time);
    this.#setState(message, 'waiting');
  }

  #setState(message, state, error) {
    message.state = state;
    if (error) message.error = error;
    this.#handlers.show(message);
  }

  // ---- What becomes of it ----

  // It was handed to the socket, for the first time or again.
  markLeft(id) {
    const message = this.#sent.get(id);
    if (!message) return;
    delete message.waits;
    if (message.state !== 'sent') this.#setState(message, 'sending');
    if (!message.answered && !this.#answers.has(id)) this.#answers.expect(id);
  }

  // The relay has it.
  markTaken(id) {
    const message = this.#sent.get(id);
    if (message?.state !== 'sending') return;
    message.ticks = 1;
    this.#answers.await(id);
    this.#setState(message, 'sent');
    this.#handlers.keep(message);
  }

  // The relay keeps it for the agent, which is away.
  markKept(id) {
    const message = this.#sent.get(id);
    if (!message || message.ticks === 2) return;
    this.#answers.retract(id);
    Object.assign(message, { ticks: 1, isKept: true, waits: KEPT });
    this.#setState(message, 'sent');
    this.#handlers.keep(message);
  }

  // The agent has it.
  markDelivered(id) {
    const message = this.#sent.get(id);
    if (!message || message.ticks === 2) return;
    message.ticks = 2;
    delete message.waits;
    if (message.isKept) {
      delete message.isKept;
      if (!message.answered && !this.#answers.has(id)) this.#answers.expect(id);
    }
    this.#answers.await(id);
    this.#setState(message, 'sent');
    this.#handlers.keep(message);
  }

  // Its number is kept before it leaves, so that a later page can say which one it was. The first number counts.
  async markPlace(id, place) {
    const message = this.#sent.get(id);
    if (!message) return;
    message.place ??= place;
    await this.#handlers.keep(message);
  }

  markVoid(id, payload) {
    this.#answers.retract(id);
    this.fail(id, unverifiedText(payload));
  }

  // The agent never got it, and will not under its number.
  markUndelivered(id) {
    this.#answers.retract(id);
    this.fail(id, UNDELIVERED);
  }

  // The relay did not take it yet: it goes out again by itself.
  markWaiting(id, payload) {
    const message = this.#sent.get(id);
    if (!message) return;
    this.#answers.retract(id);
    message.ticks = 0;
    delete message.isKept;
    if (payload.code !== 'PEER_OFFLINE') message.waits = waitsText(payload);
    this.#setState(message, 'waiting');
  }

  // A word of the agent proves that it has the question, whatever an error in clear has said.
  markAnswered(ref) {
    const message = this.#sent.get(ref);
    if (!message || message.answered) return;
    message.answered = true;
    message.ticks = 2;
    this.#unqueue(message);
    for (const field of ['error', 'waits', 'isKept']) delete message[field];
    this.#setState(message, 'sent');
    this.#handlers.keep(message);
  }

  // Returns whether there is such a message.
  fail(ref, text) {
    const message = this.#sent.get(ref);
    if (!message) return false;
    this.#setState(message, 'failed', text);
    this.#handlers.keep(message);
    this.#handlers.announce(text);
    return true;
  }

  // The connection broke: what the relay has not confirmed has perhaps not left. Where nobody confirms it, it goes out
  // again once.
  recall() {
    for (const message of this.#sent.values()) {
      if (message.state !== 'sending' || this.#waiting.includes(message)) continue;
      this.#answers.retract(message.id);
      if (this.#handlers.hasResumed()) this.#setState(message, 'waiting');
      else if (message.again) this.fail(message.id, UNKNOWN);
      else {
        message.again = true;
        this.#putBack(message);
      }
    }
  }

  // The agent confirmed what it got, and does no more.
  failUnconfirmed() {
    for (const message of [...this.#sent.values()]) {
      if (!message.place || message.ticks === 2 || message.state === 'failed') continue;
      this.#unqueue(message);
      this.fail(message.id, UNKNOWN);
    }
  }

  // The agent seems to have other keys, and others are being agreed upon: what has no answer yet goes out again, once. The
  // agent does not say which message it could not read, so that it is any of them.
  receiveUnread(payload) {
    const refs = this.#answers.unanswered;
    for (const ref of refs.includes(payload.ref) ? [payload.ref] : refs) {
      const message = this.#sent.get(ref);
      if (!message) continue;
      this.#sent.delete(ref);
      this.#answers.retract(ref);
      if (message.again) {
        this.#setState(message, 'failed', unverifiedText(payload));
        this.#handlers.keep(message);
      } else {
        message.again = true;
        this.#putBack(message);
      }
    }
  }

  // The relay did not deliver a message. Returns whether it is one of these; what is answered or confirmed has been
  // delivered, whatever this says.
  receiveRefusal({ ref, code, retry_after_ms: retryAfterMs }, text) {
    const message = this.#sent.get(ref);
    if (!message || message.answered || message.ticks === 2) return false;
    this.#answers.retract(ref);
    // It goes out when the agent is back.
    if (code === 'PEER_OFFLINE') {
      delete message.isOut;
      this.#putBack(message);
      return true;
    }
    this.fail(ref, text);
    if (code === 'RATE_LIMITED' && retryAfterMs > 0 && retryAfterMs <= PATIENCE_MS) {
      setTimeout(() => message.state === 'failed' && this.resend(message), retryAfterMs);
    }
    return true;
  }
}

async function payloadOf(message) {
  const { images } = message;
  // Half of a pair of code units is no character; not every agent could read it.
  const text = message.text.toWellFormed?.() ?? message.text;
  const payload = { text, asks: 1, files: 1 };
  if (!images?.length) return payload;
  const encoded = images.map(async (blob) => ({
    mime: blob.type,
    data: toBase64(new Uint8Array(await within(blob.arrayBuffer(), PICTURES_MS))),
  }));
  return { ...payload, images: await Promise.all(encoded) };
}

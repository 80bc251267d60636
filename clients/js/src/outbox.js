// What a phone sends, and how far it has got: waiting for the agent, handed to the socket, taken by the relay, confirmed by
// the agent. It goes out again where that cannot make two of one.

import { AskError } from './answer.js';

// So many messages wait for the agent at most; so many that were sent can be told from their errors.
const WAITING_MAX = 32;
const SENT_MAX = 100;
// A rate limit is waited for if it is not longer than this.
const PATIENCE_MS = 90_000;

const unknown = () => new AskError('UNKNOWN', 'It is not known whether the agent has this');

export class Outbox {
  #handlers;
  #waiting = [];
  #sent = new Map();
  #isFlushing = false;
  #timers = new Set();
  // Whether the ends have agreed to confirm what they get.
  hasResumed = false;

  // handlers: channel(); keep(): resolves when `kept` is stored; failed(id, error): it will not arrive; isAnswered(id)
  constructor(handlers) {
    this.#handlers = handlers;
  }

  // To be stored: what may have to go out again.
  get kept() {
    const all = [...[...this.#sent.values()].filter((one) => one.place && !one.isDelivered && !one.hasFailed), ...this.#waiting];
    return [...new Set(all)].map(({ id, type, payload, place, isOut }) => ({ id, type, payload, place, isOut }));
  }

  // What an earlier process kept; what may have arrived and was not numbered is given up.
  restore(kept) {
    for (const message of kept) {
      if (message.isOut && !message.place) continue;
      this.#waiting.push({ ...message });
    }
  }

  get isFull() {
    return this.#waiting.length >= WAITING_MAX;
  }

  // Whether the agent has it, as far as anybody can know.
  hasArrived(id) {
    const message = this.#sent.get(id);
    return Boolean(message?.isDelivered || message?.isTaken);
  }

  isDelivered(id) {
    return this.#sent.get(id)?.isDelivered === true;
  }

  submit(type, payload, id) {
    this.#waiting.push({ id, type, payload });
    if (this.hasResumed) this.#handlers.keep().catch((error) => console.warn('not kept:', error));
    this.flush();
  }

  // Whether it had not left yet.
  withdraw(id) {
    const at = this.#waiting.findIndex((message) => message.id === id);
    if (at < 0 || this.#waiting[at].place || this.#sent.has(id)) return false;
    this.#waiting.splice(at, 1);
    return true;
  }

  stop() {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  async flush() {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    try {
      while (this.#waiting.length && this.#handlers.channel()?.ready) {
        if (!(await this.#sendFirst(this.#waiting[0]))) break;
      }
    } finally {
      this.#isFlushing = false;
    }
  }

  // Resolves to whether the next one may be tried.
  async #sendFirst(message) {
    const channel = this.#handlers.channel();
    // Nobody would tell it from the first time.
    if (message.place && !channel.resumes) {
      this.#unqueue(message);
      this.#fail(message, unknown());
      return true;
    }
    this.#sent.set(message.id, message);
    if (this.#sent.size > SENT_MAX) this.#sent.delete(this.#sent.keys().next().value);
    if (await channel.send(message.type, message.payload, message.id, message.place)) {
      message.isOut = true;
      this.#unqueue(message);
      return true;
    }
    return Boolean(this.#handlers.channel()?.ready);
  }

  #unqueue(message) {
    this.#waiting = this.#waiting.filter((one) => one !== message);
  }

  #putBack(message) {
    message.isTaken = false;
    if (!this.#waiting.includes(message)) this.#waiting.unshift(message);
  }

  #fail(message, error) {
    message.hasFailed = true;
    this.#handlers.failed(message.id, error);
  }

  // ---- What becomes of it ----

  markTaken(id) {
    const message = this.#sent.get(id);
    if (message) message.isTaken = true;
  }

  markDelivered(id) {
    const message = this.#sent.get(id);
    if (message) message.isDelivered = true;
  }

  // Its number is stored before it leaves. The first number counts.
  async markPlace(id, place) {
    const message = this.#sent.get(id);
    if (!message) return;
    message.place ??= place;
    await this.#handlers.keep();
  }

  markVoid(id, { code, message: text }) {
    const message = this.#sent.get(id);
    if (message) this.#fail(message, new AskError(code, text ?? code));
  }

  // The connection broke: what the relay has not confirmed goes out again, once, where nobody else sees to that.
  recall() {
    if (this.hasResumed) return;
    for (const message of [...this.#sent.values()].reverse()) {
      if (!message.isOut || message.isTaken || message.hasFailed || this.#waiting.includes(message)) continue;
      if (message.again) this.#fail(message, unknown());
      else this.#putBack(Object.assign(message, { again: true, isOut: false }));
    }
  }

  // The agent confirmed what it got, and does no more.
  failUnconfirmed() {
    this.hasResumed = false;
    for (const message of [...this.#sent.values()]) {
      if (!message.place || message.isDelivered || message.hasFailed) continue;
      this.#unqueue(message);
      this.#fail(message, unknown());
    }
  }

  // The agent seems to have other keys: what has no answer goes out again, once. It does not say which one that is.
  receiveUnread({ ref, message: text }) {
    const open = [...this.#sent.values()].filter(({ id, hasFailed }) => !hasFailed && !this.#handlers.isAnswered(id));
    const one = open.find(({ id }) => id === ref);
    for (const message of one ? [one] : open.reverse()) {
      if (message.again) this.#fail(message, new AskError('DECRYPTION_FAILED', text ?? 'The agent cannot read this'));
      else this.#putBack(Object.assign(message, { again: true, isOut: false }));
    }
  }

  // An error in clear, as of the relay. Returns whether it is about one of these.
  receiveRefusal({ ref, code, message: text, retry_after_ms: wait }) {
    const message = this.#sent.get(ref);
    if (!message || message.isDelivered || message.hasFailed || this.#handlers.isAnswered(ref)) return false;
    message.isOut = false;
    if (code === 'PEER_OFFLINE') this.#putBack(message);
    else if (code === 'RATE_LIMITED' && wait > 0 && wait <= PATIENCE_MS) {
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#putBack(message);
        this.flush();
      }, wait);
      this.#timers.add(timer);
    } else this.#fail(message, new AskError(String(code), String(text ?? code), wait));
    return true;
  }
}

// Resume at work: what is due is sealed and sent, one after the other, and what is taken is handed on when it is kept. It
// knows neither a version of the encryption nor the connection.

import { bytesOf } from './crypto.js';
import { newId } from './relay.js';
import { readAck, readRecord } from './resume.js';

// setTimeout takes no more.
const TIMER_MS_MAX = 2 ** 31 - 1;
// What could not be sealed is tried again after this.
const AGAIN_MS = 1_000;

export class Stream {
  #resume;
  #owner;
  #handlers;
  #isPumping = false;
  // Something has changed since it was looked whether there is something to send.
  #isDue = false;
  #isKeeping = false;
  #timer = null;
  // What could not be sealed waits until then.
  #resumesAt = -Infinity;
  // The newest ack that was sent.
  #ackId = null;
  // The agent's boot before the newest agreement, until its next one is known.
  #bootBefore = null;

  // owner: keys(): what messages are sealed with now, null where none can leave; seal(keys, type, id, plain): resolves to
  // the payload, or null where other keys are needed first; hand(type, payload, id, keep, isAbsent), send(type, payload, id): return
  // whether the socket has it, and the first one says so. `keep`: how the relay keeps it for an agent that is absent, where it
  // does; `isAbsent`: whether the agent is.
  // handlers: as of `Channel`, those of an end that resumes
  constructor(resume, owner, handlers) {
    this.#resume = resume;
    this.#owner = owner;
    this.#handlers = handlers;
  }

  // Whether the ends have met and a message that is pushed leaves by itself.
  get isOpen() {
    const { isOpen, hasRoom } = this.#resume.sender;
    return isOpen && hasRoom;
  }

  // Whether the agent is absent, and what is pushed leaves for the relay to keep.
  get isMailing() {
    const { isMailing, hasRoom } = this.#resume.sender;
    return isMailing && hasRoom;
  }

  // What has been taken of the agent's messages, to be kept with them.
  get boots() {
    return this.#resume.receiver.boots;
  }

  stop() {
    clearTimeout(this.#timer);
  }

  // The relay counts acks as messages.
  set counted(isCounted) {
    this.#resume.receiver.counted = isCounted;
  }

  handlePause() {
    this.#resume.handlePause();
  }

  handleAgreed() {
    this.#resume.handleAgreed();
    this.pump();
  }

  // A new connection; `drains`: the relay has kept something for this end.
  handleConnected(drains) {
    this.#resume.handleConnected(null, drains);
  }

  // How long a payload may be that the relay keeps for an absent agent; null: it keeps none.
  set mailBytesMax(bytes) {
    this.#resume.sender.mailBytesMax = bytes;
  }

  // The relay says that the agent is not there.
  handleAbsent() {
    this.#resume.handleAbsent();
    this.pump();
  }

  // The relay has a message for the agent.
  handleKept(id) {
    if (this.#resume.sender.handleKept(id)) this.#handlers.kept?.(id);
    this.pump();
  }

  // A page of what the relay has kept has ended. Returns what it is told when all of it is kept here, or null.
  handleMail(upto, left) {
    const { taken, missed, confirm } = this.#resume.receiver.handleMail(performance.now(), upto, left);
    this.#handOn(taken, missed);
    return confirm;
  }

  // The agent resumes no more.
  forget() {
    this.#resume.sender.clear();
  }

  // `earlier`: its number in an earlier page, { e, n, t }.
  push(type, payload, id, earlier) {
    const { sender } = this.#resume;
    const size = bytesOf(JSON.stringify(payload)).length;
    const o = earlier && earlier.e !== sender.boot ? { e: earlier.e, n: earlier.n } : undefined;
    sender.push({ type, id, payload, size, o, t: earlier?.t ?? Date.now() });
    this.pump();
  }

  // Sends what is due, one after the other, and comes back when more is.
  async pump() {
    this.#isDue = true;
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#isDue) {
        this.#isDue = false;
        while (await this.#sendNext());
      }
    } catch (error) {
      console.error(error);
    } finally {
      this.#isPumping = false;
    }
    const tooLong = this.#resume.sender.takeTooLong();
    if (tooLong) this.#handlers.waits?.(tooLong.id, { code: 'MESSAGE_TOO_LARGE', bytes_max: this.#resume.sender.mailBytesMax });
    const now = performance.now();
    if (this.#resume.receiver.keepIsDue(now)) this.#keep();
    clearTimeout(this.#timer);
    const isIdle = !this.#owner.keys() || this.#isKeeping;
    const due = now < this.#resumesAt ? this.#resumesAt : this.#resume.deadline();
    const wait = isIdle ? Infinity : due - now;
    if (wait < Infinity) this.#timer = setTimeout(() => this.pump(), Math.min(Math.max(wait, 0), TIMER_MS_MAX));
  }

  // Resolves to whether there may be more to send.
  async #sendNext() {
    const keys = this.#owner.keys();
    const now = performance.now();
    const next = keys && now >= this.#resumesAt && this.#resume.poll(now);
    if (!next) return false;
    const { sender, receiver } = this.#resume;
    const { message } = next;
    // A place that is not kept would be given twice.
    if (message && !message.isPlaced) await this.#handlers.numbered?.(message.id, { e: sender.boot, n: message.n, t: message.t });
    if (message) message.isPlaced = true;
    // What could not leave is held: with other keys it leaves when the agent asks for it.
    if (keys !== this.#owner.keys()) return true;
    const [type, id] = message ? [message.type, message.id] : ['ack', newId()];
    const plain = message ? sender.record(message, receiver.told()) : next.ack;
    let sealed;
    try {
      sealed = await this.#owner.seal(keys, type, id, plain);
    } catch (error) {
      // The keys could not be stored.
      console.warn('not sealed:', error);
      this.#resumesAt = performance.now() + AGAIN_MS;
      this.#resume.handleUnsent(message);
      return false;
    }
    if (!sealed) return false;
    if (keys !== this.#owner.keys()) return true;
    if (message) return this.#owner.hand(type, sealed, id, sender.keep, sender.isAbsent);
    this.#ackId = id;
    return this.#owner.send(type, sealed, id);
  }

  // What has been taken is acknowledged when it is kept.
  async #keep() {
    if (this.#isKeeping) return;
    this.#isKeeping = true;
    const boots = await this.#handlers.keep().catch((error) => console.error(error));
    this.#isKeeping = false;
    this.#resume.receiver.handleKept(performance.now(), boots ?? null);
    this.pump();
  }

  // A sealed `ack` or record of the agent's has opened; `Malformed` where it means nothing.
  handle(type, plain, size, id) {
    if (type === 'ack') this.#handleAck(plain);
    else this.#handleRecord({ type, id }, plain, size);
  }

  #handleAck(plain) {
    const ack = readAck(plain);
    const { sender, receiver } = this.#resume;
    const isFirst = Boolean(this.#owner.keys()) && !sender.isOpen && !sender.isAbsent;
    const delivered = this.#resume.handleAck(performance.now(), ack);
    this.#tell(delivered);
    if (isFirst) {
      this.#handlers.resumed?.();
      this.#bootBefore = receiver.current;
      // It has taken nothing of this page or an earlier one: what it was doing is gone.
      if (ack.a.e === '') this.#handlers.restarted?.();
      this.#handlers.change();
    }
    this.pump();
    if (delivered.length) this.#handlers.change();
  }

  #handleRecord(message, plain, size) {
    const record = readRecord(plain);
    if (this.#bootBefore && record.e !== this.#bootBefore) this.#handlers.restarted?.();
    this.#bootBefore = null;
    const { acknowledged, taken, missed } = this.#resume.handleRecord(performance.now(), record, size, { ...message, payload: record.p });
    this.#tell(acknowledged);
    this.#handOn(taken, missed);
    if (acknowledged.length) this.#handlers.change();
  }

  #handOn(taken, missed) {
    if (missed) this.#handlers.missed(missed);
    for (const one of taken) this.#handlers.message(one.type, one.payload ?? {}, one.id);
    this.pump();
  }

  // What the agent says about messages: it has them, or never got them.
  #tell(delivered) {
    for (const { id } of delivered) this.#handlers.delivered?.(id);
    for (const { id } of this.#resume.sender.takeUndelivered()) this.#handlers.undelivered?.(id);
  }

  // The relay refused a message that is held: returns whether that is all there is to say.
  handleRefusal(payload) {
    if (typeof payload.ref !== 'string') return false;
    // The next one says the same.
    if (payload.ref === this.#ackId) return true;
    const outcome = this.#resume.sender.handleRefused(performance.now(), payload.ref, payload.code, Number(payload.retry_after_ms) || 0);
    if (outcome === 'void') this.#handlers.void?.(payload.ref, payload);
    if (outcome === 'held') this.#handlers.waits?.(payload.ref, payload);
    if (outcome) this.pump();
    return Boolean(outcome);
  }
}

// Resume: both ends number, acknowledge and send again, so that no break loses a message and none arrives twice. This is
// the phone's side of it, without any I/O: time (milliseconds of any steady clock), boots and records are passed in.
// `handle…` takes something in, `poll` yields what is to be sealed and sent, `deadline` says when to poll again.
// PROTOCOL.md's chapter "Resume" has the rules; their numbers are in the comments.

import { Refused } from './crypto.js';

// Sender: what is numbered and not acknowledged.
const WINDOW = { messages: 64, bytes: 16 << 20 };
const REQUEST_EVERY_MS = 1_000;
// Receiver
const BOOTS_MAX = 4;
const AHEAD = { messages: 256, bytes: 1 << 20 };
const ASK_EVERY_MS = 2_000;
const ACK = { messages: 64, bytes: 128 << 10, afterMs: 1_000 };
// Where the relay counts an ack as a message.
const COUNTED_EVERY_MS = 10_000;
// What could not be kept is tried again after this.
const KEEP_AGAIN_MS = 1_000;
// Agreement
const REPEAT_MS = { first: 2_000, most: 30_000 };

const WAITS = ['RATE_LIMITED', 'DAILY_QUOTA_EXCEEDED', 'MONTHLY_QUOTA_EXCEEDED'];
const VOIDS = ['MESSAGE_TOO_LARGE', 'INVALID_MESSAGE'];
const BOOT = /^[\w-]{11}$/;
const NOTHING_TAKEN = { e: '', n: 0 };

// A record or an `ack` of the agent's that means nothing: the keys are right, what they sealed is not.
export class Malformed extends Refused {}

// ---- What is sealed ----

function isNumber(value, from, to = Number.MAX_SAFE_INTEGER) {
  return Number.isSafeInteger(value) && value >= from && value <= to;
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function isBoot(value) {
  return typeof value === 'string' && BOOT.test(value);
}

function readPosition(value) {
  const isRight = isObject(value) && (value.e === '' ? value.n === 0 : isBoot(value.e) && isNumber(value.n, 0));
  if (!isRight) throw new Malformed('an acknowledgement in it cannot be read');
  return { e: value.e, n: value.n };
}

// { e, n, f, b, a?, o?, p }, or `Malformed`.
export function readRecord(plain) {
  if (!isObject(plain) || !isBoot(plain.e) || !isNumber(plain.n, 1) || plain.p === undefined) {
    throw new Malformed('its number cannot be read');
  }
  const { e, n, f = n, b, p, o } = plain;
  if (!isNumber(f, 1, n) || !isNumber(b, 1, f)) throw new Malformed('its number does not fit');
  const record = { e, n, f, b, p };
  if (plain.a !== undefined) record.a = readPosition(plain.a);
  if (o !== undefined) {
    if (!isObject(o) || !isBoot(o.e) || o.e === e || !isNumber(o.n, 1)) throw new Malformed('its earlier number cannot be read');
    record.o = { e: o.e, n: o.n };
  }
  return record;
}

// { a, r }, or `Malformed`.
export function readAck(plain) {
  if (!isObject(plain) || !(plain.r === undefined || typeof plain.r === 'boolean')) throw new Malformed('it cannot be read');
  return { a: readPosition(plain.a), r: plain.r === true };
}

// ---- Sender ----

// Invariants: the numbers of `#held` rise, are above all that is acknowledged and below `#next`; the numbers from `#void`
// to `#next` - 1 are void. From `#cursor` on they are to be sent again.
export class Sender {
  #drawBoot;
  #window;
  #held = [];
  // Not numbered yet.
  #waiting = [];
  #next;
  #void;
  #cursor;
  #blockedUntil = -Infinity;
  // While a number below it is held, messages leave one by one.
  #carefulBelow = 0;
  // When the peer's request is followed, and when one was.
  #requestAt = null;
  #followedAt = -Infinity;
  // Whether what is numbered may leave.
  isOpen = false;

  constructor(drawBoot, window = WINDOW) {
    this.#drawBoot = drawBoot;
    this.#window = window;
    this.#begin();
  }

  #begin() {
    this.boot = this.#drawBoot();
    this.#held = [];
    this.#next = this.#void = 1;
    this.#cursor = 0;
  }

  get hasRoom() {
    const all = [...this.#held, ...this.#waiting];
    return !all.length || (all.length < this.#window.messages && sizeOf(all) < this.#window.bytes);
  }

  // message: { type, id, payload, size, o? }; `isPlaced` is for the one who sends it: whether its number is kept.
  push(message) {
    this.#waiting.push(message);
  }

  // Returns the messages that `a` acknowledges.
  handleAck(now, a, r = false) {
    let taken = [];
    if (a.e === this.boot && a.n >= this.#next) {
      // 7: this page was set back.
      const again = [...this.#held, ...this.#waiting];
      this.#carefulBelow = this.#isCareful ? this.#held.length + 1 : 0;
      this.#begin();
      this.#waiting = again.map((message) => ({ ...message, isPlaced: false }));
    } else if (a.e === this.boot) {
      taken = this.#held.filter(({ n }) => n <= a.n);
      this.#held = this.#held.slice(taken.length);
      this.#cursor = Math.max(0, this.#cursor - taken.length);
      this.#void = Math.max(this.#void, a.n + 1);
      if (this.#held.length) this.#held[0].f = Math.max(this.#held[0].f, a.n + 1);
    }
    // 3
    if (r) this.#requestAt ??= Math.max(now, this.#followedAt + REQUEST_EVERY_MS);
    return taken;
  }

  // The relay refused a message (4). 'held': it leaves again by itself; 'void': never; null: it is none that is held.
  // Anybody on the way can invent a code: one that is unknown changes nothing. A message that did not arrive leaves again
  // when the peer asks for it.
  handleRefused(now, id, code, afterMs = 0) {
    const at = this.#held.findIndex((message) => message.id === id);
    if (at < 0) return null;
    if (VOIDS.includes(code)) {
      const [{ f }] = this.#held.splice(at, 1);
      if (at < this.#held.length) this.#held[at].f = f;
      else this.#void = f;
      if (at < this.#cursor) this.#cursor -= 1;
      return 'void';
    }
    if (WAITS.includes(code)) {
      this.#cursor = Math.min(this.#cursor, at);
      this.#blockedUntil = Math.max(this.#blockedUntil, now + afterMs);
      this.#carefulBelow = this.#next;
    } else if (code === 'PEER_OFFLINE') {
      this.handlePause();
    }
    return 'held';
  }

  // A message that `poll` yielded did not leave: it and everything after it does again.
  handleUnsent(message) {
    const at = this.#held.indexOf(message);
    if (at >= 0) this.#cursor = Math.min(this.#cursor, at);
  }

  handlePause() {
    this.isOpen = false;
    this.#requestAt = null;
  }

  handleAgreed() {
    this.handlePause();
    this.#followedAt = -Infinity;
  }

  // The message that leaves now, for the first time or again, or null.
  poll(now) {
    if (!this.isOpen || now < this.#blockedUntil) return null;
    this.#blockedUntil = -Infinity;
    if (this.#requestAt !== null) {
      if (now < this.#requestAt) return null;
      this.#requestAt = null;
      this.#followedAt = now;
      this.#cursor = 0;
    }
    // 4: the relay has refused something for its rate, and takes no more than one message at a time.
    if (this.#isCareful && this.#cursor > 0) return null;
    if (this.#cursor === this.#held.length) {
      if (!this.#waiting.length || !this.#fits(this.#waiting[0])) return null;
      this.#held.push(Object.assign(this.#waiting.shift(), { n: this.#next, f: this.#void }));
      this.#next += 1;
      this.#void = this.#next;
    }
    return this.#held[this.#cursor++];
  }

  // The plaintext of a message that `poll` yielded, with the acknowledgement `a`.
  record({ n, f, o, payload }, a) {
    const b = this.#held.length ? this.#held[0].f : this.#void;
    return { e: this.boot, n, ...(f < n && { f }), b, a, ...(o && { o }), p: payload };
  }

  deadline() {
    if (!this.isOpen || !(this.#held.length || this.#waiting.length)) return Infinity;
    const at = Math.max(this.#requestAt ?? -Infinity, this.#blockedUntil);
    return at === -Infinity ? Infinity : at;
  }

  // Forgets everything: the peer resumes no more.
  clear() {
    this.#waiting = [];
    this.#begin();
  }

  get #isCareful() {
    return this.#held.length > 0 && this.#held[0].n < this.#carefulBelow;
  }

  #fits({ size }) {
    const { messages, bytes } = this.#window;
    return !this.#held.length || (this.#held.length < messages && sizeOf(this.#held) + size <= bytes);
  }
}

function sizeOf(messages) {
  return messages.reduce((sum, { size }) => sum + size, 0);
}

// ---- Receiver ----

// Takes the agent's records in order. What it acknowledges is what has been taken or, where `keeps`, what is kept.
export class Receiver {
  // Boot to the number that is expected next; the current boot is the last one.
  #boots;
  #current = null;
  // Number to { record, size, item }; all of them above the next number.
  #ahead = new Map();
  // The highest `f` that was above the next number.
  #gap = 0;
  #askedAt = -Infinity;
  #ackedAt = -Infinity;
  // Messages and bytes since the last acknowledgement, and when the first of them came.
  #untold = { messages: 0, bytes: 0, since: Infinity };
  #keeps;
  #kept;
  #keepAt = -Infinity;
  // An ack is due at once.
  owed = false;
  // Whether the relay counts an ack as a message.
  counted = true;

  // boots: [[boot, next]], the current one last, as `boots` gave it.
  constructor({ boots = [], keeps = false } = {}) {
    this.#boots = new Map(boots);
    this.#current = boots.at(-1)?.[0] ?? null;
    this.#keeps = keeps;
    this.#kept = this.#taken;
  }

  get boots() {
    return [...this.#boots];
  }

  get current() {
    return this.#current;
  }

  get held() {
    return this.#ahead.size;
  }

  get #next() {
    return this.#boots.get(this.#current);
  }

  get #taken() {
    return this.#current === null ? NOTHING_TAKEN : { e: this.#current, n: this.#next - 1 };
  }

  // Everything that has been taken is acknowledged with what is kept.
  get #isKept() {
    return !this.#keeps || (this.#kept.e === this.#taken.e && this.#kept.n === this.#taken.n);
  }

  // { taken: the items of what is taken with this record, missed: how many messages will never come }
  handle(now, record, size, item) {
    this.#turnTo(record);
    const taken = [];
    // 2
    const missed = Math.max(0, record.b - this.#next);
    this.#boots.set(this.#current, this.#next + missed);
    if (record.n < this.#next) {
      // 3
      this.#count(now, size);
    } else if (record.f <= this.#next) {
      // 4
      this.#take(record, item, taken);
      this.#count(now, size);
    } else {
      // 5
      this.#gap = Math.max(this.#gap, record.f);
      this.#hold(record, size, item);
    }
    this.#lookAhead(now, taken);
    return { taken, missed };
  }

  // 1: the newest record's boot is the current one.
  #turnTo({ e, b }) {
    if (e === this.#current) return;
    this.dropAhead();
    const next = this.#boots.get(e) ?? b;
    this.#boots.delete(e);
    this.#boots.set(e, next);
    this.#current = e;
    this.#forget();
  }

  #forget() {
    while (this.#boots.size > BOOTS_MAX) this.#boots.delete(this.#boots.keys().next().value);
  }

  #take({ n, o }, item, taken) {
    this.#boots.set(this.#current, n + 1);
    if (o) {
      if ((this.#boots.get(o.e) ?? 0) > o.n) return;
      const isKnown = this.#boots.has(o.e);
      this.#boots.set(o.e, o.n + 1);
      if (!isKnown) {
        // Known from now on, as one before the current one.
        this.#boots.delete(this.#current);
        this.#boots.set(this.#current, n + 1);
        this.#forget();
      }
    }
    taken.push(item);
  }

  #hold(record, size, item) {
    const others = [...this.#ahead.values()].filter((one) => one.record.n !== record.n);
    if (others.length >= AHEAD.messages || sizeOf(others) + size > AHEAD.bytes) return;
    this.#ahead.set(record.n, { record, size, item });
  }

  #lookAhead(now, taken) {
    for (const n of [...this.#ahead.keys()].sort((one, other) => one - other)) {
      const { record, size, item } = this.#ahead.get(n);
      if (record.f > this.#next) continue;
      this.#ahead.delete(n);
      if (n < this.#next) continue;
      this.#take(record, item, taken);
      this.#count(now, size);
    }
  }

  dropAhead() {
    this.#ahead.clear();
    this.#gap = 0;
  }

  handleAgreed() {
    this.dropAhead();
    this.#askedAt = -Infinity;
  }

  #count(now, size) {
    this.#untold.messages += 1;
    this.#untold.bytes += size;
    this.#untold.since = Math.min(this.#untold.since, now);
  }

  // The acknowledgement that leaves now, in a record or an ack.
  told() {
    if (this.#isKept) {
      this.#untold = { messages: 0, bytes: 0, since: Infinity };
      this.owed = false;
    }
    return this.#keeps ? this.#kept : this.#taken;
  }

  // Whether what has been taken is to be kept now, so that it can be acknowledged.
  keepIsDue(now) {
    return !this.#isKept && now >= Math.max(this.#dueAt(), this.#keepAt);
  }

  // `boots` is kept; null where it could not be.
  handleKept(now, boots) {
    const last = boots?.at(-1);
    if (last) this.#kept = { e: last[0], n: last[1] - 1 };
    else this.#keepAt = now + KEEP_AGAIN_MS;
  }

  get #isMissing() {
    return this.#current !== null && this.#next < this.#gap;
  }

  // The ack that is due now, or null.
  poll(now) {
    if (this.#isMissing && now >= this.#askedAt + ASK_EVERY_MS) {
      this.#askedAt = now;
      return { a: this.told(), r: true };
    }
    if (!this.#isKept || now < this.#dueAt()) return null;
    this.#ackedAt = now;
    return { a: this.told() };
  }

  // 6
  #dueAt() {
    const { messages, bytes, since } = this.#untold;
    const isMuch = this.owed || messages >= ACK.messages || bytes >= ACK.bytes;
    const due = isMuch ? -Infinity : since + ACK.afterMs;
    return this.counted ? Math.max(due, this.#ackedAt + COUNTED_EVERY_MS) : due;
  }

  deadline() {
    const asking = this.#isMissing ? this.#askedAt + ASK_EVERY_MS : Infinity;
    return Math.min(asking, this.#isKept ? this.#dueAt() : Math.max(this.#dueAt(), this.#keepAt));
  }
}

// ---- Both, and the agreement between the ends ----

export class Resume {
  #isAgreed = false;
  // This end's first ack has left.
  #isSaid = false;
  #repeatAt = 0;
  #repeatMs = 0;

  constructor(sender, receiver) {
    this.sender = sender;
    this.receiver = receiver;
  }

  // The connection is gone or new, or the agent has come or left: keys are to be agreed upon.
  handlePause() {
    this.#isAgreed = false;
    this.sender.handlePause();
    this.receiver.dropAhead();
  }

  // New keys are in use.
  handleAgreed() {
    this.handlePause();
    this.sender.handleAgreed();
    this.receiver.handleAgreed();
    this.#isAgreed = true;
    this.#isSaid = false;
    this.#repeatMs = REPEAT_MS.first;
  }

  // An ack that was sealed with the keys in use. Returns the messages that it acknowledges.
  handleAck(now, { a, r }) {
    if (!this.#isAgreed) return this.sender.handleAck(now, a);
    if (!this.sender.isOpen) this.sender.isOpen = true;
    else if (r) this.receiver.owed = true;
    return this.sender.handleAck(now, a, r);
  }

  // { acknowledged, taken, missed }
  handleRecord(now, record, size, item) {
    const acknowledged = record.a ? this.sender.handleAck(now, record.a) : [];
    return { acknowledged, ...this.receiver.handle(now, record, size, item) };
  }

  // { ack } or { message }, which is to be sealed and sent; null: nothing is.
  poll(now) {
    if (!this.#isAgreed) return null;
    if (!this.#isSaid || (!this.sender.isOpen && now >= this.#repeatAt)) {
      if (this.#isSaid) this.#repeatMs = Math.min(2 * this.#repeatMs, REPEAT_MS.most);
      this.#isSaid = true;
      this.#repeatAt = now + this.#repeatMs;
      return { ack: { a: this.receiver.told(), r: true } };
    }
    const ack = this.receiver.poll(now);
    if (ack) return { ack };
    const message = this.sender.poll(now);
    return message && { message };
  }

  // What `poll` yielded could not be sealed: it leaves with the next poll. A first ack is repeated anyway.
  handleUnsent(message) {
    if (message) this.sender.handleUnsent(message);
    else this.receiver.owed = true;
  }

  deadline() {
    if (!this.#isAgreed) return Infinity;
    const repeat = this.sender.isOpen ? Infinity : this.#repeatAt;
    return Math.min(this.receiver.deadline(), this.sender.deadline(), repeat);
  }
}

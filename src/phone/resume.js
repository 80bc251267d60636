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
// What was not kept for a reason that is not known is put there again after this, at the earliest.
const UNKNOWN_WAIT_MS = 30_000;
// Ranges of numbers in one acknowledgement.
const LOST_MAX = 16;
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
  if (!isRight || !(value.x === undefined || isLost(value.x, value.n))) {
    throw new Malformed('an acknowledgement in it cannot be read');
  }
  return { e: value.e, n: value.n, ...(value.x?.length && { x: value.x }) };
}

// Whether these are ranges of numbers up to `n`, in order.
function isLost(x, n) {
  if (!Array.isArray(x) || x.length > LOST_MAX) return false;
  let below = 0;
  return x.every((range) => {
    if (!Array.isArray(range) || range.length !== 2) return false;
    const [first, last] = range;
    const isInOrder = isNumber(first, below + 1, n) && isNumber(last, first, n);
    below = last;
    return isInOrder;
  });
}

// { e, n, f, b, a?, o?, t?, p }, or `Malformed`.
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
  if (plain.t !== undefined) {
    if (!isNumber(plain.t, 0)) throw new Malformed('its time cannot be read');
    record.t = plain.t;
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
  // The relay keeps no more until the agent has been there.
  #isMailFull = false;
  // What is too long to be kept, and holds up what is behind it.
  #tooLong = null;
  // The id of what was sent to be kept and is not answered yet.
  #putting = null;
  #undelivered = [];
  // Whether what is numbered may leave.
  isOpen = false;
  // Whether the agent is absent, as the relay says, and what the relay keeps may leave.
  isAbsent = false;
  // How long a payload may be that the relay keeps; null: it keeps none.
  mailBytesMax = null;

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

  // message: { type, id, payload, size, t, o? }, `t` in Unix milliseconds; `isPlaced` is for the one who sends it: whether
  // its number is kept. `isKept`: the relay has it.
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
      this.#waiting = again.map((message) => ({ ...message, n: undefined, isPlaced: false, isKept: false }));
    } else if (a.e === this.boot) {
      const gone = this.#held.filter(({ n }) => n <= a.n);
      const isLostOne = ({ n }) => (a.x ?? []).some(([first, last]) => first <= n && n <= last);
      taken = gone.filter((message) => !isLostOne(message));
      // 9
      this.#undelivered.push(...gone.filter(isLostOne));
      this.#held = this.#held.slice(gone.length);
      this.#cursor = Math.max(0, this.#cursor - gone.length);
      this.#void = Math.max(this.#void, a.n + 1);
      if (this.#held.length) this.#held[0].f = Math.max(this.#held[0].f, a.n + 1);
    }
    // 3
    if (r) this.#requestAt ??= Math.max(now, this.#followedAt + REQUEST_EVERY_MS);
    return taken;
  }

  // Messages that the agent never got, and will not get under their number.
  takeUndelivered() {
    return this.#undelivered.splice(0);
  }

  // The message that turned out to be too long for the relay to keep; each is told once.
  takeTooLong() {
    const message = this.#tooLong;
    this.#tooLong = null;
    return message;
  }

  // The relay has a message (8): the message, if it is one that is held.
  handleKept(id) {
    if (this.#putting === id) this.#putting = null;
    const message = this.#held.find((one) => one.id === id);
    if (message) message.isKept = true;
    return message ?? null;
  }

  // The relay refused a message (4). 'held': it leaves again by itself; 'void': never; null: it is none that is held.
  // Anybody on the way can invent a code: one that is unknown changes nothing. A message that did not arrive leaves again
  // when the peer asks for it, and one that was to be kept later.
  handleRefused(now, id, code, afterMs = 0) {
    const wasPut = this.#putting === id;
    if (wasPut) this.#putting = null;
    const at = this.#held.findIndex((message) => message.id === id);
    if (at < 0) return null;
    if (code === 'MAILBOX_FULL' && afterMs > 0) {
      this.#blockedUntil = Math.max(this.#blockedUntil, now + afterMs);
      return 'held';
    }
    if (code === 'MAILBOX_FULL' || (code === 'MESSAGE_TOO_LARGE' && this.isAbsent)) {
      // 8
      this.#isMailFull = true;
      return 'held';
    }
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
    } else if (code === 'PEER_OFFLINE' && (wasPut || !this.isAbsent)) {
      this.handlePause();
    } else if (wasPut) {
      // 8
      this.#blockedUntil = Math.max(this.#blockedUntil, now + Math.max(afterMs, UNKNOWN_WAIT_MS));
    }
    return 'held';
  }

  // A message that `poll` yielded did not leave: it and everything after it does again.
  handleUnsent(message) {
    const at = this.#held.indexOf(message);
    if (at >= 0) this.#cursor = Math.min(this.#cursor, at);
    if (this.#putting === message.id) this.#putting = null;
  }

  handlePause() {
    this.isOpen = false;
    this.isAbsent = false;
    this.#putting = null;
    this.#requestAt = null;
  }

  // The relay says that the agent is not there.
  handleAbsent() {
    this.handlePause();
    this.isAbsent = true;
  }

  handleAgreed() {
    this.handlePause();
    this.#followedAt = -Infinity;
    // 4: a quota may have been raised.
    this.#blockedUntil = -Infinity;
    this.#isMailFull = false;
  }

  // Whether what leaves is for the relay to keep.
  get isMailing() {
    return this.isAbsent && this.mailBytesMax !== null && !this.#isMailFull;
  }

  // The relay keeps no more, or not what is next: it waits here.
  get isMailFull() {
    return this.#isMailFull;
  }

  // The message that leaves now, for the first time or again, or null.
  poll(now) {
    if (this.isMailing && now >= this.#blockedUntil) return this.#pollMail();
    if (!this.isOpen || now < this.#blockedUntil) return null;
    this.#blockedUntil = -Infinity;
    if (this.#requestAt !== null) {
      if (now < this.#requestAt) return null;
      this.#requestAt = null;
      this.#followedAt = now;
      this.#cursor = 0;
      // What was kept has been handed out: this is what the agent lacks.
      for (const message of this.#held) message.isKept = false;
    }
    // 4: the relay has refused something for its rate, and takes no more than one message at a time.
    if (this.#isCareful && this.#cursor > 0) return null;
    if (this.#cursor === this.#held.length) {
      if (!this.#waiting.length || !this.#fits(this.#waiting[0])) return null;
      this.#number();
    }
    if (!this.#fits(this.#held[this.#cursor])) return null;
    return this.#held[this.#cursor++];
  }

  #number() {
    this.#held.push(Object.assign(this.#waiting.shift(), { n: this.#next, f: this.#void }));
    this.#next += 1;
    this.#void = this.#next;
  }

  // 8: what the relay is to keep, in order, one at a time.
  #pollMail() {
    this.#blockedUntil = -Infinity;
    if (this.#putting !== null) return null;
    let message = this.#held.find(({ isKept }) => !isKept) ?? this.#waiting[0];
    if (!message) return null;
    if (message.size > this.mailBytesMax) {
      this.#isMailFull = true;
      this.#tooLong = message;
      return null;
    }
    if (!this.#held.includes(message)) {
      const isAllSent = this.#cursor === this.#held.length;
      this.#number();
      message = this.#held.at(-1);
      if (isAllSent) this.#cursor += 1;
    }
    this.#putting = message.id;
    return message;
  }

  // What the envelope of a message has beside its type, so that the relay keeps it for an absent agent.
  get keep() {
    return this.mailBytesMax === null ? undefined : 'quiet';
  }

  // The plaintext of a message that `poll` yielded, with the acknowledgement `a`.
  record({ n, f, o, t, payload }, a) {
    const b = this.#held.length ? this.#held[0].f : this.#void;
    const isTimed = this.keep && t !== undefined;
    return { e: this.boot, n, ...(f < n && { f }), b, a, ...(o && { o }), ...(isTimed && { t }), p: payload };
  }

  deadline() {
    if (!(this.isOpen || this.isMailing) || !(this.#held.length || this.#waiting.length)) return Infinity;
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
    const left = this.#held.slice(0, this.#cursor).filter(({ isKept }) => !isKept);
    return !left.length || (left.length < messages && sizeOf(left) + size <= bytes);
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
  // Boot to the ranges of numbers that never came, as `x` has them.
  #lost = new Map();
  // What the relay has kept is coming, and the agent cannot be asked; and whether a page of it has ended with something held.
  #isDraining = false;
  #isHeldOver = false;
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

  // boots: [[boot, next]], the current one last, as `boots` gave it, with a third member where `x` has ranges.
  constructor({ boots = [], keeps = false } = {}) {
    this.#boots = new Map(boots.map(([boot, next]) => [boot, next]));
    for (const [boot, , x] of boots) if (x) this.#lost.set(boot, x);
    this.#current = boots.at(-1)?.[0] ?? null;
    this.#keeps = keeps;
    this.#kept = this.#taken;
  }

  get boots() {
    return [...this.#boots].map(([boot, next]) => {
      const x = this.#lost.get(boot);
      return x?.length ? [boot, next, x.map((range) => [...range])] : [boot, next];
    });
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
    if (this.#current === null) return NOTHING_TAKEN;
    const x = this.#lost.get(this.#current);
    return { e: this.#current, n: this.#next - 1, ...(x?.length && { x: x.map((range) => [...range]) }) };
  }

  get isDraining() {
    return this.#isDraining;
  }

  // Everything that has been taken is acknowledged with what is kept.
  get #isKept() {
    return !this.#keeps || (this.#kept.e === this.#taken.e && this.#kept.n === this.#taken.n);
  }

  // { taken: the items of what is taken with this record, missed: how many messages will never come }
  handle(now, record, size, item) {
    const taken = [];
    const isInTheWay = this.#isDraining && this.#isInTheWay(record, size);
    const givenUp = isInTheWay ? this.#giveUpGaps(now, taken) : 0;
    this.#turnTo(record);
    // 2
    const missed = Math.max(0, record.b - this.#next);
    this.#boots.set(this.#current, this.#next + missed);
    this.#forgetLost(record.b);
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
    return { taken, missed: missed + givenUp };
  }

  // A new connection. `drains`: the relay first hands out what it has kept, and the agent counts as absent.
  handleConnected(drains) {
    this.#ahead.clear();
    this.#gap = 0;
    this.#isDraining = drains;
    this.#isHeldOver = false;
  }

  // 8: a page of it has ended. { taken, missed, confirm }: `confirm` is what the relay is told when all that was taken is
  // kept, or null.
  handleMail(now, upto, left) {
    const taken = [];
    const wasHeldOver = this.#isHeldOver;
    const missed = this.#isDraining && (left === 0 || wasHeldOver) ? this.#giveUpGaps(now, taken) : 0;
    this.#isDraining = left !== 0;
    this.#isHeldOver = this.#isDraining && this.#ahead.size > 0;
    const isConfirmed = upto > 0 && (wasHeldOver || !this.#isHeldOver);
    return { taken, missed, confirm: isConfirmed ? upto : null };
  }

  // Whether what is held leaves this one no room, or is of another boot.
  #isInTheWay(record, size) {
    if (!this.#ahead.size) return false;
    return record.e !== this.#current || (record.f > this.#next && !this.#hasRoom(record, size));
  }

  // Takes what is held, in order; what is missing before it never came. Returns how many those are.
  #giveUpGaps(now, taken) {
    let missed = 0;
    while (this.#ahead.size) {
      const { record } = this.#ahead.get(Math.min(...this.#ahead.keys()));
      const lost = this.#lost.get(record.e) ?? [];
      if (lost.at(-1)?.[1] === this.#next - 1) lost.at(-1)[1] = record.f - 1;
      else if (lost.length < LOST_MAX) lost.push([this.#next, record.f - 1]);
      else break;
      this.#lost.set(record.e, lost);
      missed += record.f - this.#next;
      this.#boots.set(this.#current, record.f);
      this.#lookAhead(now, taken);
    }
    this.#ahead.clear();
    this.#gap = 0;
    return missed;
  }

  // What is below the base is no news to the agent.
  #forgetLost(base) {
    const lost = this.#lost.get(this.#current);
    if (!lost) return;
    const rest = lost.filter(([, last]) => last >= base).map(([first, last]) => [Math.max(first, base), last]);
    this.#lost.set(this.#current, rest);
  }

  // 1: the newest record's boot is the current one.
  #turnTo({ e, b }) {
    if (e === this.#current) return;
    this.#ahead.clear();
    this.#gap = 0;
    const next = this.#boots.get(e) ?? b;
    this.#boots.delete(e);
    this.#boots.set(e, next);
    this.#current = e;
    this.#forget();
  }

  #forget() {
    while (this.#boots.size > BOOTS_MAX) {
      const boot = this.#boots.keys().next().value;
      this.#boots.delete(boot);
      this.#lost.delete(boot);
    }
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

  #hasRoom(record, size) {
    const others = [...this.#ahead.values()].filter((one) => one.record.n !== record.n);
    return others.length < AHEAD.messages && sizeOf(others) + size <= AHEAD.bytes;
  }

  #hold(record, size, item) {
    if (!this.#hasRoom(record, size)) return;
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

  // What is held comes again; but not while the relay hands out what it has kept.
  dropAhead() {
    if (this.#isDraining) return;
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
    if (last) this.#kept = { e: last[0], n: last[1] - 1, ...(last[2]?.length && { x: last[2] }) };
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

  // The relay has let this page in. `mailBytesMax`: how long a payload may be that it keeps for an absent agent; null: it
  // keeps nothing. `drains`: it has something for this page.
  handleConnected(mailBytesMax, drains) {
    this.sender.mailBytesMax = mailBytesMax;
    this.receiver.handleConnected(drains);
    this.handlePause();
  }

  // The relay says that the agent is not there: what it keeps leaves all the same.
  handleAbsent() {
    this.handlePause();
    this.sender.handleAbsent();
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
    if (!this.#isAgreed) {
      const put = this.sender.poll(now);
      return put && { message: put };
    }
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
    if (!this.#isAgreed) return this.sender.deadline();
    const repeat = this.sender.isOpen ? Infinity : this.#repeatAt;
    return Math.min(this.receiver.deadline(), this.sender.deadline(), repeat);
  }
}

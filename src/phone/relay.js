// The connection to the relay: authentication, a sign of life, and coming back. It knows nothing of encryption or of
// what the messages mean.

import { randomBytes } from './crypto.js';
import { engine } from './engine.js';

const AUTH_MS = 15_000;
const PING_EVERY_MS = 25_000;
const PONG_MS = 10_000;
// What the slowest connection takes, in bytes a millisecond.
const SLOWEST = 16;
const DELAY_MIN_MS = 1_000;
const DELAY_MAX_MS = 60_000;
// A relay that is full or has no time for newcomers closes with 1013.
const BUSY_DELAY_MS = 5_000;
// A connection that authenticated was good, unless it broke within this, again and again.
const BRIEF_MS = 5_000;
// So many brief ones in a row are no failure yet.
const BRIEF_MAX = 2;
// Nor more than so many: the network may be good again at any time.
const BRIEF_FAILURES_MAX = 4;
// The first try after a connection that was good comes within this.
const SOON_MS = 500;

// Why there will be no further try by itself.
const ENDINGS = { 4001: 'replaced', 4002: 'revoked' };

export function envelope(type, payload = {}, id = newId()) {
  return { v: 1, type, id, ts: Date.now(), payload };
}

// A UUID, version 4. `crypto.randomUUID` is missing where the page came over plain http.
export function newId() {
  const bytes = randomBytes(16);
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

// How long to wait before the next try: twice as long after each failure, and never in step with others.
export function retryDelay(failures, { busy = false, atLeast = 0, random = Math.random } = {}) {
  const doubled = (busy ? BUSY_DELAY_MS : DELAY_MIN_MS) * 2 ** Math.min(failures, 10);
  const delay = Math.min(DELAY_MAX_MS, doubled) * (0.5 + random() / 2);
  return Math.max(delay, atLeast);
}

// `state` is one of
//   { name: 'connecting' }
//   { name: 'open', paired, ext }       authenticated; `paired`: the agent was there then; `ext`: what the relay knows beyond
//                                       version 1 of the protocol, null where nothing
//   { name: 'waiting', until }          Unix milliseconds of the next try
//   { name: 'ended', why }              'replaced', 'revoked' or 'refused': only `start` begins anew
//   { name: 'stopped' }
export class Relay {
  #url;
  #auth;
  #handlers;
  #socket = null;
  #timer = null;
  #lifeTimer = null;
  // Tries that failed, one after the other, and connections that broke at once.
  #failures = 0;
  #brief = 0;
  #openedAt = 0;
  #retryAfterMs = 0;
  // Pings sent and answered on this socket, and what waits for an answer: { ping, done }.
  #pings = 0;
  #pongs = 0;
  #untaken = [];
  #patientUntil = 0;

  // auth: the payload of `auth`, read at each connect; its role is 'phone' unless it says another; handlers: state(state), message(envelope)
  constructor(url, auth, handlers) {
    this.#url = url;
    this.#auth = auth;
    this.#handlers = handlers;
    this.state = { name: 'stopped' };
  }

  start() {
    this.#failures = this.#brief = 0;
    this.#connect();
  }

  stop() {
    this.#drop();
    this.#change({ name: 'stopped' });
  }

  // The network is back, or the page is looked at again: no more waiting, and no trust in an old connection.
  wake() {
    if (this.state.name === 'waiting') this.#connect();
    else if (this.state.name === 'open') this.#ping();
  }

  // Whether the message was handed to the socket.
  send(message) {
    if (this.state.name !== 'open') return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  // Calls `done` when the relay has taken everything that was sent until now; never, where the connection breaks before.
  // What takes longer than `bytes` may take was sent into a dead connection.
  whenTaken(done, bytes = 0) {
    if (this.state.name !== 'open') return;
    this.#patientUntil = Math.max(this.#patientUntil, Date.now() + PONG_MS + bytes / SLOWEST);
    this.#ping();
    this.#untaken.push({ ping: this.#pings, done });
  }

  // The relay answers pings in their order.
  #ponged() {
    this.#pongs += 1;
    while (this.#untaken.length && this.#untaken[0].ping <= this.#pongs) this.#untaken.shift().done();
  }

  #change(state) {
    this.state = state;
    this.#handlers.state(state);
  }

  #connect() {
    this.#drop();
    this.#change({ name: 'connecting' });
    this.#retryAfterMs = 0;
    this.#openedAt = 0;
    this.#pings = this.#pongs = 0;
    this.#untaken = [];
    this.#patientUntil = 0;
    const socket = engine.socket(this.#url);
    this.#socket = socket;
    // Events of a socket that has been given up are nobody's business.
    const current = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onopen = current(() => {
      socket.send(JSON.stringify(envelope('auth', { role: 'phone', ...this.#auth })));
    });
    socket.onmessage = current((event) => this.#receive(event.data));
    socket.onclose = current((event) => this.#closed(event.code));
    // A close follows. Where nobody listens, libraries for Node end the process.
    socket.onerror = () => {};
    this.#timer = setTimeout(() => this.#closed(0), AUTH_MS);
  }

  // Lets go of socket and timers.
  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#lifeTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message === null || typeof message !== 'object' || typeof message.type !== 'string') return;
    if (this.state.name === 'open') this.#expectLife();
    if (message.type === 'pong') return this.#ponged();
    if (message.type === 'auth.ok') return this.#opened(message.payload ?? {});
    if (message.type === 'auth.fail') return this.end('refused');
    if (this.state.name === 'open') return this.#handlers.message(message);
    // An error about the first message: the relay closes, and may say when to come back.
    this.#retryAfterMs = Number(message.payload?.retry_after_ms) || 0;
  }

  #opened({ paired, ext }) {
    clearTimeout(this.#timer);
    this.#openedAt = Date.now();
    this.#change({ name: 'open', paired: paired === true, ext: ext?.v === 1 ? ext : null });
    if (this.state.name === 'open') this.#expectLife();
  }

  // Nothing for a while: asks; still nothing: the connection is dead, whatever the browser believes.
  #expectLife() {
    clearTimeout(this.#lifeTimer);
    this.#lifeTimer = setTimeout(() => this.#ping(), PING_EVERY_MS);
  }

  #ping() {
    clearTimeout(this.#lifeTimer);
    if (this.send(envelope('ping'))) this.#pings += 1;
    this.#lifeTimer = setTimeout(() => this.#closed(0), Math.max(PONG_MS, this.#patientUntil - Date.now()));
  }

  // Ends it, without a further try by itself.
  end(why) {
    this.#drop();
    this.#change({ name: 'ended', why });
  }

  #closed(code) {
    if (ENDINGS[code]) return this.end(ENDINGS[code]);
    this.#drop();
    const delay = this.#delay(code);
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#change({ name: 'waiting', until: Date.now() + delay });
  }
  // A connection that worked and broke is tried again at once; what grows is the wait after tries that fail.
  #delay(code) {
    if (this.#openedAt) {
      this.#brief = Date.now() - this.#openedAt < BRIEF_MS ? this.#brief + 1 : 0;
      this.#failures = Math.min(Math.max(0, this.#brief - BRIEF_MAX), BRIEF_FAILURES_MAX);
    } else {
      this.#failures += 1;
    }
    const busy = code === 1013;
    if (!this.#failures && !busy && code !== 1012) return Math.max(Math.random() * SOON_MS, this.#retryAfterMs);
    return retryDelay(Math.max(0, this.#failures - 1), { busy, atLeast: this.#retryAfterMs });
  }
}

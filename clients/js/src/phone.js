// A phone: one pairing, its connection, and the questions and answers on it. It connects when it is made, and comes back by
// itself until it is closed or the pairing is over.

import { Channel } from '../../../src/phone/channel.js';
import { readSecret, support, toBase64 } from '../../../src/phone/crypto.js';
import { DeviceChannel, deviceFor, refusedChannel } from '../../../src/phone/device-channel.js';
import { newId } from '../../../src/phone/relay.js';
import { Answer, AskError } from './answer.js';
import { Events } from './events.js';
import { Kept } from './kept.js';
import { Outbox } from './outbox.js';
import { parseLink } from './pairing.js';
import { Question } from './asked.js';

const REQUEST_MS = 30_000;
// Questions of the agent that are known, and answers that were cancelled here.
const KNOWN_MAX = 64;

export class Phone {
  #events = new Events();
  #options;
  #pairing = null;
  #channel = null;
  #kept;
  #device = null;
  #support = 'ok';
  #isClosed = false;
  #told = '';
  // Questions that have no whole answer yet, oldest first.
  #open = [];
  #begun = [];
  #cancelled = [];
  #asked = new Map();
  #requests = new Map();
  #outbox = new Outbox({
    channel: () => this.#channel,
    keep: () => this.#kept.save(),
    failed: (id, error) => this.#fail(id, error),
    isAnswered: (id) => !this.#open.some((answer) => answer.id === id && !answer.text) && !this.#requests.has(id),
  });

  // link: a pairing link; null where `storage` has the pairing. options: storage, name, platform, keep, plain (see the types)
  constructor(link, options = {}) {
    const pairing = link ? parseLink(link) : null;
    this.#options = options;
    this.#kept = new Kept(options.storage, () => this.#stateToKeep());
    this.opened = this.#begin(pairing);
    this.opened.catch((error) => {
      this.#end(new AskError('NOT_OPENED', error.message));
      this.#events.emit('error', error);
    });
  }

  on(name, listener) {
    return this.#events.on(name, listener);
  }

  get state() {
    const channel = this.#channel;
    if (!channel) return { connection: 'stopped', agentOnline: false, ready: false, security: { name: 'none' } };
    const { connection, agentOnline, security } = channel;
    const { name, why, until } = connection;
    return { connection: name, why, retryAt: until, agentOnline, ready: channel.ready === true, security };
  }

  // Asks the agent. images: [{ mime, data: Uint8Array or base64 }]; chatId: of one conversation of several; signal: cancels.
  ask(text, { images, chatId, signal } = {}) {
    const id = newId();
    const answer = new Answer(id, chatId, () => this.#cancel(answer));
    if (this.#isClosed) answer.fail(new AskError('CLOSED', 'The phone is closed'));
    else if (this.#outbox.isFull) answer.fail(new AskError('FULL', 'Enough messages wait for the agent already'));
    else if (signal?.aborted) answer.cancel();
    if (answer.isOver) return answer;
    signal?.addEventListener('abort', () => answer.cancel(), { once: true });
    const payload = { text };
    if (this.#events.hears('question')) payload.asks = 1;
    if (chatId !== undefined) payload.chat_id = chatId;
    if (images?.length) payload.images = images.map(({ mime = 'image/jpeg', data }) => ({ mime, data: typeof data === 'string' ? data : toBase64(data) }));
    this.#open.push(answer);
    this.#outbox.submit('chat.send', payload, id);
    return answer;
  }

  // Sends a message of any type. Returns its id.
  send(type, payload = {}) {
    const id = newId();
    if (!this.#isClosed) this.#outbox.submit(type, payload, id);
    return id;
  }

  // Sends a request, such as `chat.history`, and resolves to the payload of its `.result`.
  request(type, payload = {}, { timeoutMs = REQUEST_MS } = {}) {
    return new Promise((resolve, reject) => {
      const id = newId();
      const over = (settle) => (value) => {
        clearTimeout(timer);
        this.#requests.delete(id);
        settle(value);
      };
      const timer = setTimeout(() => {
        this.#outbox.withdraw(id);
        over(reject)(new AskError('TIMEOUT', `The agent did not answer within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#requests.set(id, { type: `${type}.result`, resolve: over(resolve), reject: over(reject) });
      if (this.#isClosed) over(reject)(new AskError('CLOSED', 'The phone is closed'));
      else this.#outbox.submit(type, payload, id);
    });
  }

  // The app is in front again, or the network is back.
  wake() {
    this.#channel?.wake();
  }

  // The app goes to the background: a device's messages wait at the relay from now on.
  sleep() {
    this.#channel?.sleep?.();
  }

  // The user has read that nothing is encrypted, and wants to chat all the same.
  allowPlain() {
    this.#channel?.allowPlain?.();
    this.#outbox.flush();
  }

  close() {
    if (this.#isClosed) return;
    this.#channel?.stop();
    this.#end(new AskError('CLOSED', 'The phone was closed'));
  }

  #end(error) {
    this.#isClosed = true;
    this.#outbox.stop();
    for (const answer of this.#open) answer.fail(error);
    for (const { reject } of [...this.#requests.values()]) reject(error);
    this.#open = [];
  }

  // ---- Opening ----

  async #begin(linked) {
    this.#support = await support();
    const kept = await this.#kept.load();
    const isKnown = kept && (!linked || linked.token === kept.pairing.token);
    this.#pairing = linked ?? kept?.pairing;
    if (!this.#pairing) throw new Error('There is no pairing: neither a link nor one in the storage');
    if (isKnown && !linked?.k) this.#pairing = kept.pairing;
    const before = isKnown ? kept : null;
    let boots = before?.boots;
    if (this.#pairing.a && this.#support === 'ok') {
      const device = await deviceFor(this.#pairing, before?.device ?? null);
      if (device !== before?.device) boots = undefined;
      this.#device = device;
    }
    if (before) this.#outbox.restore(before.outbox ?? []);
    this.#outbox.hasResumed = Boolean(boots);
    if (this.#isClosed) return;
    this.#channel = this.#connected(boots);
    this.#channel.start();
    this.#changed();
  }

  #connected(boots) {
    const { url } = this.#pairing;
    const { keep, name = 'App', platform = 'app', plain = false } = this.#options;
    const handlers = {
      change: () => this.#changed(),
      message: (type, payload) => this.#receive(type, payload),
      error: (payload) => this.#receiveError(payload),
      refused: (payload) => this.#unread(payload),
      missed: (count) => this.#events.emit('missed', count),
      unreadable: (reason) => this.#events.emit('unreadable', reason),
      taken: (id) => this.#outbox.markTaken(id),
      numbered: (id, place) => this.#outbox.markPlace(id, place),
      delivered: (id) => {
        this.#outbox.markDelivered(id);
        this.#events.emit('delivered', id);
      },
      void: (id, payload) => this.#outbox.markVoid(id, payload),
      resumed: () => this.#resumed(),
      restarted: () => this.#restarted(),
      store: () => this.#kept.save(),
      enrolled: () => this.#enrolled(),
    };
    if (this.#kept.isKept || keep) {
      handlers.keep = async () => {
        await keep?.();
        await this.#kept.save();
        return this.#channel.boots;
      };
    }
    if (!this.#pairing.a) {
      const secret = this.#pairing.k ? readSecret(this.#pairing.k) : null;
      return new Channel(url, { token: this.#pairing.token, secret, plainAllowed: plain }, this.#support, handlers, boots);
    }
    // A link that is made for devices is good for nothing less.
    if (!this.#device) return refusedChannel(this.#support === 'ok' ? 'lost' : this.#support);
    return new DeviceChannel(url, this.#pairing, this.#device, name, handlers, boots, platform);
  }

  // The agent has let this device in: its link is worth nothing any more.
  #enrolled() {
    const { url, token, a } = this.#pairing;
    this.#pairing = { url, token, a };
    this.#outbox.hasResumed = true;
    this.#events.emit('enrolled');
  }

  #stateToKeep() {
    const { hasResumed } = this.#outbox;
    return {
      v: 1,
      pairing: this.#pairing,
      device: this.#device ? (this.#channel?.kept ?? this.#device) : null,
      boots: hasResumed ? this.#channel?.boots : undefined,
      outbox: this.#outbox.kept,
    };
  }

  // ---- The connection ----

  #changed() {
    const channel = this.#channel;
    if (!channel || this.#isClosed) return;
    const { connection, agentOnline, security } = channel;
    if (security.name === 'verified' && !channel.resumes && this.#outbox.hasResumed) {
      this.#outbox.failUnconfirmed();
      this.#interrupt();
    }
    if (connection.name !== 'open') this.#outbox.recall();
    if (!this.#outbox.hasResumed && !agentOnline) this.#interrupt();
    this.#tell();
    this.#outbox.flush();
  }

  #tell() {
    const { state } = this;
    const told = JSON.stringify(state);
    if (told !== this.#told) this.#events.emit('state', state);
    this.#told = told;
  }

  // Nobody goes on with what is under way.
  #interrupt() {
    const error = () => new AskError('INTERRUPTED', 'The connection to the agent broke off');
    for (const answer of [...this.#open]) {
      if (answer.text || this.#outbox.hasArrived(answer.id)) this.#over(answer, () => answer.fail(error()));
    }
  }

  #resumed() {
    this.#outbox.hasResumed = true;
    this.#begun = this.#open.filter((answer) => answer.text || this.#outbox.isDelivered(answer.id));
  }

  #restarted() {
    const error = () => new AskError('AGENT_RESTARTED', 'The agent was restarted and did not finish this');
    for (const answer of this.#begun.filter((one) => this.#open.includes(one))) this.#over(answer, () => answer.fail(error()));
    this.#begun = [];
  }

  // ---- What arrives ----

  #receive(type, payload) {
    const { ref } = payload;
    const request = this.#requests.get(ref);
    if (request?.type === type) return request.resolve(payload);
    if (type === 'chat.error' && request) return request.reject(errorOf(payload));
    if (this.#cancelled.includes(ref) && type.startsWith('chat.')) return undefined;
    if (type === 'chat.stream') return this.#receiveDelta(payload);
    if (type === 'chat.done') return this.#receiveDone(payload);
    if (type === 'chat.error') return this.#receiveAgentError(payload);
    if (type === 'chat.tool_status') return this.#events.emit('activity', payload, this.#find(ref) ?? null);
    if (type === 'chat.ask') return this.#receiveAsk(payload);
    if (type === 'chat.answered') return this.#asked.get(payload.ask)?.close(payload);
    return this.#events.emit('message', type, payload);
  }

  // Answers come in the order of their questions where they do not say what they answer.
  #find(ref) {
    return typeof ref === 'string' ? this.#open.find(({ id }) => id === ref) : this.#open[0];
  }

  // An agent speaks first, or goes on with what an earlier process has asked.
  #findOrBegin({ ref, chat_id: chatId }) {
    const found = this.#find(ref);
    if (found) return found;
    const answer = new Answer(typeof ref === 'string' ? ref : newId(), chatId, () => this.#cancel(answer));
    this.#open.push(answer);
    this.#events.emit('answer', answer);
    return answer;
  }

  #over(answer, end) {
    this.#open = this.#open.filter((one) => one !== answer);
    end();
  }

  #receiveDelta(payload) {
    const { delta, seq, ref } = payload;
    if (typeof delta !== 'string') return;
    // An answer begins at 1: one without a `ref` that was before it has ended without a word.
    const before = this.#find(ref);
    if (typeof ref !== 'string' && before?.text && seq === 1) this.#over(before, () => before.end({}));
    this.#findOrBegin(payload).add(delta);
  }

  #receiveDone(payload) {
    if (!this.#find(payload.ref) && typeof payload.full_text !== 'string') return;
    const answer = this.#findOrBegin(payload);
    this.#over(answer, () => answer.end(payload));
  }

  #receiveAgentError(payload) {
    const answer = this.#find(payload.ref);
    if (answer) return this.#over(answer, () => answer.fail(errorOf(payload)));
    return this.#events.emit('error', errorOf(payload));
  }

  // In clear it is the relay's word, or anybody's on the way; without encryption it may be the agent's.
  #receiveError(payload) {
    const isPlain = this.#channel.security.name === 'plain';
    if (isPlain && payload.code === 'BACKEND_ERROR') return this.#receiveAgentError(payload);
    // Its keys have changed since: with version 1 nothing else says so.
    if (payload.code === 'DECRYPTION_FAILED' && !this.#pairing.k && !this.#pairing.a) return this.#unread(payload);
    if (this.#outbox.receiveRefusal(payload) || payload.code === 'PEER_OFFLINE') return undefined;
    return this.#events.emit('error', errorOf(payload));
  }

  // The agent could not read what was sent: it goes out again, once.
  #unread(payload) {
    this.#outbox.receiveUnread(payload);
    this.#outbox.flush();
  }

  #receiveAsk(payload) {
    const { ask, text } = payload;
    if (typeof ask !== 'string' || typeof text !== 'string') return;
    const known = this.#asked.get(ask);
    if (known) return known.repeat();
    const question = new Question(payload, (given) => this.send('chat.answer', given));
    this.#asked.set(ask, question);
    if (this.#asked.size > KNOWN_MAX) this.#asked.delete(this.#asked.keys().next().value);
    this.#events.emit('question', question, this.#find(payload.ref) ?? null);
  }

  // ---- Ends ----

  #cancel(answer) {
    this.#open = this.#open.filter((one) => one !== answer);
    if (this.#isClosed || this.#outbox.withdraw(answer.id)) return;
    this.#cancelled = [...this.#cancelled, answer.id].slice(-KNOWN_MAX);
    this.send('chat.cancel', answer.chatId === undefined ? {} : { chat_id: answer.chatId });
  }

  #fail(id, error) {
    this.#requests.get(id)?.reject(error);
    const answer = this.#open.find((one) => one.id === id);
    if (answer) this.#over(answer, () => answer.fail(error));
  }
}

function errorOf({ code, message, retry_after_ms: wait }) {
  return new AskError(String(code), String(message ?? code), wait);
}

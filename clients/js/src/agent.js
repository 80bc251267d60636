// An agent: what answers the phone of a pairing. One answer in a conversation at a time; a new question or `chat.cancel` ends
// the one before it.

import { Refused, fromBase64, readSecret, support } from '../../../src/phone/crypto.js';
import { newId } from '../../../src/phone/relay.js';
import { AgentChannel } from './agent-channel.js';
import { Events } from './events.js';
import { parseLink } from './pairing.js';

// Pieces of an answer are put together for so long, and are at most so long.
const PIECE_MS = 40;
const PIECE_CHARACTERS_MAX = 4_096;
// A longer answer that comes whole is not said twice.
const ALONE_CHARACTERS_MAX = 65_536;
const CHATS_MAX = 64;
const CHAT_CHARACTERS_MAX = 256;
const IMAGES_MAX = 16;
const OPTIONS_MAX = 12;
const ASKS_MAX = 16;

export class Agent {
  #events = new Events();
  #channel = null;
  #answer;
  #name;
  #isClosed = false;
  #since = Date.now();
  // By conversation: what stops its answer.
  #running = new Map();
  // Questions to the person that are open: ask to { payload, resolve }.
  #asked = new Map();
  // Whether the phone shows questions, as it said last.
  #asks = false;

  // link: a pairing link; answer(question): returns a text, or what can be iterated for its pieces
  constructor(link, { answer, name = 'Agent' }) {
    const { url, token, k } = parseLink(link);
    this.#answer = answer;
    this.#name = name;
    const handlers = {
      change: () => this.#changed(),
      message: (type, id, payload) => this.#receive(type, id, payload),
      error: (payload) => payload.code !== 'PEER_OFFLINE' && this.#events.emit('error', payload),
      missed: (count) => this.#events.emit('missed', count),
    };
    this.opened = support().then((can) => {
      if (can !== 'ok') throw new Refused('There is no X25519 here: import @coralmux/client/noble');
      if (this.#isClosed) return;
      this.#channel = new AgentChannel(url, { token, secret: k ? readSecret(k) : null }, handlers);
      this.#channel.start();
    });
    this.opened.catch((error) => this.#events.emit('error', error));
  }

  on(name, listener) {
    return this.#events.on(name, listener);
  }

  get state() {
    const { connection, phoneOnline = false, version = 0, fingerprint } = this.#channel ?? {};
    return { connection: connection?.name ?? 'stopped', why: connection?.why, phoneOnline, version, fingerprint };
  }

  // Speaks without having been asked. Returns whether it is on its way.
  say(text, { chatId } = {}) {
    const about = { ref: newId(), unasked: true, ...(chatId !== undefined && { chat_id: chatId }) };
    return this.#channel?.send('chat.done', { full_text: text, ...about }) ?? false;
  }

  wake() {
    this.#channel?.wake();
  }

  close() {
    this.#isClosed = true;
    for (const running of this.#running.values()) running.abort();
    this.#channel?.stop();
  }

  #changed() {
    this.#events.emit('state', this.state);
    if (this.#channel.version && this.#channel.hasRoom) for (const { payload } of this.#asked.values()) this.#channel.send('chat.ask', payload);
  }

  // ---- What arrives ----

  #receive(type, id, payload) {
    const reply = (result) => this.#channel.send(`${type}.result`, { ...result, ref: id });
    const chatId = payload.chat_id;
    if (type === 'chat.send') this.#receiveQuestion(id, payload);
    else if (type === 'chat.cancel') this.#running.get(chatId)?.abort();
    else if (type === 'chat.answer') this.#receiveAnswer(id, payload);
    else if (type === 'agent.list') reply({ agents: [{ id: 'default', name: this.#name, status: 'online' }] });
    else if (type === 'system.status') {
      reply({ status: 'ok', name: this.#name, uptime_sec: Math.floor((Date.now() - this.#since) / 1_000), running: this.#running.size });
    } else this.#events.emit('message', type, payload, id);
  }

  #refuse(ref, message, chatId) {
    this.#channel.send('chat.error', { code: 'BACKEND_ERROR', message, ref, ...(typeof chatId === 'string' && { chat_id: chatId }) });
  }

  #receiveQuestion(id, { text = '', images = [], chat_id: chatId, asks }) {
    const isRight = typeof text === 'string' && Array.isArray(images) && images.length <= IMAGES_MAX && (text || images.length);
    if (!isRight) return this.#refuse(id, 'The question has neither a text nor images that can be read', chatId);
    if (chatId !== undefined && (typeof chatId !== 'string' || chatId.length > CHAT_CHARACTERS_MAX)) return this.#refuse(id, 'The conversation has no name that can be read');
    let pictures;
    try {
      pictures = images.map(({ mime, data }) => ({ mime: typeof mime === 'string' ? mime : 'image/jpeg', data: fromBase64(data) }));
    } catch {
      return this.#refuse(id, 'An image of the question is not base64', chatId);
    }
    this.#asks = asks === 1;
    const before = this.#running.get(chatId);
    before?.abort();
    if (!before && this.#running.size >= CHATS_MAX) return this.#refuse(id, 'Too many conversations are being answered', chatId);
    const running = new AbortController();
    this.#running.set(chatId, running);
    const question = { id, text, images: pictures, chatId, signal: running.signal };
    question.ask = (asked, options) => this.#ask(question, asked, options);
    question.activity = (activity) => this.#channel.send('chat.tool_status', { status: 'running', ...activity, ...aboutOf(question) });
    // The one before says its end first.
    running.over = Promise.resolve(before?.over).then(() => this.#run(question, running));
    return undefined;
  }

  // ---- Answering ----

  async #run(question, running) {
    const about = aboutOf(question);
    const { signal } = running;
    let whole = '';
    let piece = '';
    let seq = 0;
    let timer;
    const flush = () => {
      clearTimeout(timer);
      timer = undefined;
      // A phone that is away makes the pieces grow, and nothing wait.
      if (!piece || !this.#channel.hasRoom) return;
      this.#channel.send('chat.stream', { delta: piece, seq: (seq += 1), ...about });
      piece = '';
    };
    const stopped = new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    try {
      if (!signal.aborted) {
        const given = await Promise.race([this.#answer(question), stopped]);
        if (typeof given === 'string') whole = piece = given;
        else if (given && !signal.aborted) {
          const pieces = (given[Symbol.asyncIterator] ?? given[Symbol.iterator]).call(given);
          for (;;) {
            const next = await Promise.race([pieces.next(), stopped]);
            if (!next || next.done) {
              if (!next) Promise.resolve(pieces.return?.()).catch(() => {});
              break;
            }
            whole += next.value;
            piece += next.value;
            if (piece.length >= PIECE_CHARACTERS_MAX) flush();
            else timer ??= setTimeout(flush, PIECE_MS);
          }
        }
      }
      // Some phones show the pieces alone.
      if (seq || whole.length <= ALONE_CHARACTERS_MAX) flush();
      this.#channel.send('chat.done', { full_text: whole, ...(signal.aborted && { cancelled: true }), ...about });
    } catch (error) {
      this.#events.emit('error', error);
      this.#refuse(question.id, 'The agent failed', question.chatId);
    } finally {
      clearTimeout(timer);
      if (this.#running.get(question.chatId) === running) this.#running.delete(question.chatId);
      this.#withdraw(question);
    }
  }

  // ---- Questions to the person ----

  // Resolves to the id of an option, to a text, or to null where nobody answers.
  #ask(question, text, { options = [], free = options.length === 0, default: fallback, timeoutMs } = {}) {
    if (!this.#asks || this.#asked.size >= ASKS_MAX || question.signal.aborted) return Promise.resolve(fallback ?? null);
    const listed = options.slice(0, OPTIONS_MAX).map((option) => (typeof option === 'string' ? { id: option, label: option } : option));
    const payload = { ask: newId().replace(/-/g, ''), text, options: listed, free, ...aboutOf(question) };
    if (fallback !== undefined) payload.default = fallback;
    if (timeoutMs) payload.expires_at = Date.now() + timeoutMs;
    return new Promise((resolve) => {
      const asked = { payload, question, resolve };
      if (timeoutMs) asked.timer = setTimeout(() => this.#close(asked, { outcome: 'expired', ...(fallback !== undefined && { option: fallback }) }, fallback ?? null), timeoutMs);
      this.#asked.set(payload.ask, asked);
      this.#channel.send('chat.ask', payload);
    });
  }

  #receiveAnswer(id, { ask, option, text, chat_id: chatId }) {
    const asked = this.#asked.get(ask);
    if (!asked) return this.#channel.send('chat.answered', { ask, outcome: 'unknown', ...(typeof chatId === 'string' && { chat_id: chatId }) });
    const { options, free } = asked.payload;
    if (options.some((one) => one.id === option)) return this.#close(asked, { outcome: 'answered', option }, option);
    if (free && typeof text === 'string') return this.#close(asked, { outcome: 'answered', text }, text);
    return this.#refuse(id, 'This is no answer to the question', chatId);
  }

  #close(asked, outcome, given) {
    clearTimeout(asked.timer);
    const { ask } = asked.payload;
    if (!this.#asked.delete(ask)) return;
    this.#channel.send('chat.answered', { ask, ...outcome, ...aboutOf(asked.question) });
    asked.resolve(given);
  }

  #withdraw(question) {
    for (const asked of [...this.#asked.values()]) if (asked.question === question) this.#close(asked, { outcome: 'cancelled' }, null);
  }
}

function aboutOf({ id, chatId }) {
  return { ref: id, ...(chatId !== undefined && { chat_id: chatId }) };
}

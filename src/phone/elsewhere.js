// What was said elsewhere: on another device, or before this one was there to hear it.

import { newId } from './relay.js';
import { finishText, plainText } from './words.js';

const TURNS_MAX = 200;
const NOTICE_MAX = 300;
const SPOKEN_MAX = 300;

export class Elsewhere {
  #handlers;
  // The request for what the agent remembers; 'due' before it is made.
  #asked = null;

  // handlers: send(type, payload, id): resolves to whether it leaves; nameOf(device); has(message): whether the same is there
  // already; show(message), shown(): all that there is to show; keep(message): with the next one that is; announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
  }

  clear() {
    this.#asked = null;
  }

  // Something is not here that the agent may remember.
  miss() {
    this.#asked ??= 'due';
  }

  // The agent can be asked now.
  async ask() {
    if (this.#asked !== 'due') return;
    const id = newId();
    this.#asked = id;
    const isOut = await this.#handlers.send('chat.history', { limit: TURNS_MAX }, id);
    if (!isOut && this.#asked === id) this.#asked = 'due';
  }

  // Returns whether the message was one about what was said elsewhere.
  receive(type, payload) {
    if (type === 'chat.turn') this.#receiveTurn(payload);
    else if (type === 'chat.history.result') this.#receiveHistory(payload);
    else return false;
    return true;
  }

  #receiveTurn({ text, images, ref, from }) {
    if (typeof text !== 'string') return;
    const name = this.#handlers.nameOf(from) || 'another device';
    const message = { role: 'me', text, time: Date.now(), state: 'sent', isElsewhere: true, from: name };
    if (typeof ref === 'string') message.id = ref;
    this.#take(message, images);
    this.#handlers.announce(`From ${name}: ${text.slice(0, SPOKEN_MAX)}`);
  }

  #receiveHistory({ messages, ref }) {
    if (!this.#asked || ref !== this.#asked || !Array.isArray(messages)) return;
    this.#asked = null;
    for (const { role, text, ts, images, finish, notice } of messages.filter((one) => typeof one?.text === 'string').slice(-TURNS_MAX)) {
      const time = Number.isSafeInteger(ts) ? ts : Date.now();
      const message = role === 'user' ? { role: 'me', text, time, state: 'sent', isElsewhere: true } : { role: 'agent', text, time, state: 'done' };
      if (this.#handlers.has(message)) continue;
      if (typeof finish === 'string') message.remark = plainText(notice, NOTICE_MAX) || finishText(finish);
      this.#take(message, images);
    }
    this.#handlers.shown();
  }

  #take(message, images) {
    if (images > 0) message.remark = images === 1 ? 'With one image' : `With ${images} images`;
    this.#handlers.show(message);
    this.#handlers.keep(message);
  }
}

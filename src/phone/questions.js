// What the agent asks the person (PROTOCOL.md, Questions to the person): kept in the answer that waits for it, answered once.

import { newId } from './relay.js';
import { BIDI, plainText } from './words.js';

const QUESTION_CHARACTERS_MAX = 4_000;
const LABEL_CHARACTERS_MAX = 100;
const OPTIONS_MAX = 12;

export class Questions {
  #handlers;
  // By their names: { answer, asked }
  #known = new Map();

  // handlers: answerFor(ref): the answer that waits, show(answer), asked(answer), keep(answer), announce(text),
  // send(type, payload, id): resolves to whether it is on its way
  constructor(handlers) {
    this.#handlers = handlers;
  }

  clear() {
    this.#known.clear();
  }

  // What an earlier page kept.
  restore(answers) {
    for (const answer of answers) for (const asked of answer.asked ?? []) this.#known.set(asked.ask, { answer, asked });
  }

  receive(type, payload) {
    if (type === 'chat.ask') this.#receiveAsk(payload);
    else this.#receiveAnswered(payload);
  }

  #receiveAsk({ ask, text, options, free, ref, chat_id: chatId }) {
    if (typeof ask !== 'string' || typeof text !== 'string') return;
    const known = this.#known.get(ask);
    if (known) {
      // It did not get the answer.
      if (known.asked.given) this.answer(known.asked, known.asked.given);
      return;
    }
    const listed = Array.isArray(options) ? options.slice(0, OPTIONS_MAX) : [];
    const choices = listed
      .filter((option) => typeof option?.id === 'string')
      .map(({ id, label }) => ({ id, label: plainText(label, LABEL_CHARACTERS_MAX) || plainText(id, LABEL_CHARACTERS_MAX) }));
    const asked = { ask, text: text.slice(0, QUESTION_CHARACTERS_MAX).replace(BIDI, ''), choices };
    if (free === true) asked.free = true;
    if (typeof chatId === 'string') asked.chatId = chatId;
    const answer = this.#handlers.answerFor(ref);
    (answer.asked ??= []).push(asked);
    this.#known.set(ask, { answer, asked });
    this.#show(answer);
    this.#handlers.asked(answer);
    this.#handlers.announce(`The agent asks: ${asked.text}`);
  }

  // given: { option } or { text }
  async answer(asked, given) {
    const { answer } = this.#known.get(asked.ask) ?? {};
    if (!answer || asked.outcome) return;
    asked.given = given;
    this.#show(answer);
    const payload = { ask: asked.ask, ...given };
    if (asked.chatId !== undefined) payload.chat_id = asked.chatId;
    if (await this.#handlers.send('chat.answer', payload, newId())) return;
    // The buttons are there again.
    delete asked.given;
    this.#show(answer);
  }

  #receiveAnswered({ ask, outcome, option, text, notice }) {
    const { answer, asked } = this.#known.get(ask) ?? {};
    if (!asked) return;
    const label = asked.choices.find(({ id }) => id === option)?.label ?? plainText(text, LABEL_CHARACTERS_MAX);
    if (outcome === 'answered') asked.outcome = isOwn(asked.given, option, text) ? label || 'Answered' : `Answered elsewhere${label && `: ${label}`}`;
    else if (outcome === 'expired') asked.outcome = `Not answered in time${label && `: ${label}`}`;
    else asked.outcome = plainText(notice, 200) || 'Not asked any more';
    delete asked.given;
    this.#show(answer);
  }

  #show(answer) {
    this.#handlers.show(answer);
    this.#handlers.keep(answer);
  }
}

// Whether the answer that counts is the one that was given here.
function isOwn(given, option, text) {
  if (typeof option !== 'string' && typeof text !== 'string') return true;
  return given?.option === undefined ? given?.text?.trim() === text?.trim() && typeof text === 'string' : given.option === option;
}

// A question of the agent to the person, answered once.

const OPTIONS_MAX = 12;

export class Question {
  outcome = undefined;
  #send;
  #given = null;
  #over;

  constructor({ ask, text, options, free, default: fallback, expires_at: expiresAt, chat_id: chatId, ref, call_id: callId }, send) {
    const listed = Array.isArray(options) ? options.slice(0, OPTIONS_MAX) : [];
    Object.assign(this, { ask, text, chatId, ref, callId, expiresAt, default: fallback, free: free === true });
    this.options = listed.filter((option) => typeof option?.id === 'string').map(({ id, label, kind }) => ({ id, label: String(label ?? id), kind }));
    this.#send = send;
    // Resolves when it is over: { outcome, option, text, notice }.
    this.over = new Promise((resolve) => (this.#over = resolve));
  }

  // given: the `id` of an option, or { option } or { text }
  reply(given) {
    if (this.outcome) return;
    this.#given = typeof given === 'string' ? { option: given } : given;
    this.repeat();
  }

  // The agent asks again: it did not get the answer.
  repeat() {
    if (!this.#given || this.outcome) return;
    this.#send({ ask: this.ask, ...this.#given, ...(typeof this.chatId === 'string' && { chat_id: this.chatId }) });
  }

  close({ outcome, option, text, notice }) {
    if (this.outcome) return;
    this.outcome = String(outcome);
    this.#over({ outcome: this.outcome, option, text, notice });
  }
}

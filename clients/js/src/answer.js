// One answer of the agent: its pieces as they come, its end, and what went wrong.

// Why there is no answer, or none to its end. `code` is the relay's, the agent's, or one of
//   'CLOSED'           the phone was closed
//   'UNKNOWN'          it is not known whether the agent has the question
//   'INTERRUPTED'      the connection to the agent broke off
//   'AGENT_RESTARTED'  the agent was restarted, and will not finish
export class AskError extends Error {
  constructor(code, message, retryAfterMs) {
    super(message);
    this.name = 'AskError';
    this.code = code;
    if (retryAfterMs > 0) this.retryAfterMs = retryAfterMs;
  }
}

export class Answer {
  text = '';
  state = 'waiting';
  cancelled = false;
  // Why it is not complete, and the agent's words for that.
  finish = undefined;
  notice = undefined;
  error = undefined;
  #pieces = [];
  #done;
  #settle;
  #changed;
  #change;
  #stop;

  // id: of the question; stop(): takes the question back
  constructor(id, chatId, stop) {
    this.id = id;
    this.chatId = chatId;
    this.#stop = stop;
    this.#done = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    // Whoever reads it piece by piece hears of it there.
    this.#done.catch(() => {});
    this.#renew();
  }

  get isOver() {
    return this.state === 'done' || this.state === 'failed';
  }

  // The whole text; rejects with an `AskError`.
  then(fulfilled, rejected) {
    return this.#done.then(fulfilled, rejected);
  }

  catch(rejected) {
    return this.#done.catch(rejected);
  }

  finally(over) {
    return this.#done.finally(over);
  }

  // Its pieces, from the first one on. Leaving the loop does not cancel it.
  async *[Symbol.asyncIterator]() {
    for (let at = 0; ; ) {
      while (at < this.#pieces.length) yield this.#pieces[at++];
      if (this.state === 'failed') throw this.error;
      if (this.state === 'done') return;
      await this.#changed;
    }
  }

  // Tells the agent to stop. The text so far is the answer.
  cancel() {
    if (this.isOver) return;
    this.cancelled = true;
    this.#stop?.();
    this.end({});
  }

  // ---- For the phone ----

  add(delta) {
    if (this.isOver) return;
    this.state = 'streaming';
    this.text += delta;
    this.#pieces.push(delta);
    this.#renew();
  }

  // What was lost on the way is in the whole text.
  end({ full_text: whole, cancelled, finish, notice }) {
    if (this.isOver) return;
    if (typeof whole === 'string' && whole) {
      if (whole.startsWith(this.text) && whole !== this.text) this.#pieces.push(whole.slice(this.text.length));
      this.text = whole;
    }
    this.cancelled ||= cancelled === true;
    if (typeof finish === 'string') Object.assign(this, { finish, notice: typeof notice === 'string' ? notice : undefined });
    this.state = 'done';
    this.#settle.resolve(this.text);
    this.#renew();
  }

  fail(error) {
    if (this.isOver) return;
    Object.assign(this, { error, state: 'failed' });
    this.#settle.reject(error);
    this.#renew();
  }

  #renew() {
    this.#change?.();
    this.#changed = new Promise((resolve) => (this.#change = resolve));
  }
}

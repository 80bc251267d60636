// The answers that are under way: which question each belongs to, what of it has come, how it ended. It knows neither
// the screen nor the connection. What comes here has been read with the agent's keys (or the chat has none).

import { fromBase64 } from './crypto.js';
import { BIDI, finishText, plainText } from './words.js';

// Of an answer, this much is read out by a screen reader at once; the rest stands in the conversation.
const SPOKEN_CHARACTERS_MAX = 1_500;
const STATUS_CHARACTERS_MAX = 200;
const DETAIL_CHARACTERS_MAX = 4_000;
// Of an answer: what the agent did for it, and its files.
const STEPS_MAX = 32;
const FILES_MAX = 16;
const FILE_BYTES_MAX = 2_621_440;
const FILE_NAME_CHARACTERS_MAX = 100;
const NOTICE_CHARACTERS_MAX = 300;
// So many answers that broke off can go on.
const CUT_MAX = 10;

export class Answers {
  #handlers;
  // Oldest first; each has the id of its question as `ref`, where that is known.
  #open = [];
  #cut = [];
  // The newest answer, until the next question: an agent that gives no `ref` goes on with it.
  #last = null;
  // Those that the agent's process had begun, or may have, when the ends last met.
  #begun = [];

  // handlers: security(), show(answer), remove(answer), keep(answer), progress(answer), announce(text),
  // settled(): one is under way no more; answered(ref), failed(ref, text): the agent's own error, returns whether there is such a question; ended(ref, text)
  constructor(handlers) {
    this.#handlers = handlers;
  }

  get underWay() {
    return this.#open;
  }

  // The questions of which not a word has been answered.
  get unanswered() {
    return this.#open.filter((answer) => !answer.text).map(({ ref }) => ref);
  }

  // The answer that waits for a question to the person.
  waiting(ref) {
    const answer = this.#find(ref) ?? this.#begin(ref);
    delete answer.isUnseen;
    return answer;
  }

  // What an earlier page kept, oldest first.
  restore(messages) {
    this.#open = messages.filter(({ role, state }) => role === 'agent' && state === 'streaming');
    this.#cut = messages.filter(({ role, state }) => role === 'agent' && state === 'cut').slice(-CUT_MAX);
    if (this.#cut.length && messages.at(-1) === this.#cut.at(-1)) this.#last = this.#cut.at(-1);
  }

  clear() {
    this.#open = [];
    this.#cut = [];
    this.#begun = [];
    this.#last = null;
  }

  has(ref) {
    return this.#open.some((answer) => answer.ref === ref);
  }

  // A question went out. Nothing is shown of its answer until the relay has it.
  expect(ref) {
    const answer = this.#start(ref);
    answer.isUnseen = true;
    this.#handlers.show(answer);
  }

  // The question has got as far as the relay, or further: three dots show that the agent thinks, until its first word.
  await(ref) {
    const answer = this.#open.find((one) => one.ref === ref);
    if (!answer?.isUnseen) return;
    delete answer.isUnseen;
    this.#handlers.show(answer);
    this.#handlers.announce('The agent is answering');
  }

  // The person wants no more of them.
  stop() {
    for (const answer of this.#open) answer.isStopped = true;
  }

  // The question was not delivered: its dots go.
  retract(ref) {
    const answer = this.#open.find((one) => one.ref === ref);
    if (answer && !answer.text) this.#drop(answer);
  }

  // The agent or the connection is gone: no more comes, or it comes whole later.
  interrupt() {
    for (const answer of [...this.#open]) {
      if (answer.text) this.#end(answer, 'cut', 'The connection to the agent broke off');
      else this.#drop(answer);
    }
  }

  // The connection to the agent is away, or back: what is under way goes on by itself.
  pause(isPaused) {
    for (const answer of this.#open) {
      if (Boolean(answer.isPaused) === isPaused) continue;
      if (isPaused) answer.isPaused = true;
      else delete answer.isPaused;
      this.#handlers.show(answer);
    }
  }

  // The ends have met: `has(ref)` says whether the agent has a question.
  meet(has) {
    this.#begun = this.#open.filter((answer) => answer.text || has(answer.ref));
  }

  // The agent's process turns out to be another one: what the one before was answering has ended with it.
  restarted(text) {
    for (const answer of this.#begun.filter((one) => this.#open.includes(one))) {
      if (answer.text) this.#end(answer, 'cut', text);
      else {
        this.#drop(answer);
        this.#handlers.ended(answer.ref, text);
      }
    }
    this.#begun = [];
  }

  receive(type, payload) {
    if (type === 'chat.stream') this.#receiveDelta(payload);
    else if (type === 'chat.done') this.#receiveDone(payload);
    else if (type === 'chat.tool_status') this.#receiveStatus(payload);
    else if (type === 'chat.file') this.#receiveFile(payload);
  }

  // The agent's own error. Without a word of the answer it is the question that shows it. Returns whether it was shown.
  fail(ref, text) {
    const answer = this.#find(ref);
    if (answer?.text) {
      this.#end(answer, 'cut', text);
      return true;
    }
    if (answer) this.#drop(answer);
    return this.#handlers.failed(typeof ref === 'string' ? ref : answer?.ref, text);
  }

  #start(ref) {
    const answer = { role: 'agent', text: '', time: Date.now(), state: 'streaming', security: this.#handlers.security() };
    if (ref !== undefined) answer.ref = ref;
    this.#open.push(answer);
    this.#last = answer;
    return answer;
  }

  // Answers come in the order of their questions where they do not say what they answer.
  #find(ref) {
    return typeof ref === 'string' ? this.#open.find((answer) => answer.ref === ref) : this.#open[0];
  }

  // An answer that broke off here goes on.
  #resume(ref) {
    const found = typeof ref === 'string' ? this.#cut.find((answer) => answer.ref === ref) : this.#last;
    if (found?.state !== 'cut') return undefined;
    this.#cut = this.#cut.filter((one) => one !== found);
    found.state = 'streaming';
    delete found.error;
    this.#open.push(found);
    return found;
  }

  #begin(ref) {
    return this.#start(typeof ref === 'string' ? ref : undefined);
  }

  #drop(answer) {
    this.#open = this.#open.filter((one) => one !== answer);
    this.#handlers.remove(answer);
    this.#handlers.settled();
  }

  #end(answer, state, error) {
    this.#open = this.#open.filter((one) => one !== answer);
    for (const field of ['doing', 'call', 'isPaused', 'isUnseen', 'isStopped']) delete answer[field];
    if (error) answer.error = error;
    answer.state = state;
    if (state === 'cut') this.#cut = [...this.#cut, answer].slice(-CUT_MAX);
    this.#handlers.show(answer);
    this.#handlers.keep(answer);
    const spoken = `Agent: ${answer.text.slice(0, SPOKEN_CHARACTERS_MAX)}${answer.remark ? ` (${answer.remark})` : ''}`;
    this.#handlers.announce(state === 'done' ? spoken : error);
    this.#handlers.settled();
  }

  #receiveDelta({ delta, seq, ref }) {
    if (typeof delta !== 'string') return;
    let answer = this.#find(ref);
    // An answer begins at 1: the one before it ended without a word.
    if (answer?.text && seq === 1) {
      this.#end(answer, 'done');
      answer = this.#find(ref);
    }
    if (!answer && seq > 1) answer = this.#resume(ref);
    answer ??= this.#begin(ref);
    if (Number.isSafeInteger(seq)) {
      // What was lost on the way comes with the whole text at the end.
      if (seq !== (answer.seq ?? 0) + 1) answer.gap = answer.text ? 'part' : 'beginning';
      answer.seq = seq;
    }
    answer.text += delta;
    delete answer.doing;
    delete answer.isUnseen;
    this.#handlers.answered(answer.ref);
    this.#handlers.show(answer);
    this.#handlers.progress(answer);
  }

  #receiveDone({ full_text: whole, cancelled, finish, notice, files, ref }) {
    let answer = this.#find(ref) ?? this.#resume(ref);
    if (!answer && typeof whole === 'string') answer = this.#begin(ref);
    if (!answer) return;
    if (typeof whole === 'string' && whole) {
      answer.text = whole;
      delete answer.gap;
    }
    const missing = Number.isSafeInteger(files) ? files - (answer.files?.length ?? 0) : 0;
    if (cancelled) answer.remark = answer.isStopped ? 'Stopped' : 'Stopped by your next message';
    else if (missing > 0) answer.remark = missing === 1 ? 'One file did not arrive' : `${missing} files did not arrive`;
    else if (!answer.text && !answer.files) answer.remark = 'The answer is empty';
    else if (typeof finish === 'string') {
      answer.remark = plainText(notice, NOTICE_CHARACTERS_MAX) || finishText(finish);
      // A refusal is all that there is to say.
      answer.isPart = finish !== 'refusal';
    }
    this.#handlers.answered(answer.ref);
    this.#end(answer, 'done');
  }

  // What cannot be read of a file is not there; the end of the answer says that it is missing.
  #receiveFile({ name, mime, data, ref }) {
    const called = plainText(name, FILE_NAME_CHARACTERS_MAX).replace(/[/\\]/g, '_');
    if (!called || typeof data !== 'string' || data.length > (FILE_BYTES_MAX * 4) / 3 + 4) return;
    let bytes;
    try {
      bytes = fromBase64(data);
    } catch {
      return;
    }
    const answer = this.waiting(ref);
    const files = answer.files ?? [];
    if (files.length >= FILES_MAX) return;
    answer.files = [...files, { name: called, type: String(mime), bytes }];
    this.#handlers.show(answer);
  }

  // A plan, a diff, or what the model thinks: kept, and folded. What it thinks goes on where it was.
  #addStep(answer, status, title, detail, call) {
    const text = detail.slice(0, DETAIL_CHARACTERS_MAX).replace(BIDI, '');
    const steps = answer.steps ?? [];
    const last = steps.at(-1);
    if (status === 'thinking' && last?.call === 'thinking') {
      const more = { ...last, detail: (last.detail + text).slice(-DETAIL_CHARACTERS_MAX) };
      answer.steps = [...steps.slice(0, -1), more];
      return;
    }
    const step = { call: status === 'thinking' ? 'thinking' : String(call ?? steps.length), title, detail: text };
    answer.steps = [...steps.filter((one) => status === 'thinking' || one.call !== step.call), step].slice(-STEPS_MAX);
  }

  #receiveStatus({ status, tool, message, detail, call_id: call = tool, ref }) {
    if (typeof detail === 'string' && detail.trim()) {
      const title = plainText(message, STATUS_CHARACTERS_MAX) || plainText(tool, STATUS_CHARACTERS_MAX);
      this.#addStep(this.waiting(ref), status, title || (status === 'thinking' ? 'Thinking' : 'What the agent did'), detail, call);
    }
    if (status === 'done' || status === 'error') {
      const answer = this.#find(ref);
      if (!answer || answer.call !== call) return;
      delete answer.doing;
      this.#handlers.show(answer);
      return;
    }
    const answer = this.waiting(ref);
    // Older agents say in `status` what they do.
    const text = message ?? tool ?? (status === 'running' ? '' : status);
    answer.doing = plainText(text, STATUS_CHARACTERS_MAX) || 'Working…';
    answer.call = call;
    this.#handlers.show(answer);
  }
}

// The conversation on the screen.

import { element, icon } from './dom.js';
import { Drawing } from './drawing.js';

const NEAR_END_PX = 80;
// Drawing gives way to the rest of the page after so long.
const DRAW_MS = 30;

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });

// Of an answer that did not come whole, while it streams and after.
const GAPS = {
  beginning: {
    now: 'The beginning is missing here; it comes when the answer is complete.',
    after: 'The beginning of this answer is missing.',
  },
  part: {
    now: 'A part is missing here; it comes when the answer is complete.',
    after: 'A part of this answer is missing.',
  },
};

function dayOf(time) {
  return new Date(time).toDateString();
}

function dayName(time) {
  const today = new Date();
  if (dayOf(time) === today.toDateString()) return 'Today';
  today.setDate(today.getDate() - 1);
  return dayOf(time) === today.toDateString() ? 'Yesterday' : calendar.format(time);
}

// What stands under a message, beside its time.
function stateOf(message) {
  switch (message.state) {
    case 'waiting':
      return { text: message.waits ?? 'Waits to be sent' };
    case 'sending':
      return { text: 'Sending…' };
    case 'failed':
      return { text: message.error ?? 'Not sent', bad: true, retry: message.role === 'me' };
    case 'cut':
      return { text: message.error ?? 'The answer broke off', bad: true };
    default:
      return { text: message.waits ?? message.remark ?? '', bad: message.isPart, ticks: message.ticks };
  }
}

// What is said of a message that has left, beside one tick and two.
const TICKS = ['', 'Sent', 'Delivered'];
const PAUSED = 'Interrupted. It goes on when the connection is back.';

export class Conversation {
  #scroller;
  #log;
  #items = new Map();
  #dirty = new Set();
  #handlers;
  #lastDay = '';
  #following = true;
  #lastTop = 0;
  #line = element('li', 'day new');

  // handlers: retry(message), follow(isAtEnd), answer(asked, given), act(message): shows what can be done with it,
  // more(message, place): draws what it has beside its text
  constructor(scroller, log, handlers) {
    this.#scroller = scroller;
    this.#log = log;
    this.#handlers = handlers;
    scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    // Images arrive, the keyboard opens: who was at the end stays there.
    const observer = new ResizeObserver(() => this.#following && this.toEnd());
    observer.observe(scroller);
    observer.observe(log);
  }

  get isEmpty() {
    return this.#items.size === 0;
  }

  clear() {
    this.#items.clear();
    this.#dirty.clear();
    this.#log.replaceChildren();
    this.#lastDay = '';
  }

  // Shows a message, new or changed. Changes within a frame are drawn once.
  show(message) {
    if (!this.#items.has(message)) this.#add(message);
    if (!this.#dirty.size) requestAnimationFrame(() => this.#draw());
    this.#dirty.add(message);
  }

  // Whether the same is there already.
  has({ role, text }) {
    return [...this.#items.keys()].some((one) => one.role === role && one.text === text);
  }

  // What was said before has come late: everything in its order.
  sort() {
    const messages = [...this.#items.keys()].sort((one, other) => one.time - other.time);
    this.clear();
    for (const message of messages) this.show(message);
  }

  // Draws a line above what is new, or takes it away.
  mark(message, count) {
    this.#line.remove();
    const item = this.#items.get(message)?.item;
    if (!item) return;
    this.#line.textContent = count === 1 ? 'One new message' : `${count} new messages`;
    item.before(this.#line);
  }

  isLast(message) {
    return this.#items.get(message)?.item === this.#log.lastElementChild;
  }

  remove(message) {
    this.#items.get(message)?.item.remove();
    this.#items.delete(message);
  }

  // Brings a message into view.
  goTo(message) {
    const item = this.#items.get(message)?.item;
    if (!item) return;
    this.#follow(false);
    item.scrollIntoView({ block: 'center' });
    item.tabIndex = -1;
    item.focus({ preventScroll: true });
  }

  toEnd() {
    this.#follow(true);
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    // Content that grows moves the end away; only people scroll up.
    if (atEnd || scrollTop < this.#lastTop) this.#follow(atEnd);
    this.#lastTop = scrollTop;
  }

  #follow(following) {
    if (following !== this.#following) this.#handlers.follow((this.#following = following));
  }

  #add(message) {
    if (dayOf(message.time) !== this.#lastDay) {
      this.#lastDay = dayOf(message.time);
      this.#log.append(element('li', 'day', dayName(message.time)));
    }
    const item = element('li', `message ${message.role}`);
    item.append(element('span', 'sr-only', { me: 'You', agent: 'Agent' }[message.role]));
    if (message.from) item.append(element('p', 'from', `From ${message.from}`));
    if (message.images?.length) item.append(pictures(message.images));
    const gap = element('p', 'doing');
    const body = element('div', 'body');
    const questions = element('div', 'questions');
    const doing = element('div');
    const more = element('div', 'more');
    const meta = element('div', 'meta');
    item.append(gap, body, more, questions, doing, meta);
    const drawing = message.role === 'agent' ? new Drawing(body) : null;
    this.#items.set(message, { item, gap, body, more, questions, doing, meta, drawing });
    this.#log.append(item);
    if (message.role === 'me') this.#follow(true);
  }

  // The newest first, for they are looked at. One that cannot be drawn does not keep the others from it.
  #draw() {
    const until = performance.now() + DRAW_MS;
    for (const message of [...this.#dirty].reverse()) {
      if (performance.now() > until) break;
      this.#dirty.delete(message);
      const shown = this.#items.get(message);
      try {
        if (shown) this.#fill(message, shown);
      } catch (error) {
        console.error(error);
        shown.body.textContent = message.text;
      }
    }
    if (this.#dirty.size) requestAnimationFrame(() => this.#draw());
    if (this.#following) this.toEnd();
  }

  #fill(message, shown) {
    const { item, gap, body, doing, meta, drawing } = shown;
    item.dataset.state = message.state;
    item.hidden = Boolean(message.isUnseen);
    if (message.unverified) item.dataset.unverified = '';
    const isStreaming = message.state === 'streaming';
    gap.textContent = GAPS[message.gap]?.[isStreaming ? 'now' : 'after'] ?? '';
    gap.hidden = !gap.textContent;
    if (drawing) drawing.show(message.text, !isStreaming);
    else if (body.textContent !== message.text) body.textContent = message.text;
    body.hidden = !body.hasChildNodes();
    if (message.steps || message.files) this.#handlers.more(message, shown.more);
    this.#fillQuestions(message.asked ?? [], isStreaming, shown);
    const what = message.isPaused ? PAUSED : message.doing;
    if (isStreaming && !message.text) doing.replaceChildren(dots(what));
    else if (isStreaming && what) doing.replaceChildren(element('p', 'doing', what));
    else doing.replaceChildren();
    doing.hidden = !doing.hasChildNodes();
    this.#fillMeta(message, meta);
  }

  // Drawn anew where something has changed only: the person may be writing an answer.
  #fillQuestions(asked, isOpen, shown) {
    const drawn = JSON.stringify([asked, isOpen]);
    if (drawn === (shown.asked ?? '[[],true]')) return;
    shown.asked = drawn;
    shown.questions.replaceChildren(...asked.map((one) => question(one, isOpen, (given) => this.#handlers.answer(one, given))));
  }

  #fillMeta(message, meta) {
    const { text, bad, retry, ticks } = stateOf(message);
    const time = element('time', '', clock.format(message.time));
    time.dateTime = new Date(message.time).toISOString();
    meta.replaceChildren(time);
    if (text) meta.append(element('span', bad ? 'bad' : '', text));
    if (ticks) {
      const mark = element('span', 'ticks');
      mark.dataset.ticks = ticks;
      mark.title = TICKS[ticks];
      mark.append(icon(`tick${ticks}`), element('span', 'sr-only', TICKS[ticks]));
      meta.append(mark);
    }
    if (message.text && message.role !== 'note' && message.state !== 'streaming') {
      const button = element('button', 'dots', '···');
      button.type = 'button';
      button.setAttribute('aria-label', 'What to do with this message');
      button.onclick = () => this.#handlers.act(message);
      meta.append(button);
    }
    if (retry) {
      const button = element('button', 'link', 'Send again');
      button.type = 'button';
      button.onclick = () => this.#handlers.retry(message);
      meta.append(button);
    }
  }
}

function question({ text, choices, free, given, outcome }, isOpen, answer) {
  const block = element('div', 'question');
  block.append(element('p', '', text));
  if (outcome || !isOpen) {
    block.append(element('p', 'doing', outcome ?? 'Not answered'));
    return block;
  }
  for (const { id, label } of choices) {
    const button = element('button', '', label);
    button.type = 'button';
    button.onclick = () => answer({ option: id });
    block.append(button);
  }
  if (free) {
    const form = element('form');
    const field = element('input');
    field.maxLength = 4_000;
    field.setAttribute('aria-label', 'Your answer');
    form.append(field, element('button', '', 'Answer'));
    form.onsubmit = (event) => {
      event.preventDefault();
      if (field.value.trim()) answer({ text: field.value });
    };
    block.append(form);
  }
  for (const control of block.querySelectorAll('button, input')) control.disabled = Boolean(given);
  return block;
}

function dots(doing) {
  const line = element('p', 'thinking');
  line.append(element('span'), element('span'), element('span'));
  if (doing) line.append(element('em', '', doing));
  return line;
}

function pictures(blobs) {
  const row = element('div', 'pictures');
  for (const [index, blob] of blobs.entries()) {
    const image = element('img');
    image.src = URL.createObjectURL(blob);
    image.alt = `Image ${index + 1} of ${blobs.length}, sent by you`;
    image.onload = () => URL.revokeObjectURL(image.src);
    row.append(image);
  }
  return row;
}

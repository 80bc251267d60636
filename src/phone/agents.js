// The list of the agents that this browser is paired with: whose chat is shown, and what is new in the others.

import { $, element } from './dom.js';
import { plainText } from './words.js';

const PREVIEW_CHARACTERS_MAX = 80;
// Of Markdown, which nobody reads in one line.
const MARKS = /[*_`#]+/g;

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const date = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

export class Agents {
  #handlers;

  // handlers: show(chat), add(): another agent
  constructor(handlers) {
    this.#handlers = handlers;
    $('add-agent').onclick = () => {
      $('agents').close();
      this.#handlers.add();
    };
  }

  open(chats, current) {
    this.#draw(chats, current);
    $('agents').showModal();
    $('agent-list').querySelector('[aria-current] ')?.focus();
  }

  // What it shows has changed.
  show(chats, current) {
    if ($('agents').open) this.#draw(chats, current);
  }

  #draw(chats, current) {
    const items = $('agent-list').children;
    for (const [at, chat] of chats.entries()) {
      const item = items[at] ?? $('agent-list').appendChild(newItem());
      this.#fill(item.firstChild, chat, chat === current);
    }
    while (items.length > chats.length) items[items.length - 1].remove();
  }

  // An item is changed and not made anew: somebody may be about to press it.
  #fill(button, chat, isShown) {
    const { name, last, unseen } = chat;
    if (isShown) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
    button.onclick = () => {
      $('agents').close();
      if (!isShown) this.#handlers.show(chat);
    };
    const said = last && (plainText(last.text.slice(0, 4 * PREVIEW_CHARACTERS_MAX).replace(MARKS, ''), PREVIEW_CHARACTERS_MAX) || (last.images?.length ? 'An image' : ''));
    const preview = said ? `${last.role === 'me' ? 'You: ' : ''}${said}` : 'Nothing was said yet';
    const isToday = last && new Date(last.time).toDateString() === new Date().toDateString();
    const texts = [name, last ? (isToday ? clock : date).format(last.time) : '', preview, unseen ? `${unseen > 99 ? '99+' : unseen} new` : ''];
    for (const [at, text] of texts.entries()) if (button.children[at].textContent !== text) button.children[at].textContent = text;
    button.lastChild.hidden = !unseen;
  }
}

function newItem() {
  const item = element('li');
  const button = element('button', 'agent-of');
  button.type = 'button';
  button.append(element('strong'), element('span', 'fine'), element('span', 'fine preview'), element('span', 'badge'));
  item.append(button);
  return item;
}

// Looks for words in a conversation, and writes all of it into a file.

import { element } from './dom.js';
import { sheet } from './sheet.js';

const FOUND_MAX = 50;
const AROUND = 60;

const when = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', hour: 'numeric', minute: '2-digit' });

export class Search {
  #handlers;
  #messages = [];
  #text = element('input');
  #count = element('p', 'fine');
  #list = element('ul', 'agents');
  #dialog;

  // handlers: goTo(message)
  constructor(handlers) {
    this.#handlers = handlers;
    Object.assign(this.#text, { id: 'search-text', type: 'search', placeholder: 'What to look for', autocomplete: 'off' });
    this.#text.setAttribute('aria-label', 'What to look for');
    Object.assign(this.#count, { id: 'search-count', role: 'status' });
    this.#list.id = 'search-list';
    this.#list.setAttribute('aria-label', 'Found');
    const field = element('div', 'field');
    field.append(this.#text);
    this.#dialog = sheet('search', 'Search', field, this.#count, this.#list);
    this.#text.oninput = () => this.#look();
    // The first one that was found.
    this.#text.onkeydown = (event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      this.#list.querySelector('button')?.click();
    };
  }

  // messages: of the conversation, oldest first
  open(messages) {
    this.#messages = messages;
    this.#look();
    this.#dialog.showModal();
    this.#text.select();
  }

  #look() {
    const wanted = this.#text.value.trim().toLowerCase();
    const found = [];
    if (wanted) {
      for (const message of this.#messages.toReversed()) {
        const at = message.role === 'note' ? -1 : message.text.toLowerCase().indexOf(wanted);
        if (at >= 0) found.push([message, at]);
        if (found.length > FOUND_MAX) break;
      }
    }
    const count = found.length > FOUND_MAX ? `The newest ${FOUND_MAX} messages` : found.length === 1 ? 'One message' : `${found.length} messages`;
    this.#count.textContent = wanted ? (found.length ? count : 'Nothing was found') : '';
    this.#list.replaceChildren(...found.slice(0, FOUND_MAX).map(([message, at]) => this.#item(message, at, wanted.length)));
  }

  #item(message, at, length) {
    const { text, role, time } = message;
    const button = element('button', 'agent-of');
    button.type = 'button';
    const from = Math.max(0, at - AROUND);
    const around = element('span', 'fine found', `${from ? '…' : ''}${text.slice(from, at)}`);
    around.append(element('mark', '', text.slice(at, at + length)), `${text.slice(at + length, at + length + AROUND)}`);
    button.append(element('strong', '', role === 'me' ? 'You' : 'Agent'), element('span', 'fine', when.format(time)), around);
    button.onclick = () => {
      this.#dialog.close();
      this.#handlers.goTo(message);
    };
    const item = element('li');
    item.append(button);
    return item;
  }
}

// The conversation as Markdown, for the person to store.
export function exportChat(name, messages) {
  const said = messages.filter(({ role }) => role !== 'note').map(({ role, text, time, images, files }) => {
    const beside = [...(images ?? []).map(() => '(image)'), ...(files ?? []).map((file) => `(file: ${file.name})`)];
    return `## ${role === 'me' ? 'You' : name}, ${new Date(time).toISOString()}\n\n${[text, ...beside].filter(Boolean).join('\n\n')}\n`;
  });
  const link = element('a');
  link.href = URL.createObjectURL(new Blob([`# ${name}\n\n${said.join('\n')}`], { type: 'text/markdown' }));
  link.download = `${name.replace(/[^\p{L}\p{N} -]+/gu, '').trim() || 'chat'}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

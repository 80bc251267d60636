// Tokens of Markdown, made into elements. Text only ever becomes text nodes: nothing that an agent sends is taken for
// HTML. Links go to web and mail addresses alone; images are links, so that looking at an answer loads nothing.

import { within } from './patience.js';

const COPY_MS = 2_000;
// One message has no more elements than this, and none is nested deeper.
const ELEMENTS_MAX = 20_000;
const INLINE_DEPTH_MAX = 40;

const PROTOCOLS = ['http:', 'https:', 'mailto:'];

export class TooMany extends Error {}

// Long runs of marks and words, laid out as one, would keep the page busy.
const RUN = /^[\p{M}\p{Cf}]|[\p{M}\p{Cf}]{32}|\S{500}/gu;
// Text is laid out in such parts.
export const CHUNK = 16_384;

// A text, with places to part it at. They are elements: the text stays what it was.
function partable(text) {
  const nodes = [];
  let from = 0;
  for (const { index, 0: run } of text.matchAll(RUN)) {
    nodes.push(text.slice(from, (from = index + run.length)), elementOf('wbr'));
  }
  return [...nodes, text.slice(from)];
}

function elementOf(name, ...children) {
  const made = document.createElement(name);
  put(made, ...children);
  return made;
}

function put(parent, ...children) {
  parent.append(...children.flatMap((child) => (child.at ? partable(child) : child)));
}

// Puts more behind a last text; returns the new last one.
export function grow(text, more) {
  const parent = text.parentNode;
  const [first, ...others] = partable(more);
  text.appendData(first);
  parent.append(...others);
  return parent.lastChild;
}

// What reads like an address: with a scheme, or with a name that has a dot in it.
const ADDRESS = /:\/\/|[^\s.。@]@[^\s.。]|[^\s.。][.。][^\s.。]{2,}/;

// A text that reads like another address than the link's is followed by where the link goes.
export function labelOf(label, target) {
  const { host, pathname, protocol } = new URL(target);
  const read = label.normalize('NFKC').trim().toLowerCase();
  if (!ADDRESS.test(read)) return label;
  if (protocol === 'mailto:') {
    const address = pathname.toLowerCase();
    return [address, `mailto:${address}`].includes(read) ? label : `${label} (${pathname})`;
  }
  const rest = [`${protocol}//${host}`, host].find((start) => read.startsWith(start));
  const honest = rest !== undefined && /^($|[/?#:])/.test(read.slice(rest.length)) && !read.includes('@');
  return honest ? label : `${label} (${host})`;
}

function mayLeadTo(target) {
  return URL.canParse(target) && PROTOCOLS.includes(new URL(target).protocol);
}

// Makes the elements of one message, block by block.
export class Builder {
  // The page has a heading of level 1.
  #level = 1;
  #elements = 0;

  // What was made stays counted; nothing that is made with the copy is.
  copy() {
    const copy = new Builder();
    copy.#level = this.#level;
    copy.#elements = this.#elements;
    return copy;
  }

  // The nodes of a list of tokens. Throws `TooMany`.
  build(tokens) {
    const top = document.createDocumentFragment();
    const open = [top];
    for (const token of tokens) {
      const parent = open.at(-1);
      if (token.type === 'inline') this.#inline(token.children, parent);
      else if (token.nesting < 0) open.pop();
      else if (token.hidden) open.push(parent);
      else {
        const [outer, inner] = this.#block(token);
        parent.append(outer);
        if (token.nesting > 0) open.push(inner);
      }
    }
    return top;
  }

  #make(name, ...children) {
    if ((this.#elements += 1) > ELEMENTS_MAX) throw new TooMany();
    return elementOf(name, ...children);
  }

  // A block, and what its content goes into.
  #block({ type, tag, attrs, content, info }) {
    if (type === 'fence' || type === 'code_block') return [this.#code(content.replace(/\n$/, ''), info)];
    if (type === 'plain') return [chunks(content)];
    if (type === 'table_open') return this.#table();
    // No level is left out on the way down: those who go from heading to heading count on it.
    if (type === 'heading_open') this.#level = Math.min(this.#level + 1, Number(tag[1]) + 1, 6);
    const made = this.#make(type === 'heading_open' ? `h${this.#level}` : tag);
    for (const [name, value] of attrs ?? []) {
      if (name === 'start') made.start = value;
      // A cell's place, the only style that there is.
      else if (name === 'style') made.className = value.slice(value.indexOf(':') + 1);
    }
    return [made, made];
  }

  #table() {
    const table = this.#make('table');
    const frame = scrolling(this.#make('div', table), 'Table');
    frame.className = 'table';
    return [frame, table];
  }

  #code(content, info = '') {
    const language = info.trim().split(/\s/)[0];
    const pre = scrolling(this.#make('pre', this.#make('code', content)), language ? `Code, ${language}` : 'Code');
    // Laid out in both directions, so many runs would keep the page busy.
    if (content.split(/[\u0590-\u08ff]+/).length > 5_000) pre.style.unicodeBidi = 'bidi-override';
    const block = this.#make('div', pre);
    block.className = 'code';
    if (!language && !navigator.clipboard) return block;
    const bar = this.#make('div', this.#make('span', language));
    bar.className = 'bar';
    if (navigator.clipboard) bar.append(copying(this.#make('button', 'Copy'), content));
    block.prepend(bar);
    return block;
  }

  #inline(tokens, parent) {
    const open = [parent];
    const targets = [];
    const add = (node) => put(open.at(-1), node);
    const item = itemOf(parent);
    for (const [index, token] of tokens.entries()) {
      const { type, tag, nesting, content } = token;
      if (type === 'link_open') targets.push(this.#openLink(token, 'href', open));
      else if (type === 'link_close') this.#closeLink(targets.pop(), open);
      else if (type === 'image') {
        const target = this.#openLink(token, 'src', open);
        add(token.children.map((part) => part.content).join('') || target.written);
        this.#closeLink(target, open);
      } else if (nesting > 0) {
        const made = open.length > INLINE_DEPTH_MAX ? open.at(-1) : this.#make(tag);
        if (made !== open.at(-1)) add(made);
        open.push(made);
      } else if (nesting < 0) open.pop();
      else if (type === 'code_inline') add(this.#make('code', content));
      else if (type === 'plain') add(chunks(content));
      else if (type === 'hardbreak') add(this.#make('br'));
      else if (type === 'softbreak') add('\n');
      else add(index === 0 && item ? this.#task(content, item, parent) : content);
    }
  }

  // A link, or a place for its text and for where it wanted to lead.
  #openLink({ attrs, markup }, name, open) {
    const written = new Map(attrs).get(name);
    const may = open.every(({ tagName }) => tagName !== 'A') && mayLeadTo(written);
    const made = this.#make(may ? 'a' : 'span');
    if (may) Object.assign(made, { href: written, target: '_blank', rel: 'noopener noreferrer' });
    open.at(-1).append(made);
    open.push(made);
    return { written, may, isBare: markup === 'autolink' };
  }

  #closeLink({ written, may, isBare }, open) {
    const made = open.pop();
    const text = made.textContent;
    if (may) put(made, labelOf(text, written).slice(text.length));
    else if (isBare) made.replaceChildren(...partable(`<${text}>`));
    else if (written && written !== text) put(made, ` (${written})`);
  }

  // The box of a task goes into `parent`; the text behind it.
  #task(content, item, parent) {
    const box = content.match(/^\[([ xX])\](?=\s)/);
    if (!box) return content;
    const made = Object.assign(this.#make('input'), { type: 'checkbox', disabled: true, defaultChecked: box[1] !== ' ' });
    made.setAttribute('aria-label', made.checked ? 'Done' : 'To do');
    item.className = 'task';
    parent.append(made);
    return content.slice(3);
  }
}

// The item of a list that begins with this block.
function itemOf(block) {
  if (block.firstChild) return null;
  const item = block.tagName === 'P' && !block.previousSibling ? block.parentNode : block;
  return item.tagName === 'LI' ? item : null;
}

// Text as it was written.
export function plain(text) {
  const made = elementOf('p', text);
  made.className = 'raw';
  return made;
}

function chunks(text) {
  const made = document.createDocumentFragment();
  for (let from = 0; from < text.length; from += CHUNK) made.append(plain(text.slice(from, from + CHUNK)));
  return made;
}

// What scrolls by itself has to be reached by keyboard.
function scrolling(made, label) {
  made.tabIndex = 0;
  made.setAttribute('role', 'group');
  made.setAttribute('aria-label', label);
  return made;
}

// Copies a text, and says whether it could.
export async function copyText(text) {
  try {
    await within(navigator.clipboard.writeText(text), COPY_MS);
    return 'Copied';
  } catch {
    return 'Not copied';
  }
}

function copying(copy, text) {
  copy.type = 'button';
  copy.className = 'copy';
  copy.onclick = async () => {
    copy.textContent = await copyText(text);
    setTimeout(() => (copy.textContent = 'Copy'), 1500);
  };
  return copy;
}

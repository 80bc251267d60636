// One message of an agent on the screen, drawn as it grows. The work is linear in the whole text, however small the pieces
// are: blocks that cannot change any more are settled and never read again; what follows is read again only when it has
// grown by a part of itself, and until then what is new stands behind it as it is.

import { Builder, CHUNK, TooMany, grow, plain } from './markdown.js';
import { parse } from './parse.js';
import { BIDI } from './words.js';

// What is beyond this is shown as it was written.
const FORMATTED_MAX = 200_000;
// What is not settled is read again when it has grown by a sixteenth of what exceeds this.
const CHEAP = 512;

// Elements that text may be put at the end of, and those that hold others.
const HOLDERS = ['DIV', 'UL', 'OL', 'LI', 'BLOCKQUOTE', 'TABLE', 'THEAD', 'TBODY', 'TR', 'PRE'];
const HEADINGS = ['H2', 'H3', 'H4', 'H5', 'H6'];
const LEAVES = ['P', 'LI', 'TD', 'TH', 'CODE', ...HEADINGS];

export class Drawing {
  #body;
  #text = '';
  // Up to where text is settled, has been read, may be formatted, and is shown as it is.
  #settled = 0;
  #read = 0;
  #end = Infinity;
  #plain = 0;
  // The nodes that are settled.
  #nodes = 0;
  #builder = new Builder();
  #references = Object.create(null);
  #hasDefinitions = false;
  // Holds what has come since the text was read.
  #rest = null;
  #restFrom = 0;
  #chunk = null;

  // How many characters have been read, each time counted.
  work = 0;

  constructor(body) {
    this.#body = body;
  }

  // Shows `text`, which is what was shown and more, until it is complete.
  show(text, isComplete) {
    if (text.length < this.#text.length || (isComplete && !text.startsWith(this.#text))) this.#restart();
    this.#text = text;
    try {
      this.#format(isComplete);
    } catch (error) {
      console.error(error);
      this.#restart();
      this.#end = 0;
    }
    this.#showPlain();
  }

  #restart() {
    this.#body.replaceChildren();
    this.#settled = this.#read = this.#plain = this.#nodes = 0;
    this.#end = Infinity;
    this.#builder = new Builder();
    this.#references = Object.create(null);
    this.#hasDefinitions = false;
    this.#rest = this.#chunk = null;
  }

  #format(isComplete) {
    const text = this.#text;
    if (text.length > FORMATTED_MAX && this.#end === Infinity) {
      this.#end = text.lastIndexOf('\n', FORMATTED_MAX - 1) + 1 || FORMATTED_MAX;
    }
    const to = Math.min(text.length, this.#end);
    const isLast = isComplete || to < text.length;
    const isNew = to > this.#read;
    if (isNew && !isLast && (to - this.#read) * 16 < this.#read - this.#settled - CHEAP) return this.#showRest(to);
    if (isNew || this.#rest) this.#readOn(to);
    // A link may be defined behind where it is used.
    if (isLast && this.#hasDefinitions && this.#settled) {
      const end = this.#end;
      this.#restart();
      this.#end = end;
      this.#readOn(to, false);
    }
  }

  #parse(text, references) {
    this.work += text.length;
    return parse(text, references);
  }

  // Reads what is not settled, up to `to`, and draws it anew.
  #readOn(to, maySettle = true) {
    const tail = this.#text.slice(this.#settled, to);
    const definitions = Object.create(this.#references);
    let blocks = this.#parse(tail, definitions);
    for (const _ in definitions) {
      this.#hasDefinitions = true;
      break;
    }
    this.#dropTail();
    try {
      if (maySettle) {
        const starts = linesOf(tail);
        const first = blocks.findLastIndex(({ line }) => line <= starts.length - 3);
        if (first > 0) this.#settle(tail.slice(0, starts[blocks[first].line]));
        if (first > 0) blocks = blocks.slice(first);
      }
      this.#body.append(this.#builder.copy().build(blocks.flatMap(({ tokens }) => tokens)));
      this.#read = to;
    } catch (error) {
      if (!(error instanceof TooMany)) throw error;
      this.#read = this.#end = this.#settled;
    }
  }

  // `text` is a number of whole blocks.
  #settle(text) {
    const starts = linesOf(text);
    const from = this.#settled;
    for (const { line, tokens } of this.#parse(text, this.#references)) {
      this.#settled = from + starts[line];
      this.#body.append(this.#builder.build(tokens));
      this.#nodes = this.#body.childNodes.length;
    }
    this.#settled = from + text.length;
  }

  #dropTail() {
    while (this.#body.childNodes.length > this.#nodes) this.#body.lastChild.remove();
    this.#rest = null;
  }

  #showRest(to) {
    if (!this.#rest) {
      this.#rest = document.createTextNode('');
      this.#restFrom = this.#read;
      const tail = this.#text.slice(this.#settled, this.#read);
      const written = tail.trimEnd();
      const gap = tail.slice(written.length);
      const leaf = leafFor(this.#body, gap, written.endsWith('|'));
      // What a block ends with is not drawn of it, and keeps it from what comes.
      if (leaf.hasChildNodes() && gap) leaf.append(gap.includes('\n') ? '\n' : ' ');
      leaf.append(this.#rest);
    }
    this.#rest = grow(this.#rest, this.#text.slice(this.#restFrom, to).replace(BIDI, ''));
    this.#restFrom = to;
  }

  // What is not formatted, in pieces that the browser can lay out one by one.
  #showPlain() {
    let from = Math.max(this.#end, this.#plain);
    while (from < this.#text.length) {
      const room = CHUNK - (this.#chunk?.parentNode.textContent.length ?? CHUNK);
      if (room <= 0) {
        const made = plain('');
        this.#body.append(made);
        made.append((this.#chunk = document.createTextNode('')));
        continue;
      }
      const to = from + room;
      this.#chunk = grow(this.#chunk, this.#text.slice(from, to).replace(BIDI, ''));
      this.#plain = from = Math.min(to, this.#text.length);
    }
  }
}

// Where each line of a text begins; the last one may have no end yet.
function linesOf(text) {
  const starts = [0];
  for (const { index, 0: end } of text.matchAll(/\r\n?|\n/g)) starts.push(index + end.length);
  return starts;
}

// The element that text is put at the end of: the last one that can take it. `gap` is the white space before the text, and
// `isCell` whether a cell of a table may begin with it.
function leafFor(body, gap, isCell) {
  let leaf = body.lastElementChild;
  for (let next = leaf; next; next = next.lastElementChild) {
    // In a line, code is not where the line goes on.
    if (next.tagName === 'CODE' && next.parentNode.tagName !== 'PRE') break;
    if (LEAVES.includes(next.tagName)) leaf = next;
    if (!HOLDERS.includes(next.tagName)) break;
  }
  // A row has all its cells, however few of them have come.
  if (!isCell && !gap.includes('\n')) while (leaf?.matches('td + td:empty')) leaf = leaf.previousElementSibling;
  const isOver = HEADINGS.includes(leaf?.tagName) ? gap.includes('\n') : leaf?.tagName !== 'CODE' && /\n\s*\n/.test(gap);
  return leaf && LEAVES.includes(leaf.tagName) && !isOver ? leaf : body.appendChild(document.createElement('p'));
}

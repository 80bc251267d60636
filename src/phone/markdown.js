// A little of Markdown, as agents write it, made into elements. Text only ever becomes text nodes: nothing that an agent
// sends is taken for HTML. Links go to http and https addresses alone.

import { BIDI } from './words.js';

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)\s*$/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const INLINE =
  /(`+)(?<code>[^`]|[^`].*?[^`])\1(?!`)|\*\*(?<bold>\S|\S.*?\S)\*\*|(?<![\w*])\*(?<italic>[^\s*]|[^\s*].*?[^\s*])\*(?![\w*])|\[(?<label>[^\][]+)\]\((?<target>https?:\/\/[^\s()]+)\)|(?<url>https?:\/\/[^\s<>"')\]]*[^\s<>"')\].,:;!?])/s;

// A longer paragraph is shown as it is: looking for marks in it would keep the page busy.
const INLINE_MAX = 20_000;

// Splits text into blocks: { kind, source, ... }. Equal sources are equal blocks.
function blocksOf(text) {
  const blocks = [];
  const lines = text.replaceAll('\r\n', '\n').split('\n');
  let at = 0;
  // The page has a heading of level 1.
  let level = 1;
  const take = (matches) => {
    const from = at;
    while (at < lines.length && matches(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(FENCE);
    if (line.trim() === '') {
      at += 1;
    } else if (fence) {
      at += 1;
      const code = take((next) => !(next.trim().startsWith(fence[1]) && next.trim().replaceAll(fence[1][0], '') === ''));
      at += 1;
      blocks.push({ kind: 'code', language: fence[2], code: code.join('\n'), source: `\`\`\`${fence[2]}\n${code.join('\n')}` });
    } else if (HEADING.test(line)) {
      at += 1;
      const [, marks, heading] = line.match(HEADING);
      // No level is left out on the way down: those who go from heading to heading count on it.
      level = Math.min(level + 1, marks.length + 1, 6);
      blocks.push({ kind: 'heading', level, text: heading, source: `${level} ${line}` });
    } else if (RULE.test(line)) {
      at += 1;
      blocks.push({ kind: 'rule', source: line });
    } else if (QUOTE.test(line)) {
      const quoted = take((next) => QUOTE.test(next));
      blocks.push({ kind: 'quote', text: quoted.map((one) => one.match(QUOTE)[1]).join('\n'), source: quoted.join('\n') });
    } else if (ITEM.test(line)) {
      const items = take((next) => ITEM.test(next) || (/^\s{2,}\S/.test(next) && !FENCE.test(next)));
      blocks.push({ kind: 'list', items, source: items.join('\n') });
    } else {
      const special = (next) => next.trim() === '' || [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(next));
      const paragraph = [line];
      at += 1;
      paragraph.push(...take((next) => !special(next)));
      blocks.push({ kind: 'paragraph', text: paragraph.join('\n'), source: paragraph.join('\n') });
    }
  }
  return blocks;
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

// The inline parts of a text, as nodes.
function inline(text) {
  if (text.length > INLINE_MAX) return [text];
  const nodes = [];
  let rest = text;
  for (;;) {
    const found = rest.match(INLINE);
    if (!found) break;
    if (found.index) nodes.push(rest.slice(0, found.index));
    const { code, bold, italic, label, target, url } = found.groups;
    if (code !== undefined) nodes.push(element('code', code));
    else if (bold !== undefined) nodes.push(element('strong', ...inline(bold)));
    else if (italic !== undefined) nodes.push(element('em', ...inline(italic)));
    else nodes.push(link(label ?? url, target ?? url));
    rest = rest.slice(found.index + found[0].length);
  }
  nodes.push(rest);
  return nodes;
}

// What reads like an address: with a scheme, or with a name that has a dot in it.
const ADDRESS = /:\/\/|[^\s.]\.[^\s.]{2,}/;

// A text that reads like an address, but not like that of the link, is followed by where the link really goes.
export function labelOf(label, target) {
  const { host, protocol } = new URL(target);
  const read = label.normalize('NFKC').trim().toLowerCase();
  const rest = [`${protocol}//${host}`, host].find((start) => read.startsWith(start));
  const honest = rest !== undefined && /^($|[/?#:])/.test(read.slice(rest.length)) && !read.includes('@');
  return honest || !ADDRESS.test(read) ? label : `${label} (${host})`;
}

function link(label, target) {
  // Not every text that looks like an address is one.
  if (!URL.canParse(target)) return label;
  const made = element('a', labelOf(label, target));
  made.href = target;
  made.target = '_blank';
  made.rel = 'noopener noreferrer';
  return made;
}

function list(items) {
  const made = element(/^\s*\d/.test(items[0]) ? 'ol' : 'ul');
  if (made.tagName === 'OL') made.start = Number.parseInt(items[0], 10);
  for (const line of items) {
    const item = line.match(ITEM);
    if (item && (item[1].length < 2 || !made.lastElementChild)) {
      made.append(element('li', ...inline(item[3])));
    } else if (item) {
      // One level of nesting is what a narrow screen has room for.
      let nested = made.lastElementChild.querySelector('ul, ol');
      if (!nested) made.lastElementChild.append((nested = element(/^\s*\d/.test(line) ? 'ol' : 'ul')));
      nested.append(element('li', ...inline(item[3])));
    } else {
      made.lastElementChild.append('\n', ...inline(line.trim()));
    }
  }
  return made;
}

function codeBlock({ code, language }) {
  const block = element('div');
  block.className = 'code';
  const pre = element('pre', element('code', code));
  // It scrolls sideways, so that a keyboard has to reach it.
  pre.tabIndex = 0;
  pre.setAttribute('role', 'region');
  pre.setAttribute('aria-label', language ? `Code, ${language}` : 'Code');
  const bar = element('div', element('span', language));
  bar.className = 'bar';
  if (navigator.clipboard) {
    const copy = element('button', 'Copy');
    copy.type = 'button';
    copy.className = 'copy';
    copy.onclick = async () => {
      await navigator.clipboard.writeText(code);
      copy.textContent = 'Copied';
      setTimeout(() => (copy.textContent = 'Copy'), 1500);
    };
    bar.append(copy);
  }
  if (language || navigator.clipboard) block.append(bar);
  block.append(pre);
  return block;
}

function build(block) {
  switch (block.kind) {
    case 'code':
      return codeBlock(block);
    case 'heading':
      return element(`h${block.level}`, ...inline(block.text));
    case 'rule':
      return element('hr');
    case 'quote':
      return element('blockquote', ...inline(block.text));
    case 'list':
      return list(block.items);
    default:
      return element('p', ...inline(block.text));
  }
}

// Shows `text` in `target`. Called again with more of it, only what changed is built anew.
export function render(target, text) {
  const before = target.blocks ?? [];
  const blocks = blocksOf(text.replace(BIDI, ''));
  let same = 0;
  while (same < before.length && same < blocks.length && before[same].source === blocks[same].source) same += 1;
  while (target.childNodes.length > same) target.lastChild.remove();
  for (const block of blocks.slice(same)) target.append(build(block));
  target.blocks = blocks;
}

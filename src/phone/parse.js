// Reads Markdown, as agents write it, into the tokens of markdown-it: CommonMark with GFM's tables, strikethrough and
// addresses. HTML is text like any other. The work is linear in the text: what could make it more is bounded here.

import { MarkdownIt } from './markdown-it.js';
import { BIDI } from './words.js';

// A longer paragraph is shown as it is: looking for marks in it would keep the page busy.
const INLINE_MAX = 20_000;
// What is nested deeper is shown as it is.
const LEVEL_MAX = 16;

const parser = new MarkdownIt({ linkify: true });
// An address stays as it was written; where it may lead is for the one who draws it.
parser.validateLink = () => true;
parser.normalizeLink = parser.normalizeLinkText = (target) => target;
parser.linkify.add('ftp:').add('//').add('www.', {
  validate(text, at, { re }) {
    const host = re.get_relative_proto_validator();
    host.lastIndex = at;
    return host.exec(text)?.[0].length ?? 0;
  },
  normalize: (match) => (match.url = `http://${match.url}`),
});

parser.block.ruler.before('table', 'deep', (state, from, end) => {
  if (state.level < LEVEL_MAX) return false;
  let to = from + 1;
  while (to < end && (state.isEmpty(to) || state.sCount[to] >= state.blkIndent)) to += 1;
  Object.assign(state.push('plain', '', 0), { content: state.getLines(from, to, state.blkIndent, false), map: [from, to] });
  state.line = to;
  return true;
});

parser.core.ruler.at('inline', ({ tokens, md, env, Token }) => {
  for (const token of tokens) {
    if (token.type === 'fence') token.info = md.utils.unescapeAll(token.info);
    if (token.type !== 'inline') continue;
    const { content } = token;
    if (content.length > INLINE_MAX) token.children.push(Object.assign(new Token('plain', '', 0), { content }));
    else md.inline.parse(content, md, env, token.children);
  }
});

// The blocks of a text: { line, tokens }, where `line` is the first one. `references` has the definitions of links that
// are known, and takes those of the text.
export function parse(text, references = {}) {
  const blocks = [];
  for (const token of parser.parse(text.replace(BIDI, ''), { references })) {
    if (token.level === 0 && token.nesting >= 0) blocks.push({ line: token.map[0], tokens: [] });
    blocks.at(-1).tokens.push(token);
  }
  return blocks;
}

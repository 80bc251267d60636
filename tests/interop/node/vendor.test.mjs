// What the relay serves of the page: it means what src/phone says, and stays small.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { get } from 'node:http';
import { basename } from 'node:path';
import { after, before, test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { build, transform } from 'esbuild';
import { Relay } from './relay.mjs';
import { pathOf, vendored } from './vendor.mjs';

// What a first visit costs until it can chat, and all that is served of HTML, CSS and JavaScript, as brotli makes it.
const START_BYTES_MAX = 54 * 1024;
const START_GZIP_BYTES_MAX = 60 * 1024;
const PAGE_BYTES_MAX = 64 * 1024;

const SOURCES = readdirSync(pathOf('.')).filter((file) => /\.(html|css|js)$/.test(file));
// What is served of them: the modules are in app.js, or in later.js.
const MADE = ['markdown-it.js', 'qr.js'];
const BUNDLES = ['app.js', 'later.js'];
const FILES = ['index.html', 'style.css', 'sw.js', ...BUNDLES, ...MADE];
const START = ['index.html', 'style.css', 'app.js', 'markdown-it.js'];
const LASTING = [...START.slice(1), 'later.js'];

let relay;
// By the names of their sources: where each is served, and its text with those names in it.
const addresses = { 'index.html': '/', 'sw.js': '/sw.js' };
const served = {};

before(async () => {
  relay = await Relay.start();
  const [page, worker] = await Promise.all(['', 'sw.js'].map(async (path) => (await fetch(`http://127.0.0.1:${relay.port}/${path}`)).text()));
  for (const file of FILES.filter((file) => !addresses[file])) {
    const [stem, extension] = file.split('.');
    const hashed = (page + worker).match(new RegExp(`phone/${stem}\\.[0-9a-f]{8}\\.${extension}`))?.[0];
    assert.equal(Boolean(hashed), LASTING.includes(file), file);
    addresses[file] = `/${hashed ?? `phone/${file}`}`;
  }
  for (const file of FILES) {
    const answer = await request(file, 'identity');
    assert.equal(answer.status, 200, file);
    served[file] = answer.body.toString().replace(/\b([\w-]+)\.[0-9a-f]{8}\.(js|css)\b/g, '$1.$2').replace(/phone-[0-9a-f]{8}\b/, 'phone-VERSION_OF_THE_PAGE');
  }
});

after(() => relay?.stop());

// The answer as it comes, not decoded as `fetch` does.
function request(file, codings, headers = {}) {
  return new Promise((done, fail) => {
    get({ port: relay.port, path: addresses[file], headers: { 'Accept-Encoding': codings, ...headers } }, async (answer) => {
      const pieces = [];
      for await (const piece of answer) pieces.push(piece);
      done({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces) });
    }).on('error', fail);
  });
}

// The one form that every style with the same meaning has.
async function style(text) {
  const { code } = await transform(text, { minify: true, loader: 'css' });
  // In the value of a variable esbuild leaves the white space that it finds.
  return code.replace(/--[\w-]+:[^;}]*/g, (variable) => variable.replace(/\s*([:,])\s*/g, '$1'));
}

// All that a script says and touches, in its order: texts, properties, words of the language, numbers and signs. Left out are
// the names of its own, which are not the same in what is served, and how it is parted.
async function skeleton(text) {
  // Constants at the very beginning would be put in where they are used, if they are called so in what is compared.
  const { code } = await transform(`begin();${text}`, { minifyWhitespace: true, minifySyntax: true, loader: 'js', target: 'es2022' });
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
  const bundled = async (file, outside) => {
    const { outputFiles, metafile } = await build({
      entryPoints: [pathOf(file)],
      bundle: true,
      format: 'esm',
      charset: 'utf8',
      target: 'es2022',
      external: outside.map((name) => `./${name}`),
      // What only the other bundle uses is in it, too.
      treeShaking: false,
      write: false,
      metafile: true,
    });
    return { text: outputFiles[0].text, inside: Object.keys(metafile.inputs).map((path) => basename(path)) };
  };
  const first = await bundled('app.js', [...MADE, 'later.js']);
  const later = await bundled('later.js', [...MADE, ...first.inside]);
  assert.deepEqual([...first.inside, ...later.inside, ...FILES.filter((file) => !BUNDLES.includes(file))].sort(), [...SOURCES].sort(), 'each source is served once');
  // What bundles have of each other is of no account: without it, nothing would run. `$2` is what two modules both call `$`.
  const alone = (script) => script.replace(/\b(?:import|export)\s*\{[^}]*\}(?:\s*from\s*"[^"]*")?;/g, '').replace(/\$\d+\b/g, '$$');
  const scripts = { 'app.js': first.text, 'later.js': later.text, 'sw.js': source('sw.js') };
  for (const [file, text] of Object.entries(scripts)) {
    const [one, other] = await Promise.all([served[file], text].map((script) => skeleton(alone(script))));
    const at = one.findIndex((token, index) => token !== other[index]);
    assert.ok(at < 0 && one.length === other.length, `${file} differs: ${one.slice(at - 20, at + 20).join(' ')} --- ${other.slice(at - 20, at + 20).join(' ')}`);
    assert.ok(one.length > 100 && served[file].length < text.length * 0.8, `${file} is smaller`);
  }
});

test('each form of a file is the same file', async () => {
  for (const file of FILES) {
    const plain = (await request(file, 'identity')).body;
    for (const [codings, coding, unpack] of [['gzip, deflate', 'gzip', gunzipSync], ['gzip, deflate, br', 'br', brotliDecompressSync]]) {
      const answer = await request(file, codings);
      assert.equal(answer.headers['content-encoding'], coding, file);
      assert.ok(unpack(answer.body).equals(plain), `${file} ${coding}`);
      const again = await request(file, codings, { 'If-None-Match': answer.headers.etag });
      assert.deepEqual([again.status, again.body.length], [304, 0], file);
      // Of another form it says nothing.
      assert.equal((await request(file, 'identity', { 'If-None-Match': answer.headers.etag })).status, 200, file);
    }
  }
});

test('what the page loads when it starts is kept for good, and the page itself is asked for', async () => {
  for (const file of FILES) {
    const { headers } = await request(file, 'br');
    const lasts = LASTING.includes(file);
    assert.equal(headers['cache-control'], lasts ? 'public, max-age=31536000, immutable' : 'no-cache', file);
  }
  // Nothing is found out about only when something else has come.
  for (const file of START.slice(1)) assert.ok(served['index.html'].includes(`phone/${file}`), file);
});

test('the page stays small', async () => {
  const sizes = {};
  for (const file of FILES) sizes[file] = (await request(file, 'br')).body.length;
  const sum = (files) => files.reduce((bytes, file) => bytes + sizes[file], 0);
  assert.ok(sum(START) > 40_000 && sum(START) <= START_BYTES_MAX, `${sum(START)}: ${JSON.stringify(sizes, null, 1)}`);
  const gzipped = await Promise.all(START.map(async (file) => (await request(file, 'gzip')).body.length));
  assert.ok(gzipped.reduce((all, bytes) => all + bytes) <= START_GZIP_BYTES_MAX, `gzip: ${gzipped}`);
  assert.ok(sum(FILES) <= PAGE_BYTES_MAX, `${sum(FILES)}: ${JSON.stringify(sizes, null, 1)}`);
});

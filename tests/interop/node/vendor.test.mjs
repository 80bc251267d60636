// What the relay serves of the page: it means what src/phone says, and stays small.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { transform } from 'esbuild';
import { Relay } from './relay.mjs';
import { pathOf, vendored } from './vendor.mjs';

// Of HTML, CSS and JavaScript, each file compressed by itself.
const PAGE_BYTES_MAX = 60 * 1024;

const FILES = readdirSync(pathOf('.')).filter((file) => /\.(html|css|js)$/.test(file));
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

// The one form that everything with the same meaning has.
async function meaning(file, text) {
  const loader = file.endsWith('.css') ? 'css' : 'js';
  const { code } = await transform(text, { minify: true, loader, target: 'es2022' });
  // In the value of a variable esbuild leaves the white space that it finds.
  return code.replace(/--[\w-]+:[^;}]*/g, (variable) => variable.replace(/\s*([:,])\s*/g, '$1'));
}

test('the parser is the one that vendor.mjs makes from the packages of package-lock.json', async () => {
  for (const [file, text] of Object.entries(await vendored())) {
    assert.ok(readFileSync(pathOf(file), 'utf8') === text, `${file} differs: run node vendor.mjs`);
  }
});

test('what is served has lost its comments and nothing else', async () => {
  let smaller = 0;
  for (const [file, text] of Object.entries(served)) {
    const source = readFileSync(pathOf(file), 'utf8');
    if (file === 'index.html' || file === 'markdown-it.js') {
      assert.ok(text === source, `${file} is served as it is`);
      continue;
    }
    assert.equal(await meaning(file, text), await meaning(file, source), `${file} has another meaning than its source`);
    if (text.length < source.length * 0.95) smaller += 1;
  }
  assert.equal(smaller, FILES.length - 2);
});

test('the page stays small', () => {
  const sizes = Object.fromEntries(FILES.map((file) => [file, gzipSync(served[file], { level: 9 }).length]));
  const bytes = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  assert.ok(bytes > 40_000 && bytes <= PAGE_BYTES_MAX, `${bytes}: ${JSON.stringify(sizes, null, 1)}`);
});

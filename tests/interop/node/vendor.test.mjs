// What is served beside the page's own files, and how much all of it weighs.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { pathOf, vendored } from './vendor.mjs';

// Of HTML, CSS and JavaScript, each file compressed by itself.
const PAGE_BYTES_MAX = 60 * 1024;

test('the parser is the one that vendor.mjs makes from the packages of package-lock.json', async () => {
  for (const [file, text] of Object.entries(await vendored())) {
    assert.ok(readFileSync(pathOf(file), 'utf8') === text, `${file} differs: run node vendor.mjs`);
  }
});

test('the page stays small', () => {
  const files = readdirSync(pathOf('.')).filter((file) => /\.(html|css|js)$/.test(file));
  const sizes = Object.fromEntries(files.map((file) => [file, gzipSync(readFileSync(pathOf(file)), { level: 9 }).length]));
  const bytes = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  assert.ok(bytes > 40_000 && bytes <= PAGE_BYTES_MAX, `${bytes}: ${JSON.stringify(sizes, null, 1)}`);
});

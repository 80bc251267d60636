// clients/vectors, and the page's own tests of the encryption, on @noble: they hold whatever computes.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { decodeBase64, decodeUtf8, encodeBase64, encodeUtf8 } from '../src/text.js';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const FILES = ['e2e', 'e2e-v3', 'resume'].map((name) => here(`../../../tests/interop/node/${name}.test.mjs`));

test('the vectors, and the rules of the encryption, on @noble', () => {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const said = execFileSync(process.execPath, ['--import', here('on-noble.mjs'), '--test', ...FILES], { encoding: 'utf8', env });
  assert.ok(Number(said.match(/^# pass (\d+)$/m)[1]) > 30, said);
});

test('UTF-8 is that of TextEncoder and TextDecoder', () => {
  const texts = ['', 'a', 'é漢🐋', '\ud800', 'x\udc00y', '\u0000\u007f\u0080\u07ff\u0800\uffff\u{10000}\u{10ffff}', 'ä'.repeat(20_000)];
  for (const text of texts) {
    const bytes = new TextEncoder().encode(text);
    assert.deepEqual(encodeUtf8(text), bytes);
    assert.equal(decodeUtf8(bytes), new TextDecoder().decode(bytes));
  }
  // Every first byte, and of the others those at a border.
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const outcome = (decode, bytes) => {
    try {
      return decode(bytes);
    } catch {
      return null;
    }
  };
  for (let first = 0; first < 256; first++) {
    for (const second of [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff]) {
      for (const rest of [[], [0x7f], [0x80], [0xbf], [0xc0], [0x80, 0x80], [0xbf, 0x41]]) {
        const bytes = Uint8Array.of(first, second, ...rest);
        const expected = outcome((data) => decoder.decode(data), bytes);
        if (outcome(decodeUtf8, bytes) !== expected) assert.equal(outcome(decodeUtf8, bytes), expected, String(bytes));
      }
    }
  }
});

test('base64 is that of btoa and atob', () => {
  for (let length = 0; length < 70; length++) {
    const binary = String.fromCharCode(...Array.from({ length }, (_, at) => (at * 89 + length * 7) & 255));
    assert.equal(encodeBase64(binary), btoa(binary));
    assert.equal(decodeBase64(btoa(binary)), binary);
  }
});

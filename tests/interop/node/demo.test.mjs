// `coralmux-relay demo` as a newcomer meets it: one command, the link that it prints, and the real page talking to the
// real agent.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Phone, launch } from './browser.mjs';
import { binary } from './relay.mjs';

const START_MS = 20_000;

async function linkOf(demo) {
  let output = '';
  for (const stream of [demo.stdout, demo.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const deadline = Date.now() + START_MS;
  for (;;) {
    const found = /^ +(http:\S+#token=\S+)$/m.exec(output);
    if (found) return found[1];
    if (demo.exitCode !== null || Date.now() > deadline) throw new Error(`no link:\n${output}`);
    await delay(20);
  }
}

test('the link of the demo is a chat with its agent, encrypted and verified', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'coralmux-demo-test-'));
  const environment = { ...process.env, TMPDIR: folder };
  const demo = spawn(binary(), ['demo', '--addr', '127.0.0.1:0'], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((done) => demo.once('exit', (code, signal) => done(code ?? signal)));
  const browser = await launch();
  try {
    const phone = await Phone.open(browser, await linkOf(demo));
    await phone.secure('Encrypted, verified');
    await phone.say('good morning');
    await phone.shows('.message.agent[data-state="done"] .body', 'You said: good morning');
    await phone.close();
    demo.kill('SIGINT');
    assert.equal(await ended, 0);
    assert.deepEqual(readdirSync(folder), [], 'nothing is left behind');
  } finally {
    demo.kill('SIGKILL');
    await browser.close();
    rmSync(folder, { recursive: true });
  }
});

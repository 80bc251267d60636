// `coralmux-relay demo` as a newcomer meets it: one command, the link that it prints, and the real page talking to the
// real agent.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Phone, launch } from './browser.mjs';
import { within } from './client.mjs';
import { Program } from './program.mjs';
import { binary } from './relay.mjs';

// Runs a program at a terminal: the link is shown nowhere else.
const AT_TERMINAL = 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))';

test('the link of the demo is a chat with its agent, encrypted and verified', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'coralmux-demo-test-'));
  const demo = new Program('python3', ['-c', AT_TERMINAL, binary(), 'demo', '--addr', '127.0.0.1:0'], {
    stdio: 'pipe',
    env: { ...process.env, TMPDIR: folder },
  });
  const browser = await launch();
  try {
    const phone = await Phone.open(browser, await demo.says(/^ +(http:\S+#token=\S+)$/m));
    await phone.secure('Encrypted, verified');
    await phone.say('good morning');
    await phone.shows('.message.agent[data-state="done"] .body', 'You said: good morning');
    await phone.close();
    demo.process.stdin.write('\x03'); // Ctrl-C
    assert.equal(await within(demo.ended, "the demo's end"), 0);
    assert.deepEqual(readdirSync(folder), [], 'nothing is left behind');
  } finally {
    demo.process.kill('SIGKILL');
    await browser.close();
    rmSync(folder, { recursive: true });
  }
});

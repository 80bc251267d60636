// `coralmux-relay demo` as a newcomer meets it: one command, the link that it prints, and the real page talking to the
// real agent.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Phone, launch } from './browser.mjs';
import { Program } from './program.mjs';
import { binary } from './relay.mjs';

test('the link of the demo is a chat with its agent, encrypted and verified', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'coralmux-demo-test-'));
  const demo = new Program(binary(), ['demo', '--addr', '127.0.0.1:0'], { env: { ...process.env, TMPDIR: folder } });
  const browser = await launch();
  try {
    const phone = await Phone.open(browser, await demo.says(/^ +(http:\S+#token=\S+)$/m));
    await phone.secure('Encrypted, verified');
    await phone.say('good morning');
    await phone.shows('.message.agent[data-state="done"] .body', 'You said: good morning');
    await phone.close();
    assert.equal(await demo.stop('SIGINT'), 0);
    assert.deepEqual(readdirSync(folder), [], 'nothing is left behind');
  } finally {
    demo.process.kill('SIGKILL');
    await browser.close();
    rmSync(folder, { recursive: true });
  }
});

// A relay on files that are there already, with the admin key that it made itself; and what the programs say of themselves.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Program } from './program.mjs';
import { binary, freePort } from './relay.mjs';

const START_MS = 20_000;

export class Kept {
  // Starts the relay on the store in a folder, or on a new one.
  static async start(directory, port) {
    const relay = new Kept();
    relay.port = port ?? (await freePort());
    const store = join(directory, 'relay.db');
    const args = ['-addr', `127.0.0.1:${relay.port}`, '-db', store, '--shards', '2', '--metrics-addr', 'off'];
    relay.program = new Program(binary(), args, { cwd: directory });
    const deadline = Date.now() + START_MS;
    while ((await fetch(`${relay.http}/health`).catch(() => null))?.status !== 200) {
      assert.ok(relay.program.process.exitCode === null && Date.now() < deadline, relay.program.said);
      await delay(20);
    }
    relay.key = readFileSync(join(directory, 'relay.db.admin-key'), 'utf8').trim();
    return relay;
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  // The JSON of the answer to an API call.
  async api(method, path, body) {
    const headers = { 'X-Admin-Key': this.key };
    const answer = await fetch(this.http + path, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer.json();
  }

  async stop() {
    assert.equal(await this.program.stop(), 0, this.program.said);
  }
}

const said = (name, ...args) => execFileSync(binary(name), args, { encoding: 'utf8' });

// The flags that a program's help has.
export function flagsOf(name) {
  return said(name, '--help').match(/^ +(?:-\w, )?--[a-z0-9-]+/gm).map((line) => line.trim().replace(/^-\w, /, ''));
}

// The pairing links of an agent, for apps and for browsers.
export function linksOf(pairing) {
  const text = said('coralmux-agent', 'link', ...pairing, '--qr', 'none');
  return { app: text.match(/openclaw:\S+/)[0], browser: text.match(/https?:\S+#token=\S+/)[0] };
}

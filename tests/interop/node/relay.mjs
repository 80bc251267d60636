// Starts the real relay binary on a free port, and stops it by SIGTERM, expecting exit code 0.
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { Program } from './program.mjs';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const ADMIN_KEY = 'test-key';
const START_MS = 20_000;

// The newest build of a program of this project; CORALMUX_RELAY names that of the relay, the others stand beside it.
export function binary(name = 'coralmux-relay') {
  const relay = process.env.CORALMUX_RELAY;
  if (relay) return name === 'coralmux-relay' ? resolve(relay) : join(dirname(resolve(relay)), name);
  const target = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
  const built = ['debug', 'release'].map((profile) => join(target, profile, name)).filter(existsSync);
  if (!built.length) throw new Error('no relay binary: build it with cargo, or name it in CORALMUX_RELAY');
  return built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}

// A listening server, or nothing where that place is taken.
function bound(...where) {
  return new Promise((done) => {
    const server = createServer().once('error', () => done());
    server.listen(...where, () => done(server));
  });
}

// A free TCP port of 127.0.0.1, which no other test gets while this process lives: see `free_port` in ../relay.py.
export async function freePort() {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 17_000);
    const mark = await bound(`\0coralmux-test-port-${port}`);
    if (!mark) continue;
    mark.unref();
    const probe = await bound(port, '127.0.0.1');
    if (probe) return new Promise((done) => probe.close(() => done(port)));
    mark.close();
  }
}

export class Relay {
  static async start(...flags) {
    const relay = new Relay();
    relay.port = await freePort();
    relay.directory = mkdtempSync(join(tmpdir(), 'coralmux-node-'));
    relay.flags = flags;
    await relay.run();
    return relay;
  }

  // Starts the process, also again after `halt`: same port, same store.
  async run() {
    const address = `127.0.0.1:${this.port}`;
    const database = join(this.directory, 'relay.db');
    const all = ['-addr', address, '-admin-key', ADMIN_KEY, '-db', database, '--shards', '2', ...this.flags];
    this.program = new Program(binary(), all, { cwd: this.directory });
    const { process } = this.program;
    const deadline = Date.now() + START_MS;
    for (;;) {
      const answer = await fetch(`http://${address}/health`).catch(() => null);
      if (answer?.status === 200) return answer.arrayBuffer();
      if (process.exitCode !== null) throw new Error(`the relay ended with ${process.exitCode}:\n${this.program.said}`);
      if (Date.now() > deadline) throw new Error(`the relay did not answer /health:\n${this.program.said}`);
      await delay(20);
    }
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  admin(method, path, body) {
    return fetch(`http://127.0.0.1:${this.port}${path}`, { method, body, headers: { 'X-Admin-Key': ADMIN_KEY } });
  }

  async token() {
    const answer = await this.admin('POST', '/api/v1/pair');
    if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
    return (await answer.json()).token;
  }

  async halt() {
    this.program.process.kill('SIGTERM');
    const code = await this.program.ended;
    if (code !== 0) throw new Error(`exit ${code} after SIGTERM:\n${this.program.said}`);
  }

  async stop() {
    try {
      await this.halt();
    } finally {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

// A process, what it says, and its end.
import { spawn } from 'node:child_process';
import { after } from 'node:test';
import { within } from './client.mjs';

// What a test that failed has left running would keep the whole file from ending.
const running = new Set();
after(() => running.forEach((child) => [child, child.stdout, child.stderr].forEach((handle) => handle.unref())));
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export class Program {
  said = '';
  #waiting = [];

  constructor(command, args, options) {
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    running.add(this.process);
    this.process.once('exit', () => running.delete(this.process));
    // Its exit code, or the signal that ended it.
    this.ended = new Promise((done) => this.process.once('exit', (code, signal) => done(code ?? signal)));
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.said += text;
        this.#waiting = this.#waiting.filter((look) => !look());
      });
    }
  }

  // The part of its output that matches: the pattern's first group, if it has one.
  says(pattern) {
    const found = new Promise((done) => {
      const look = () => {
        const match = this.said.match(pattern);
        if (match) done(match[1] ?? match[0]);
        return match;
      };
      if (!look()) this.#waiting.push(look);
    });
    return within(found, pattern).catch((error) => {
      throw new Error(`${error.message} in what it said:\n${this.said}`);
    });
  }

  stop(signal = 'SIGTERM') {
    this.process.kill(signal);
    return within(this.ended, "program's end");
  }
}

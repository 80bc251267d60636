// A network that can be broken: passes bytes to a port and back until it is told otherwise.
import { connect, createServer } from 'node:net';

export class Cutting {
  #pairs = new Set();
  #isStalled = false;

  static async start(to) {
    const cutting = new Cutting();
    cutting.server = createServer((from) => cutting.#pass(from, to));
    await new Promise((done) => cutting.server.listen(0, '127.0.0.1', done));
    cutting.port = cutting.server.address().port;
    return cutting;
  }

  #pass(from, port) {
    const to = connect(port, '127.0.0.1');
    const pair = [from, to];
    this.#pairs.add(pair);
    for (const [one, other] of [pair, [to, from]]) {
      // What comes while nothing passes is lost, as with a radio that is out of reach.
      one.on('data', (bytes) => !this.#isStalled && other.write(bytes));
      one.on('error', () => {});
      one.on('close', () => (other.destroy(), this.#pairs.delete(pair)));
    }
  }

  // Breaks every connection that there is.
  cut() {
    for (const [from] of this.#pairs) from.resetAndDestroy();
  }

  // Nothing passes any more, and nobody is told; `pass` breaks what has lost bytes, and lets new ones through.
  stall() {
    this.#isStalled = true;
  }

  pass() {
    this.cut();
    this.#isStalled = false;
  }

  close() {
    this.server.close();
    this.cut();
  }
}

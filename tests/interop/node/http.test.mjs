// The HTTP API as `fetch` meets it where a body is a stream, whose length nobody knows: it goes out in chunks.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ReadableStream } from 'node:stream/web';
import { Relay, ADMIN_KEY } from './relay.mjs';

describe('bodies that are streams', { timeout: 60_000 }, () => {
  let relay;

  before(async () => {
    relay = await Relay.start();
  });

  after(() => relay?.stop());

  function post(pieces) {
    const body = ReadableStream.from(pieces.map((piece) => new TextEncoder().encode(piece)));
    const url = `http://127.0.0.1:${relay.port}/api/v1/pair`;
    return fetch(url, { method: 'POST', body, duplex: 'half', headers: { 'X-Admin-Key': ADMIN_KEY } });
  }

  test('a token is made of a body in pieces', async () => {
    const answer = await post(['{"label":', '"from ', 'a stream"}']);
    assert.equal(answer.status, 201);
    const { id } = await answer.json();
    const token = await (await relay.admin('GET', `/api/v1/tokens/${id}`)).json();
    assert.equal(token.label, 'from a stream');
  });

  test('an empty stream is an empty body', async () => {
    assert.equal((await post([])).status, 201);
  });

  test('what is not right in it is told as ever', async () => {
    const answer = await post(['{"label":', '7}']);
    assert.equal(answer.status, 400);
    assert.match((await answer.json()).error.message, /label/);
  });

  test('a body of more than 4096 bytes is refused', async () => {
    const answer = await post(['{"label":"x"}', ' '.repeat(2048), ' '.repeat(2048)]).catch((error) => error);
    // The relay closes behind its answer; a client that still writes may see that first.
    assert.ok(answer instanceof Error || answer.status === 413, `${answer.status}`);
  });
});

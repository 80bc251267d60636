// WIRE, as a Node program (or a browser, whose WebSocket behaves alike) meets it.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { once } from 'node:events';
import { Client, MAX_SIZE, envelope, pair, sized } from './client.mjs';
import { Relay } from './relay.mjs';

const ROUNDS = 30;

describe('the wire contract', { timeout: 240_000 }, () => {
  let relay;

  before(async () => {
    relay = await Relay.start('--phone-rate', '0', '--agent-rate', '0', '--stream-rate', '0', '--register-rate', '0');
  });

  after(() => relay?.stop());

  test('Transport: any origin is accepted', async () => {
    for (const origin of ['https://app.example.com', 'http://localhost:3000', 'null']) {
      const phone = await Client.authed(relay.url, await relay.token(), 'phone', { origin });
      await phone.expectSilence();
      await phone.close();
    }
  });

  test('Transport: permessage-deflate is offered and declined', async () => {
    const client = await Client.open(relay.url, { perMessageDeflate: true });
    assert.equal(client.upgrade['sec-websocket-extensions'], undefined);
    assert.equal(client.ws.extensions, '');
    await client.close();
  });

  test('Transport: WebSocket pings from a client are answered with their payload', async () => {
    const { agent, phone } = await pair(relay);
    phone.ws.ping('are you there');
    const [payload] = await once(phone.ws, 'pong');
    assert.equal(payload.toString(), 'are you there');
    await phone.close();
    await agent.close();
  });

  test('Envelope: the peer gets the same text, not a re-encoding of it', async () => {
    const { agent, phone } = await pair(relay);
    for (const text of [
      ' {\t"payload" : {"b":1,"a":2.0}, "type":"chat.send"\n,"later":null, "id":"\\u00e9 \u{1f40b}"} ',
      '{"type":"chat.send"}',
      '{"type":"chat.send","payload":null,"n":1e2}',
    ]) {
      phone.ws.send(text);
      assert.equal(await agent.receiveText(), text);
    }
    await phone.close();
    await agent.close();
  });

  test('JSON in a binary frame is forwarded as text', async () => {
    const { agent, phone } = await pair(relay);
    const text = '{"type":"chat.send","payload":"\u00e9"}';
    phone.ws.send(Buffer.from(text), { binary: true });
    assert.equal(await agent.receiveText(), text);
    await phone.close();
    await agent.close();
  });

  test('Order 1 to 3: auth.ok first, status online before any message of a newcomer that does not wait', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const token = await relay.token();
      const agent = await Client.authed(relay.url, token, 'agent');
      assert.equal(agent.authOk.paired, false);
      const phone = await Client.open(relay.url);
      phone.send('auth', { token, role: 'phone' });
      for (let n = 0; n < 20; n++) phone.send('chat.send', { n });
      assert.deepEqual(await agent.expect('status'), { peer: 'online' });
      for (let n = 0; n < 20; n++) assert.deepEqual(await agent.expect('chat.send'), { n });
      assert.equal((await phone.expect('auth.ok')).paired, true);
      await phone.expectSilence();
      await phone.close();
      assert.deepEqual(await agent.expect('status'), { peer: 'offline' });
      await agent.close();
    }
  });

  test('Order 4: key_exchange to nobody earns PEER_OFFLINE with ref', async () => {
    const agent = await Client.authed(relay.url, await relay.token(), 'agent');
    const id = agent.send('key_exchange', { pubkey: 'AAAA' });
    const error = await agent.expect('chat.error');
    assert.equal(error.code, 'PEER_OFFLINE');
    assert.equal(error.ref, id);
    await agent.close();
  });

  test('One connection for each role: 4001 `replaced`, and no status offline', async () => {
    const { agent, phone, token } = await pair(relay);
    const second = await Client.authed(relay.url, token, 'phone');
    assert.deepEqual(await phone.closed, [4001, 'replaced']);
    assert.deepEqual(await agent.expect('status'), { peer: 'online' });
    await agent.expectSilence();
    agent.send('chat.done', { to: 'second' });
    assert.deepEqual(await second.expect('chat.done'), { to: 'second' });
    await second.close();
    await agent.close();
  });

  test('DELETE /api/v1/pair/{token}: both connections are closed with 4002 `revoked`', async () => {
    const { agent, phone, token } = await pair(relay);
    assert.equal((await relay.admin('DELETE', `/api/v1/pair/${token}`)).status, 204);
    assert.deepEqual(await agent.closed, [4002, 'revoked']);
    assert.deepEqual(await phone.closed, [4002, 'revoked']);
  });

  test('auth.fail is followed by a close with 1008', async () => {
    const client = await Client.open(relay.url);
    client.send('auth', { token: `oc_pair_${'0'.repeat(32)}`, role: 'agent' });
    assert.equal((await client.expect('auth.fail')).code, 'UNAUTHORIZED');
    assert.equal((await client.closed)[0], 1008);
  });

  test('INVALID_MESSAGE: the sender stays connected', async () => {
    const { agent, phone } = await pair(relay);
    for (const text of ['', 'hello', '[]', '{"type":1}', '{"type":"chat.send","id":7}', '{"type":"status"}']) {
      phone.ws.send(text);
      assert.equal((await phone.expect('chat.error')).code, 'INVALID_MESSAGE', text);
    }
    phone.send('chat.send', { still: 'here' });
    assert.deepEqual(await agent.expect('chat.send'), { still: 'here' });
    await phone.close();
    await agent.close();
  });

  test('exactly 5 MiB passes each way at once; a byte more is refused alone', async () => {
    const { agent, phone } = await pair(relay);
    const whole = sized('chat.send', MAX_SIZE);
    assert.equal(Buffer.byteLength(whole), MAX_SIZE);
    phone.ws.send(whole);
    agent.ws.send(whole);
    assert.ok((await agent.receiveText()) === whole);
    assert.ok((await phone.receiveText()) === whole);
    phone.ws.send(sized('chat.send', MAX_SIZE + 1, 'too large'));
    const error = await phone.expect('chat.error');
    assert.equal(error.code, 'MESSAGE_TOO_LARGE');
    assert.equal(error.ref, 'too large');
    phone.send('chat.send', { still: 'here' });
    assert.deepEqual(await agent.expect('chat.send'), { still: 'here' });
    await phone.close();
    await agent.close();
  });

  test('a message in fragments arrives as one, with pings in between', async () => {
    const { agent, phone } = await pair(relay);
    const text = JSON.stringify(envelope('chat.send', { text: '\u{1f40b}'.repeat(1000) }));
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += 333) {
      phone.ws.send(bytes.subarray(at, at + 333), { binary: false, fin: at + 333 >= bytes.length });
      phone.ws.ping();
    }
    assert.equal(await agent.receiveText(), text);
    await phone.close();
    await agent.close();
  });

  test('order within a direction is kept', async () => {
    const { agent, phone } = await pair(relay);
    for (let seq = 0; seq < 500; seq++) agent.send('chat.stream', { seq, delta: 'x'.repeat((seq * 37) % 5000) });
    for (let seq = 0; seq < 500; seq++) assert.equal((await phone.expect('chat.stream')).seq, seq);
    await phone.close();
    await agent.close();
  });

  test('a client that dies without a close frame: status offline', async () => {
    const { agent, phone } = await pair(relay);
    phone.ws.terminate();
    assert.deepEqual(await agent.expect('status'), { peer: 'offline' });
    await agent.close();
  });
});

test('SIGTERM closes clients with 1012, and the relay exits 0', { timeout: 60_000 }, async () => {
  const relay = await Relay.start();
  const { agent, phone } = await pair(relay);
  const stopped = relay.stop();
  assert.equal((await agent.closed)[0], 1012);
  assert.equal((await phone.closed)[0], 1012);
  await stopped;
});

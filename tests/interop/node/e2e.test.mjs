// The encryption of the phone in the browser, against Node's own cryptography and the test vectors.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fingerprint, open, respond, seal } from './agent.mjs';
import { fixedPair } from './e2e-pair.mjs';
import * as basics from '../../../src/phone/crypto.js';
import * as versions from '../../../src/phone/e2e.js';

const e2e = { ...basics, ...versions };

const TOKEN = `oc_pair_${'0123456789abcdef'.repeat(2)}`;
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
const hex = (text) => new Uint8Array(Buffer.from(text, 'hex'));

const VECTORS = new URL('../../../clients/vectors/', import.meta.url);
const vectors = (name) => JSON.parse(readFileSync(new URL(name, VECTORS), 'utf8'));

async function paired(secret = randomBytes(32)) {
  const handshake = await e2e.Handshake.start(secret, TOKEN);
  const agent = respond(secret, TOKEN, Buffer.from(handshake.opening));
  return { phone: await handshake.finish({ noise: base64(agent.answer) }), agent };
}

function fromAgent(agent, type, payload, counter) {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(counter), 4);
  const ciphertext = seal(agent.sending, nonce, Buffer.from(JSON.stringify(payload)), Buffer.from(type));
  return { enc: true, ciphertext: base64(ciphertext), nonce: base64(nonce) };
}

test('version 2: both ends of a handshake read each other', async () => {
  const { phone, agent } = await paired();
  for (const [counter, payload] of [{ text: 'hello' }, {}, { text: 'ä€😀', n: 1 }].entries()) {
    const sealed = await phone.seal('chat.send', payload);
    const nonce = Buffer.from(sealed.nonce, 'base64');
    assert.equal(nonce.readUInt32BE(0), 0);
    assert.equal(nonce.readBigUInt64BE(4), BigInt(counter), 'the counter begins at 0 and grows by 1');
    const plain = open(agent.receiving, nonce, Buffer.from(sealed.ciphertext, 'base64'), Buffer.from('chat.send'));
    assert.deepEqual(JSON.parse(plain), payload);
    assert.deepEqual(await phone.open('chat.stream', fromAgent(agent, 'chat.stream', payload, counter)), payload);
  }
});

test('version 2: what is replayed, late, altered or of another type is refused and moves nothing', async () => {
  const { phone, agent } = await paired();
  const message = (counter, type = 'chat.stream') => fromAgent(agent, type, { counter }, counter);
  await phone.open('chat.stream', message(0));
  await assert.rejects(phone.open('chat.stream', message(0)), /came twice/);
  const other = await paired();
  const ofOtherKeys = fromAgent(other.agent, 'chat.stream', { counter: 0 }, 0);
  await assert.rejects(phone.open('chat.stream', ofOtherKeys), /other keys/, 'a counter that other keys have, too');
  await assert.rejects(phone.open('chat.done', message(1)), e2e.Refused, 'another type');
  const altered = message(1);
  altered.ciphertext = base64(Buffer.from(altered.ciphertext, 'base64').map((byte, at) => (at ? byte : byte ^ 1)));
  await assert.rejects(phone.open('chat.stream', altered), e2e.Refused);
  const odd = message(1);
  odd.nonce = base64(Buffer.from(odd.nonce, 'base64').map((byte, at) => (at ? byte : 1)));
  await assert.rejects(phone.open('chat.stream', odd), e2e.Refused, 'four zero bytes');
  const forged = { ...message(1), nonce: message(9).nonce };
  await assert.rejects(phone.open('chat.stream', forged), e2e.Refused);
  for (const broken of [{}, null, { enc: true }, { ...message(1), nonce: 'AAAA' }, { ...message(1), ciphertext: 'AAAA' }, { ...message(1), ciphertext: '!' }]) {
    await assert.rejects(phone.open('chat.stream', broken), e2e.Refused, JSON.stringify(broken));
  }
  assert.deepEqual(await phone.open('chat.stream', message(1)), { counter: 1 });
  assert.equal(phone.missed, 0);
  assert.deepEqual(await phone.open('chat.stream', message(4)), { counter: 4 }, 'a gap is accepted');
  assert.equal(phone.missed, 2);
  await assert.rejects(phone.open('chat.stream', message(3)), e2e.Refused, 'late');
});

test('version 2: another secret, another token or an altered answer make no session', async () => {
  const secret = randomBytes(32);
  const handshake = await e2e.Handshake.start(secret, TOKEN);
  const opening = Buffer.from(handshake.opening);
  assert.equal(opening.length, 48);
  assert.throws(() => respond(randomBytes(32), TOKEN, opening));
  assert.throws(() => respond(secret, `${TOKEN}0`, opening));
  const { answer } = respond(secret, TOKEN, opening);
  for (const at of [0, 31, 32, 47]) {
    const altered = new Uint8Array(answer);
    altered[at] ^= 1;
    await assert.rejects(handshake.finish({ noise: base64(altered) }), e2e.Refused, `byte ${at}`);
  }
  await assert.rejects(handshake.finish({ noise: base64(answer.subarray(1)) }), e2e.Refused);
  await assert.rejects(handshake.finish({ noise: base64(new Uint8Array(48)) }), e2e.Refused, 'a point of low order');
  assert.ok(await handshake.finish({ noise: base64(answer) }), 'and the right one still counts');
});

test('version 1: both ends have the same key and the same number to compare', async () => {
  const [phone, agent] = [await e2e.makeKeyPair(), await e2e.makeKeyPair()];
  const one = await e2e.Version1.agree(phone, agent.publicKey);
  const other = await e2e.Version1.agree(agent, phone.publicKey);
  assert.equal(one.fingerprint, other.fingerprint);
  assert.match(one.fingerprint, /^\d{5} \d{5} \d{5} \d{5}$/);
  assert.equal(one.fingerprint, fingerprint(Buffer.from(phone.publicKey), Buffer.from(agent.publicKey)));
  assert.deepEqual(await other.open('chat.send', await one.seal('chat.send', { text: 'hello' })), { text: 'hello' });
  const sealed = await one.seal('chat.send', { text: 'hello' });
  sealed.ciphertext = `A${sealed.ciphertext.slice(1)}` === sealed.ciphertext ? `B${sealed.ciphertext.slice(1)}` : `A${sealed.ciphertext.slice(1)}`;
  await assert.rejects(other.open('chat.send', sealed), e2e.Refused);
});

test('version 1: short keys and points of low order are refused', async () => {
  const pair = await e2e.makeKeyPair();
  const one = new Uint8Array(32);
  one[0] = 1;
  for (const key of [new Uint8Array(32), one, new Uint8Array(31), new Uint8Array(33), new Uint8Array()]) {
    await assert.rejects(e2e.Version1.agree(pair, key), e2e.Refused);
  }
});

test('a pairing secret is 43 characters of base64url', () => {
  const secret = randomBytes(32);
  assert.deepEqual(Buffer.from(e2e.readSecret(secret.toString('base64url'))), secret);
  for (const text of ['', 'A'.repeat(42), 'A'.repeat(44), `${'A'.repeat(42)}=`, `${'A'.repeat(42)}+`]) {
    assert.throws(() => e2e.readSecret(text), e2e.Refused, text);
  }
});

test('base64 is taken in its one form', () => {
  for (const text of ['A', 'AA', 'AA=', 'A===', 'AAAA\n', ' AAAA', 'AA-_', 7, null, undefined]) {
    assert.throws(() => e2e.fromBase64(text), e2e.Refused, String(text));
  }
  const large = randomBytes(100_001);
  assert.equal(e2e.toBase64(new Uint8Array(large)), large.toString('base64'));
  assert.deepEqual(Buffer.from(e2e.fromBase64(large.toString('base64'))), large);
});

test('version 1: the vectors', async () => {
  const { pairs, messages, refused, refused_public_keys: keys } = vectors('e2e_v1.json');
  for (const pair of pairs) {
    const phone = await fixedPair(pair.phone_private, pair.phone_public);
    const agent = await fixedPair(pair.agent_private, pair.agent_public);
    const session = await e2e.Version1.agree(phone, agent.publicKey);
    assert.equal(session.fingerprint, pair.fingerprint);
    assert.equal(e2e.toBase64(phone.publicKey), pair.key_exchange.phone.pubkey);
    const sealed = await session.seal('chat.send', { text: 'x' });
    const iv = Buffer.from(sealed.nonce, 'base64');
    assert.equal(open(hex(pair.key), iv, Buffer.from(sealed.ciphertext, 'base64')).toString(), '{"text":"x"}');
  }
  const [first] = pairs;
  const phone = await fixedPair(first.phone_private, first.phone_public);
  const session = await e2e.Version1.agree(phone, hex(first.agent_public));
  for (const { type, nonce, plaintext, payload } of messages) {
    assert.deepEqual(await session.open(type, payload), JSON.parse(plaintext));
    assert.deepEqual(await session.seal(type, JSON.parse(plaintext), hex(nonce)), payload);
  }
  for (const { why, payload } of refused) await assert.rejects(session.open('chat.send', payload), e2e.Refused, why);
  for (const key of keys) {
    await assert.rejects(async () => e2e.Version1.agree(phone, e2e.fromBase64(key)), e2e.Refused, key);
  }
});

test('version 2: the vectors', async () => {
  const v = vectors('e2e_v2.json');
  const start = () => fixedPair(v.phone_ephemeral_private, v.phone_ephemeral_public).then((pair) => e2e.Handshake.start(hex(v.secret), v.token, { pair }));
  const handshake = await start();
  assert.equal(Buffer.from(handshake.opening).toString('hex'), v.message_1);
  assert.equal(e2e.toBase64(handshake.opening), v.key_exchange.opening.noise);
  for (const { why, noise } of v.refused_message_2) {
    await assert.rejects(async () => handshake.finish({ noise }), e2e.Refused, why);
  }
  const phone = await handshake.finish({ noise: base64(hex(v.message_2)) });
  for (const { from, type, plaintext, payload } of v.messages) {
    if (from === 'phone') assert.deepEqual(await phone.seal(type, JSON.parse(plaintext)), payload);
    else assert.deepEqual(await phone.open(type, payload), JSON.parse(plaintext));
  }
  // What arrives at the agent, whose keys are the same the other way round.
  const agent = await e2e.Version2.withKeys(hex(v.key_agent_to_phone), hex(v.key_phone_to_agent));
  for (const { type, payload, opens, missed, why } of v.arrivals) {
    // An error in clear is the relay's own: the session is not asked.
    if (type === 'chat.error' && !e2e.isSealed(payload)) continue;
    const before = agent.missed;
    if (opens === null) {
      await assert.rejects(agent.open(type, payload), e2e.Refused, why);
      assert.equal(agent.missed, before, why);
    } else {
      assert.deepEqual(await agent.open(type, payload), JSON.parse(opens));
      assert.equal(agent.missed - before, missed);
    }
  }
});

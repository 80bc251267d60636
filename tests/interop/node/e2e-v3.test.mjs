// Version 3 of the encryption in the page's own parts, against the test vectors, and its rules over two ends.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Enrolments } from './agent-end.mjs';
import { fixedPair } from './e2e-pair.mjs';
import { Chain, associatedData } from '../../../src/phone/chain.js';
import { Refused, fromBase64, fromBase64url, sha256, toBase64, toBase64url, toHex } from '../../../src/phone/crypto.js';
import { DeviceEnd } from '../../../src/phone/device.js';
import { engine } from '../../../src/phone/engine.js';
import { EnrolError, Enrolment, cleaned } from '../../../src/phone/enrol.js';
import { agentPrint, codeOf, commitmentTo, deviceId, exchangeOf, inviteOf, readAgentPrint } from '../../../src/phone/keys.js';
import { LinkError, readLink } from '../../../src/phone/link.js';
import { OpenError } from '../../../src/phone/sessions.js';

const V = JSON.parse(readFileSync(new URL('../../../clients/vectors/e2e_v3.json', import.meta.url), 'utf8'));
const { token: TOKEN, device_id: DEVICE, enrolment: E, session: S } = V;
const hex = (text) => new Uint8Array(Buffer.from(text, 'hex'));
const K = hex(V.k);
const at = (ms) => ({ monotonic: ms, unix: 1_770_000_000_000 + ms });
const stored = async () => {};

// A pair whose private key is known. Its public key is the product with the curve's base point.
async function pairOf(privateKey) {
  const base = hex(`09${'00'.repeat(31)}`);
  const { privateKey: key } = await fixedPair(privateKey, '');
  const point = await engine.crypto.subtle.importKey('raw', base, { name: 'X25519' }, false, []);
  const publicKey = await engine.crypto.subtle.deriveBits({ name: 'X25519', public: point }, key, 256);
  return { privateKey: key, publicKey: new Uint8Array(publicKey) };
}

const agentKey = () => pairOf(V.agent_static_private);

async function enrolling(more = {}) {
  const pair = await pairOf(V.device_static_private);
  return new Enrolment({ token: TOKEN, device: DEVICE, pair, k: K, agent: V.a, name: 'Tablet', platform: 'web', ...more });
}

async function begun() {
  const device = await enrolling();
  const fixed = { pair: await pairOf(E.device_ephemeral_private), r: hex(E.r) };
  const first = await device.pollFirst(at(0), E.ids[0], fixed);
  assert.deepEqual(first, { id: E.ids[0], payload: E.key_exchange[0] });
  return device;
}

async function inviting() {
  const agent = new Enrolments(TOKEN, await agentKey());
  agent.open(K);
  return agent;
}

async function answering() {
  const agent = await inviting();
  const pair = await pairOf(E.agent_ephemeral_private);
  assert.deepEqual(await agent.handleFirst(DEVICE, E.ids[0], E.key_exchange[0], pair), E.key_exchange[1]);
  return agent;
}

async function enrolled() {
  const device = await (await begun()).handleSecond(at(0), E.key_exchange[1]);
  assert.deepEqual(device.end.enrolment, E.key_exchange[2]);
  return { device, agent: await (await answering()).handleThird(at(0), DEVICE, E.key_exchange[2]) };
}

// Two ends that are connected, drained and admitted.
async function paired() {
  const { device: { end: device }, agent: { end: agent } } = await enrolled();
  agent.isAdmitted = true;
  agent.sessions.handleDrained();
  device.handleAgent(true);
  device.handleDrained();
  assert.ok((await device.open(at(0), 'device.welcome', undefined, await agent.seal('device.welcome'))).isFirst);
  return { device, agent };
}

async function opened() {
  const { device, agent } = await paired();
  device.isDoubted = true;
  const opening = await device.pollOpening(at(0), S.opening_id, await pairOf(S.device_ephemeral_private));
  assert.deepEqual(opening, S.key_exchange[0]);
  return { device, agent };
}

async function agreed(now, device, agent) {
  device.isDoubted = true;
  const opening = await device.pollOpening(now, 'o');
  assert.ok(await device.handleAnswer(now, await agent.handleOpening(now, 'o', opening)));
}

const refusedAs = (...reasons) => (error) => error instanceof Refused && reasons.includes(error.message);

test('what follows from a link and from keys', async () => {
  const key = await agentKey();
  assert.equal(toHex(key.publicKey), V.agent_static_public);
  assert.equal(await agentPrint(key.publicKey), V.a);
  assert.equal(toBase64url(await inviteOf(K)), V.invite);
  assert.equal(toBase64(await sha256(await inviteOf(K))), V.invite_sha256);
  assert.equal(await deviceId(hex(V.device_key)), DEVICE);
  const device = hex(V.device_static_public);
  assert.equal(toHex(await commitmentTo(device, hex(E.r))), E.commitment);
  for (const one of V.codes) assert.equal(await codeOf(hex(one.h2), hex(one.device_static_public), hex(one.r)), one.code);
  for (const link of [V.links.for_apps, V.links.for_browsers]) {
    const { token, k, a } = readLink(link, 'https://relay.example/');
    assert.deepEqual([token, toHex(fromBase64url(k)), a], [TOKEN, V.k, V.a]);
  }
});

test('a damaged `a` is an error, and never treated as a missing one', () => {
  const { for_browsers: link } = V.links;
  for (const damaged of ['', V.a.slice(1), `${V.a}A`, `${V.a}=`, '+'.repeat(22), `${V.a.slice(0, 21)}B`]) {
    assert.throws(() => readAgentPrint(damaged), Refused, damaged);
    assert.throws(() => readLink(link.replace(`a=${V.a}`, `a=${encodeURIComponent(damaged)}`), 'https://relay.example/'), LinkError, damaged);
  }
  // Without `k` nothing can be done with it.
  assert.throws(() => readLink(link.replace(/&k=[\w-]+/, ''), 'https://relay.example/'), LinkError);
});

test('an enrolment is that of the vectors', async () => {
  const { device, agent } = await enrolled();
  assert.equal(device.code, E.code);
  assert.deepEqual([agent.code, agent.name, agent.platform, agent.invite], [E.code, 'Tablet', 'web', V.invite]);
  for (const { end } of [device, agent]) {
    assert.equal(toHex(end.psk), E.psk);
    assert.equal(toHex(end.sessions.sending.sid), E.sid);
  }
  assert.equal(toHex(device.end.sessions.sending.chain.key), E.chain_device);
  assert.equal(toHex(agent.end.sessions.sending.chain.key), E.chain_agent);
  assert.equal(toHex(device.end.sessions.receiving[0].chain.key), E.chain_agent);
  assert.equal(toHex(device.end.agent), V.agent_static_public);
});

test('a session is that of the vectors', async () => {
  const { device, agent } = await opened();
  const answer = await agent.handleOpening(at(0), S.opening_id, S.key_exchange[0], await pairOf(S.agent_ephemeral_private));
  assert.deepEqual(answer, S.key_exchange[1]);
  assert.ok(await device.handleAnswer(at(0), answer));
  assert.ok((await agent.open(at(0), 'ack', undefined, await device.seal('ack', undefined, {}, stored))).isConfirming);
  for (const end of [device, agent]) assert.equal(toHex(end.sessions.sending.sid), S.sid);
  assert.equal(toHex(agent.sessions.sending.chain.key), S.chain_agent);
});

test('messages are sealed and opened as the vectors have them', async () => {
  const sid = hex(S.sid);
  for (const { from, i, type, id, plaintext, ck, random, associated, payload } of V.messages) {
    const chain = await new Chain(hex(S[`chain_${from}`])).wound(i);
    assert.equal(toHex(chain.key), ck, `${from} ${i}`);
    const place = { device: DEVICE, sid, type, id: id ?? undefined };
    assert.equal(toHex(associatedData(place, i)), associated);
    const { nonce, ciphertext } = await chain.seal(place, new TextEncoder().encode(plaintext), hex(random));
    assert.deepEqual([toBase64(nonce), toBase64(ciphertext)], [payload.nonce, payload.ciphertext]);
    assert.equal(new TextDecoder().decode(await chain.open(place, nonce, ciphertext)), plaintext);
    assert.deepEqual([payload.s, payload.i, payload.v], [toBase64url(sid), i, 3]);
  }
});

test('what arrives is taken and refused as the vectors have it', async () => {
  const { end: agent } = (await enrolled()).agent;
  agent.isAdmitted = true;
  for (const step of V.arrivals) {
    const now = at(step.at_ms);
    const id = step.id ?? undefined;
    if (step.step === 'connected') agent.sessions.handleConnected();
    else if (step.step === 'drained') agent.sessions.handleDrained();
    else if (step.step === 'opening') {
      const answer = await agent.handleOpening(now, 'x', { e2e: 3, noise: step.noise }, await pairOf(step.ephemeral));
      assert.equal(answer.noise, step.answer);
    } else if (step.opens === null) {
      const { isDraining } = agent.sessions;
      await assert.rejects(agent.open(now, step.type, id, step.payload), (error) => {
        assert.ok(error instanceof OpenError, step.why);
        assert.deepEqual([error.message, error.isSign(isDraining)], [step.reason, step.sign], step.why);
        return true;
      });
    } else {
      const { payload, skipped, isConfirming } = await agent.open(now, step.type, id, step.payload);
      assert.deepEqual([payload, skipped, isConfirming], [JSON.parse(step.opens), step.skipped, step.confirms]);
    }
    assert.equal(toHex(agent.sessions.sending.sid), step.sends_with);
  }
});

test('the first and the third message are refused as the vectors have it', async () => {
  for (const { why, noise } of V.refused_message_1) {
    const refused = (await inviting()).handleFirst(DEVICE, 'x', exchangeOf(fromBase64(noise), { enrol: 1 }));
    await assert.rejects(refused, refusedAs('wrong secret', 'malformed'), why);
  }
  for (const { why, noise } of V.refused_message_3) {
    const agent = await answering();
    await assert.rejects(agent.handleThird(at(0), DEVICE, { ...E.key_exchange[2], noise }), EnrolError, why);
  }
});

test('the device refuses another second message, and takes the right one but after that of another agent', async () => {
  for (const { why, noise } of V.refused_message_2) {
    const device = await begun();
    const isAnother = why.includes('static key');
    const reasons = isAnother ? ['other agent'] : ['wrong secret', 'malformed'];
    await assert.rejects(device.handleSecond(at(0), { ...E.key_exchange[1], noise }), refusedAs(...reasons), why);
    if (isAnother) await assert.rejects(device.handleSecond(at(0), E.key_exchange[1]), refusedAs('answered'));
    else assert.ok(await device.handleSecond(at(0), E.key_exchange[1]), why);
  }
  const device = await begun();
  assert.ok(await device.handleSecond(at(0), E.key_exchange[1]));
  for (const { noise } of V.refused_second_message_2) {
    await assert.rejects(device.handleSecond(at(0), { ...E.key_exchange[1], noise }), refusedAs('answered'));
  }
  assert.equal(await device.pollFirst(at(99_000), 'x'), null);
});

test('openings and answers are refused as the vectors have it, and the right answer still counts', async () => {
  const { device, agent } = await opened();
  for (const { why, noise } of V.refused_opening) {
    await assert.rejects(agent.handleOpening(at(0), 'x', exchangeOf(fromBase64(noise))), Refused, why);
  }
  for (const { why, noise } of V.refused_answer) {
    await assert.rejects(device.handleAnswer(at(0), { ...S.key_exchange[1], noise }), Refused, why);
  }
  assert.equal(await device.handleAnswer(at(0), { ...S.key_exchange[1], re: 'older' }), false);
  assert.ok(await device.handleAnswer(at(0), S.key_exchange[1]));
});

test('a device goes on from what it stored', async () => {
  let { device, agent } = await paired();
  for (let round = 0; round < 3; round++) {
    const now = at(10_000 * (round + 1));
    await agreed(now, device, agent);
    assert.ok((await agent.open(now, 'ack', undefined, await device.seal('ack', undefined, {}, stored))).isConfirming);
    await device.open(now, 'ack', undefined, await agent.seal('ack'));
    device = DeviceEnd.load(structuredClone(device.state));
    assert.equal((await agent.open(now, 'ack', undefined, await device.seal('ack', undefined, {}, stored))).skipped, 63);
    assert.equal((await device.open(now, 'ack', undefined, await agent.seal('ack'))).skipped, 0);
    device.handleAgent(true);
    device.handleDrained();
  }
});

test('what cannot be stored does not leave, and one state that is used twice never uses a nonce twice', async () => {
  const { device } = await paired();
  const state = structuredClone(device.state);
  await assert.rejects(device.seal('chat.send', 'a', { n: 1 }, () => Promise.reject(new Error('full'))), /full/);
  assert.deepEqual(device.state.sessions, state.sessions, 'memory is as what is stored');
  let writes = 0;
  for (let n = 0; n < 65; n++) await device.seal('chat.send', 'a', { n }, async () => (writes += 1));
  assert.equal(writes, 2, 'at the first message, and at the stored number');
  const nonces = new Set();
  for (let n = 0; n < 20; n++) {
    const copy = DeviceEnd.load(structuredClone(state));
    const { i, nonce } = await copy.seal('chat.send', 'a', { n }, stored, new Uint8Array(32));
    assert.equal(i, 0);
    nonces.add(nonce);
  }
  assert.equal(nonces.size, 20);
});

test('before it is admitted a device seals nothing, opens no session, and repeats its third message', async () => {
  const { device: { end: device }, agent: { end: agent } } = await enrolled();
  device.handleAgent(true);
  device.handleDrained();
  await assert.rejects(device.seal('chat.send', 'a', {}, stored), Refused);
  device.isDoubted = true;
  assert.equal(await device.pollOpening(at(99_000), 'o'), null);
  assert.ok(await agent.repeatsEnrolment(DeviceEnd.load(structuredClone(device.state)).enrolment));
});

test('tries of a device with one link are counted, and each repeats its own bytes', async () => {
  const device = await enrolling();
  const tries = [];
  for (const ms of [0, 10_000, 20_000]) {
    tries.push(await device.pollFirst(at(ms), `id ${ms}`));
    assert.equal(await device.pollFirst(at(ms + 9_999), 'too soon'), null);
    device.handleConnected();
    assert.deepEqual(await device.pollFirst(at(ms), 'again'), tries.at(-1));
  }
  await assert.rejects(device.pollFirst(at(30_000), 'x'), refusedAs('spent'));
  assert.equal(new Set(tries.map(({ payload }) => payload.noise)).size, 3);
});

test('a device opens at most once in 5 s, while its agent is there and nothing waits for it, and after an hour', async () => {
  const { device, agent } = await paired();
  assert.equal(await device.pollOpening(at(3_600_000), 'o'), null);
  assert.ok(await device.pollOpening(at(3_600_001), 'o'));
  assert.equal(await device.pollOpening(at(3_604_000), 'o'), null);
  device.handleConnected();
  assert.equal(await device.pollOpening(at(4_000_000), 'o'), null, 'it has not heard of the agent');
  device.handleAgent(true);
  assert.equal(await device.pollOpening(at(4_000_000), 'o'), null, 'mail may wait');
  device.handleDrained();
  await agreed(at(4_000_000), device, agent);
});

test('a message that is sealed while new keys come is sealed with the one or the other', async () => {
  const { device, agent } = await paired();
  device.isDoubted = true;
  const answer = await agent.handleOpening(at(9_000), 'o', await device.pollOpening(at(9_000), 'o'));
  const sealing = Array.from({ length: 5 }, (_, n) => device.seal('chat.send', `${n}`, { n }, stored));
  const [isNew, ...sealed] = await Promise.all([device.handleAnswer(at(9_000), answer), ...sealing]);
  assert.ok(isNew);
  sealed.push(await device.seal('chat.send', '5', { n: 5 }, stored));
  for (const [n, payload] of sealed.entries()) {
    assert.deepEqual((await agent.open(at(9_000), 'chat.send', `${n}`, payload)).payload, { n });
  }
});

test('names are cleaned as the protocol says', () => {
  assert.equal(cleaned('Max\u202e\u0007s \u2028Tab\nlet'), 'Maxs Tablet');
  assert.equal([...cleaned('😀'.repeat(100))].length, 64);
});

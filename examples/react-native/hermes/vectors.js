// Run by the Hermes VM alone: our encryption, on @noble, holds clients/vectors. `VECTORS` is put in by the bundler, and the
// modules are those of the page and of @coralmux/client.
import './old.js';
import '../../../clients/js/src/noble.js';
import { engine } from '../../../src/phone/engine.js';
import { fromBase64, toBase64, toBase64url, toHex } from '../../../src/phone/crypto.js';
import { Handshake, Version1, Version2 } from '../../../src/phone/e2e.js';
import { Chain } from '../../../src/phone/chain.js';
import { agentPrint, deviceId, inviteOf } from '../../../src/phone/keys.js';

const { v1, v2, v3 } = VECTORS;
const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const pair = (secret, open) => ({ privateKey: { raw: bytes(secret) }, publicKey: bytes(open) });
let passed = 0;

function same(found, expected, what) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) throw new Error(`${what}: ${JSON.stringify(found)} is not ${JSON.stringify(expected)}`);
  passed += 1;
}

async function refused(work, what) {
  const outcome = await work().then(() => 'taken', () => 'refused');
  same(outcome, 'refused', what);
}

async function version1() {
  for (const one of v1.pairs) {
    const session = await Version1.agree(pair(one.phone_private, one.phone_public), bytes(one.agent_public));
    same(session.fingerprint, one.fingerprint, 'fingerprint');
  }
  const [one] = v1.pairs;
  const session = await Version1.agree(pair(one.phone_private, one.phone_public), bytes(one.agent_public));
  for (const { type, plaintext, payload, nonce } of v1.messages) {
    same(await session.seal(type, JSON.parse(plaintext), bytes(nonce)), payload, `version 1, ${type} sealed`);
    same(await session.open(type, payload), JSON.parse(plaintext), `version 1, ${type} opened`);
  }
  for (const { why, payload } of v1.refused) await refused(() => session.open('chat.send', payload), why);
}

async function version2() {
  const keys = pair(v2.phone_ephemeral_private, v2.phone_ephemeral_public);
  const handshake = await Handshake.start(bytes(v2.secret), v2.token, { pair: keys });
  same(toHex(handshake.opening), v2.message_1, 'opening');
  for (const { why, noise } of v2.refused_message_2) await refused(() => handshake.finish({ noise }), why);
  const session = await handshake.finish(v2.key_exchange.answer);
  for (const { from, type, plaintext, payload } of v2.messages) {
    if (from === 'phone') same(await session.seal(type, JSON.parse(plaintext)), payload, `version 2, ${type} sealed`);
    else same(await session.open(type, payload), JSON.parse(plaintext), `version 2, ${type} opened`);
  }
}

async function version3() {
  same(await agentPrint(bytes(v3.agent_static_public)), v3.a, 'a');
  same(await deviceId(bytes(v3.device_key)), v3.device_id, 'device');
  same(toBase64url(await inviteOf(bytes(v3.k))), v3.invite, 'invite');
}

async function speed() {
  const key = await Version2.withKeys(bytes(v2.secret), bytes(v2.secret));
  const from = Date.now();
  await key.seal('chat.send', { text: 'x'.repeat(1 << 20) });
  print(`sealing 1 MiB took ${Date.now() - from} ms`);
  same(toBase64(fromBase64('AAEC')), 'AAEC', 'base64');
}

// A VM without a host has no random numbers; nothing here draws any.
engine.crypto.getRandomValues = () => {
  throw new Error('random numbers were drawn');
};
version1().then(version2).then(version3).then(speed).then(
  () => print(`ok, ${passed} checks`),
  (error) => print(`failed: ${error.message}\n${error.stack}`),
);

// The keys of version 3, and what is derived from them.

import { Chain } from './chain.js';
import { bytesOf, concat, fromBase64, fromBase64url, hmac, importHkdf, KEY_BYTES, NOTHING, Refused, sha256, toBase64, toBase64url, toHex } from './crypto.js';
import { engine } from './engine.js';

const PRINT_BYTES = 16;
const INVITE_BYTES = 16;

async function derive(material, salt, info, length) {
  const derivation = { name: 'HKDF', hash: 'SHA-256', salt, info: bytesOf(info) };
  return new Uint8Array(await engine.crypto.subtle.deriveBits(derivation, await importHkdf(material), length * 8));
}

// A link's field `a`, for an agent's public key.
export async function agentPrint(publicKey) {
  return toBase64url((await sha256(bytesOf('coralmux-v3-agent'), publicKey)).subarray(0, PRINT_BYTES));
}

// Checks that field of a link: `Refused` where it is damaged.
export function readAgentPrint(text) {
  if (fromBase64url(text).length !== PRINT_BYTES) throw new Refused('it has not 16 bytes');
  return text;
}

// The name of the device that the relay knows by these 32 bytes.
export async function deviceId(key) {
  return toHex((await sha256(key)).subarray(0, 8));
}

// What a link's `k` shows the relay.
export function inviteOf(k) {
  return derive(k, NOTHING, 'coralmux-v3-invite', INVITE_BYTES);
}

export function commitmentTo(device, r) {
  return sha256(bytesOf('coralmux-v3-commit'), device, r);
}

// What both ends show: six digits.
export async function codeOf(h2, device, r) {
  const digest = await sha256(bytesOf('coralmux-v3-code'), h2, device, r);
  return String(new DataView(digest.buffer).getBigUint64(0) % 1_000_000n).padStart(6, '0');
}

// What follows from a finished handshake: { sid, ofDevice, ofAgent, psk }; `psk` of an enrolment.
export async function keysOf(noise) {
  const [k1, k2] = await noise.split();
  const chain = async (key) => new Chain(await hmac(key, bytesOf('chain')));
  return {
    sid: (await sha256(bytesOf('coralmux-v3-sid'), noise.hash)).subarray(0, 8),
    ofDevice: await chain(k1),
    ofAgent: await chain(k2),
    psk: await derive(concat(k1, k2), noise.hash, 'coralmux-v3-psk', KEY_BYTES),
  };
}

// The payload of a `key_exchange`.
export function exchangeOf(noise, more = {}) {
  return { e2e: 3, ...more, noise: toBase64(noise) };
}

// { enrol?, noise, re? }, or null where it is none of version 3.
export function readExchange(payload) {
  const { e2e, enrol, noise, re } = payload ?? {};
  const isKnown = e2e === 3 && [undefined, null, 1, 2, 3].includes(enrol) && ['undefined', 'string'].includes(typeof (re ?? undefined));
  if (!isKnown) return null;
  try {
    return { enrol: enrol ?? undefined, noise: fromBase64(noise), re };
  } catch {
    return null;
  }
}

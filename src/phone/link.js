// Pairing links, and the pairing that this browser keeps.

import { readSecret } from './crypto.js';
import { readAgentPrint } from './keys.js';

const STORED = 'coralmux.pairing';
// Those beside the one that is shown.
const OTHERS = 'coralmux.others';
const TOKEN = /^oc_pair_[0-9a-f]{32}$/;

// What is wrong with a link; `message` is for people.
export class LinkError extends Error {}

// Reads a link of the page (`https://relay/#token=…&k=…`), one for apps (`openclaw://pair?token=…&relay=…&k=…`), or a
// bare token. Returns { token, k?, a? }; `page` is the URL of this page, which is the relay that it can connect to.
export function readLink(text, page) {
  const link = text.trim();
  if (TOKEN.test(link)) return { token: link };
  let url;
  try {
    url = new URL(link);
  } catch {
    throw new LinkError('This is not a pairing link. It begins with https:// or openclaw://');
  }
  const isApp = url.protocol === 'openclaw:';
  const fields = new URLSearchParams(isApp ? url.search : url.hash.slice(1));
  const relay = isApp ? fields.get('relay') : url.href;
  if (relay && hostOf(relay) !== new URL(page).host) {
    throw new LinkError(`This link belongs to another relay. Open the page of ${hostOf(relay) || 'that relay'} instead.`);
  }
  return readFields(fields);
}

// What stands behind the `#` of the page's own address; null where there is no pairing in it.
export function readFragment(hash) {
  const fields = new URLSearchParams(hash.slice(1));
  return fields.has('token') ? readFields(fields) : null;
}

// `fields.get(name)`: its value, or null.
export function readFields(fields) {
  const token = fields.get('token') ?? '';
  if (!TOKEN.test(token)) throw new LinkError('The link has no valid pairing token. Copy the whole link.');
  const [k, a] = [fields.get('k'), fields.get('a')];
  if (k === null && a === null) return { token };
  try {
    readSecret(k ?? '');
    if (a !== null) readAgentPrint(a);
  } catch {
    throw new LinkError('The end of the link is damaged: its key is not whole. Copy the whole link.');
  }
  return { token, k, ...(a !== null && { a }) };
}

function hostOf(relay) {
  try {
    return new URL(relay).host;
  } catch {
    return '';
  }
}

function stored(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

// Each { token, k?, a?, used?, plainAllowed?, name?, unseen? }; the one that was shown last comes first.
export function loadPairings() {
  const others = stored(OTHERS);
  const all = [stored(STORED), ...(Array.isArray(others) ? others : [])].filter((one) => TOKEN.test(one?.token));
  return all.filter(({ token }, at) => all.findIndex((one) => one.token === token) === at);
}

export function savePairings([shown, ...others]) {
  // A browser that keeps nothing (private mode) still chats until the page is closed.
  try {
    if (shown) localStorage.setItem(STORED, JSON.stringify(shown));
    else localStorage.removeItem(STORED);
    if (others.length) localStorage.setItem(OTHERS, JSON.stringify(others));
    else localStorage.removeItem(OTHERS);
  } catch {}
}

export function isSamePairing(one, other) {
  return one.token === other.token && one.k === other.k;
}

// A name for the pairing's history that does not give the token away.
export async function pairingName({ token }) {
  if (!crypto.subtle) return `plain-${token.slice(-8)}`;
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(`history:${token}`));
  return Array.from(new Uint8Array(digest).subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

// The relay that this page came from, which may be behind a path of its own.
export function socketUrl(page) {
  const url = new URL('ws', page);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

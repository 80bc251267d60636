// Pairing links, read and written without the engine's `URL`, which React Native has only half of.

import { randomBytes, toBase64url } from '../../../src/phone/crypto.js';
import { LinkError, readFields } from '../../../src/phone/link.js';

const APP = 'openclaw://pair?';
const LINK_CHARACTERS_MAX = 4_096;
const SECRET_BYTES = 32;

// { url: of the WebSocket, token, k?, a? }, or `LinkError`.
export function parseLink(text) {
  const link = String(text).trim();
  if (link.length > LINK_CHARACTERS_MAX) throw new LinkError('This is too long for a pairing link.');
  if (link.startsWith(APP)) {
    const fields = fieldsOf(link.slice(APP.length));
    const url = fields.get('relay') ?? '';
    if (!/^wss?:\/\/[^/?#\s]+\S*$/.test(url)) throw new LinkError('The link has no relay address that begins with ws:// or wss://');
    return { url, ...readFields(fields) };
  }
  const [, s, host, path = '/', fragment] = link.match(/^http(s?):\/\/([^/?#\s]+)(\/[^?#\s]*)?(?:\?[^#]*)?#(.*)$/) ?? [];
  if (!host) throw new LinkError('This is not a pairing link. It begins with https:// or openclaw://');
  return { url: `ws${s}://${host}${path.replace(/[^/]*$/, '')}ws`, ...readFields(fieldsOf(fragment)) };
}

function fieldsOf(text) {
  const fields = new Map();
  for (const part of text.split('&')) {
    const [name, ...value] = part.split('=');
    try {
      fields.set(name, decodeURIComponent(value.join('=')));
    } catch {
      throw new LinkError('A part of the link is damaged. Copy the whole link.');
    }
  }
  return { get: (name) => fields.get(name) ?? null };
}

// Both forms of a link: { app, browser }; `browser` is null where the relay's address does not end in /ws.
export function formatLink({ url, token, k, a }) {
  const more = `${k ? `&k=${k}` : ''}${a ? `&a=${a}` : ''}`;
  const [, s, rest] = url.match(/^ws(s?):\/\/([^?#]+)\/ws$/) ?? [];
  const browser = rest ? `http${s}://${rest}/#token=${token}${more}` : null;
  return { app: `${APP}token=${token}&relay=${encodeURIComponent(url)}${more}`, browser };
}

// Registers a new pairing at a relay, with a secret that the relay never sees. `relay`: the address of its WebSocket;
// `adminKey`: where its operator asks for one.
export async function pair(relay, { adminKey, fetch = globalThis.fetch } = {}) {
  const url = relay.endsWith('/ws') ? relay : `${relay.replace(/\/+$/, '')}/ws`;
  const headers = { ...(adminKey && { 'X-Admin-Key': adminKey }) };
  const path = adminKey ? 'api/v1/pair' : 'api/v1/register';
  const answer = await fetch(url.replace(/^ws/, 'http').replace(/ws$/, path), { method: 'POST', headers });
  const text = await answer.text();
  if (answer.status !== 201) throw new Error(`The relay did not make a pairing: ${answer.status} ${text.slice(0, 200)}`);
  return formatLink({ url, token: JSON.parse(text).token, k: toBase64url(randomBytes(SECRET_BYTES)) });
}

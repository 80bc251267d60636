// The browser's phone without its page, for tests/interop/ends.py: messages to send come as lines of JSON, what happens
// is told in the same way. With a link that has `a` it is a device, which lasts as long as the process. Ends with its
// standard input.
import { createInterface } from 'node:readline';
import { WebSocket } from 'ws';
import { Channel } from '../../../src/phone/channel.js';
import { readSecret, support } from '../../../src/phone/crypto.js';
import { DeviceChannel, deviceFor } from '../../../src/phone/device-channel.js';
import { readFragment, socketUrl } from '../../../src/phone/link.js';

globalThis.WebSocket = WebSocket; // Node has one of its own only from version 22 on

const page = process.argv[2];
const { token, k, a } = readFragment(new URL(page).hash);
const tell = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
const waiting = [];
let security;

const handlers = {
  change() {
    if (channel.security !== security) {
      security = channel.security;
      const versions = { verified: a ? 3 : 2, unverified: 1 };
      if (versions[security.name]) tell('secure', { version: versions[security.name], fingerprint: security.fingerprint });
      else tell(security.name, { message: security.why, code: security.code });
    }
    flush();
  },
  message: (type, payload) => tell('message', { type, payload }),
  error: (payload) => tell('error', payload),
  refused: (payload) => tell('error', payload),
  unreadable: (message) => tell('refused', { message }),
  missed: (count) => tell('missed', { count }),
  store: async () => {},
  enrolled: () => tell('enrolled', { device: channel.id }),
};
const url = socketUrl(page);
const channel = a
  ? new DeviceChannel(url, { token, k, a }, await deviceFor({ k }), 'Node', handlers)
  : new Channel(url, { token, secret: k && readSecret(k) }, await support(), handlers);

let flushing = false;
async function flush() {
  if (flushing) return;
  flushing = true;
  while (waiting.length && channel.ready && (await channel.send(waiting[0].type, waiting[0].payload))) waiting.shift();
  flushing = false;
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    waiting.push(JSON.parse(line));
    flush();
  })
  .on('close', () => process.exit(0));
channel.start();

// How a browser becomes a device: three messages with the secret of a link, and a code of six digits for people to compare.

import { Refused, bytesOf, randomBytes, toBase64url } from './crypto.js';
import { DeviceEnd } from './device.js';
import { agentPrint, codeOf, commitmentTo, exchangeOf, keysOf, readExchange } from './keys.js';
import { Noise } from './noise.js';
import { Sessions } from './sessions.js';

const TRIES_MAX = 3;
const SILENCE_MS = 10_000;
const DEVICE_NAME_CHARACTERS_MAX = 64;
const SECOND_BYTES = 96;
const NOT_SHOWN = /[\p{Cc}\u{61c}\u{200e}\u{200f}\u{2028}-\u{202e}\u{2066}-\u{2069}]/gu;

// A step is refused: `message` is 'malformed', 'wrong secret', 'other agent', 'answered' or 'spent'.
export class EnrolError extends Refused {}

// A name as a device may have it: what a terminal shows as it is, cut to 64 characters.
export function cleaned(name) {
  const whole = name.toWellFormed?.() ?? name;
  return [...whole.replace(NOT_SHOWN, '')].slice(0, DEVICE_NAME_CHARACTERS_MAX).join('');
}

export class Enrolment {
  #about;
  #tries = 0;
  // { id, r, noise, first, sentAt, isAnswered }
  #current = null;
  #isUnsent = true;
  #isDone = false;

  // pair: D; k: of the link; agent: the link's `a`
  constructor({ token, device, pair, k, agent, name, platform }) {
    Object.assign(this, { token, device, pair, k, agent });
    this.#about = { name: cleaned(name), platform: cleaned(platform) };
  }

  handleConnected() {
    this.#isUnsent = true;
  }

  // { id, payload } of the first message, if it is time for it, else null; `EnrolError`: tried too often. It is to be
  // called again after `silence`. `ephemeral` and `r` are for tests.
  async pollFirst(now, id, { pair, r = randomBytes(32) } = {}) {
    if (this.#isDone) return null;
    const isSilent = !this.#current || now.monotonic >= this.#current.sentAt + SILENCE_MS;
    if (isSilent) {
      if (this.#tries >= TRIES_MAX) throw new EnrolError('spent');
      this.#tries += 1;
      const prologue = `coralmux-relay-e2e-v3:enrol:${this.token}:${this.device}`;
      const noise = await Noise.start('XX', prologue, this.k, { own: this.pair, pair });
      const first = await noise.write(await commitmentTo(this.pair.publicKey, r));
      this.#current = { id, r, noise, first };
    }
    const isDue = (isSilent || this.#isUnsent) && !this.#current.isAnswered;
    this.#isUnsent = false;
    if (!isDue) return null;
    this.#current.sentAt = now.monotonic;
    return { id: this.#current.id, payload: exchangeOf(this.#current.first, { enrol: 1 }) };
  }

  static get silenceMs() {
    return SILENCE_MS;
  }

  // Takes the agent's answer: { end, code }, to be stored before the end's `enrolment` leaves; null for an answer to an
  // older message.
  async handleSecond(now, payload) {
    const exchange = readExchange(payload);
    if (exchange?.enrol !== 2) throw new EnrolError('malformed');
    const current = this.#current;
    if (!this.#isDone && exchange.re !== current?.id) return null;
    if (this.#isDone || current.isAnswered) throw new EnrolError('answered');
    const { noise, r } = current;
    // A payload is none of this protocol's.
    if (exchange.noise.length !== SECOND_BYTES) throw new EnrolError('malformed');
    await noise.read(exchange.noise).catch(() => {
      throw new EnrolError('wrong secret');
    });
    // Whatever becomes of it, this first message takes no other.
    current.isAnswered = true;
    if ((await agentPrint(noise.remote)) !== this.agent) throw new EnrolError('other agent');
    const code = await codeOf(noise.hash, this.pair.publicKey, r);
    const third = await noise.write(bytesOf(JSON.stringify({ r: toBase64url(r), ...this.#about })));
    const { sid, ofAgent, ofDevice, psk } = await keysOf(noise);
    const sessions = Sessions.of(this.device, { sid, receive: ofAgent, send: ofDevice }, now);
    this.#isDone = true;
    const { token, pair } = this;
    return { end: new DeviceEnd({ token, pair, agent: noise.remote, psk, third, sessions }), code };
  }
}

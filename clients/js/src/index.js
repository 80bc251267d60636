export { Refused } from '../../../src/phone/crypto.js';
export { LinkError } from '../../../src/phone/link.js';
export { Agent } from './agent.js';
export { AskError } from './answer.js';
export { configure } from './configure.js';
export { formatLink, pair, parseLink } from './pairing.js';
export { Phone } from './phone.js';
export { indexedDbStorage } from './storage.js';

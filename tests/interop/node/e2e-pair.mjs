// A key pair whose private key is known, as the page never makes one.
import { engine } from '../../../src/phone/engine.js';

export async function fixedPair(privateKey, publicKey) {
  const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b656e04220420', 'hex'), Buffer.from(privateKey, 'hex')]);
  const key = await engine.crypto.subtle.importKey('pkcs8', pkcs8, { name: 'X25519' }, false, ['deriveBits']);
  return { privateKey: key, publicKey: new Uint8Array(Buffer.from(publicKey, 'hex')) };
}

// With `node --import`: whatever is tested runs on @noble, and on this package's UTF-8 and base64.
import { decodeBase64, decodeUtf8, encodeBase64, encodeUtf8 } from '../src/text.js';
import { engine } from '../../../src/phone/engine.js';
import '../src/noble.js';

Object.assign(engine, { encode: encodeUtf8, decode: decodeUtf8, btoa: encodeBase64, atob: decodeBase64 });

// Parts of the phone in the browser that need no browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LinkError, readFragment, readLink, socketUrl } from '../../../src/phone/link.js';
import { newId, retryDelay } from '../../../src/phone/relay.js';
import { errorText, presence, security } from '../../../src/phone/words.js';

const TOKEN = `oc_pair_${'0123456789abcdef'.repeat(2)}`;
const K = 'A'.repeat(43);

test('delays double up to a minute, are never in step, and keep to what the relay asks for', () => {
  const [soonest, latest] = [() => 0, () => 1];
  assert.deepEqual([0, 1, 2, 5, 6, 7, 1000].map((failures) => retryDelay(failures, { random: latest })), [1000, 2000, 4000, 32000, 60000, 60000, 60000]);
  assert.equal(retryDelay(3, { random: soonest }), 4000, 'from half of it on');
  assert.equal(retryDelay(0, { random: latest, busy: true }), 5000, 'a relay that is full has more time');
  assert.equal(retryDelay(0, { random: latest, atLeast: 90_000 }), 90_000, 'retry_after_ms, also beyond a minute');
});

test('a link gives token and key, or says what is wrong', () => {
  const page = 'https://relay.example:8443/';
  for (const link of [
    `https://relay.example:8443/#token=${TOKEN}&k=${K}`,
    ` https://relay.example:8443/#k=${K}&later=1&token=${TOKEN} `,
    `openclaw://pair?token=${TOKEN}&relay=wss%3A%2F%2Frelay.example%3A8443%2Fws&k=${K}`,
  ]) {
    assert.deepEqual(readLink(link, page), { token: TOKEN, k: K }, link);
  }
  assert.deepEqual(readLink(TOKEN, page), { token: TOKEN });
  assert.deepEqual(readLink(`https://relay.example:8443/#token=${TOKEN}`, page), { token: TOKEN });
  for (const [link, why] of [
    ['', /not a pairing link/],
    [`https://relay.example/#token=${TOKEN}&k=${K}`, /another relay/],
    [`https://relay.example:8443/?token=${TOKEN}`, /no valid pairing token/],
    [`https://relay.example:8443/#token=${TOKEN.toUpperCase()}`, /no valid pairing token/],
    [`https://relay.example:8443/#token=${TOKEN}&k=`, /damaged/],
    [`https://relay.example:8443/#token=${TOKEN}&k=${K}A`, /damaged/],
  ]) {
    assert.throws(() => readLink(link, page), (error) => error instanceof LinkError && why.test(error.message), link);
  }
  assert.equal(readFragment('#elsewhere'), null);
  assert.equal(socketUrl(page), 'wss://relay.example:8443/ws');
  assert.equal(socketUrl('http://localhost:8080/'), 'ws://localhost:8080/ws');
});

test('ids are UUIDs of version 4', () => {
  assert.match(newId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(newId(), newId());
});

test('there are words for each state and for each reason', () => {
  assert.equal(presence({ name: 'waiting', until: 4500 }, false, 1000), 'Reconnecting in 4 s');
  for (const state of ['none', 'pending', 'verified', 'unverified']) assert.ok(security({ name: state }).text, state);
  for (const why of ['agent', 'insecure', 'old']) assert.ok(security({ name: 'plain', why }).text, why);
  for (const why of ['version1', 'mismatch', 'tampered', 'secret', 'insecure', 'old']) {
    assert.ok(security({ name: 'refused', why }).text, why);
  }
  assert.equal(errorText({ code: 'RATE_LIMITED', retry_after_ms: 1834 }), 'Too many messages. Try again in 2 s.');
  assert.equal(errorText({ code: 'BACKEND_ERROR', message: 'no model' }), 'no model');
  assert.ok(errorText({}));
});

// Parts of the phone in the browser that need no browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Answers } from '../../../src/phone/answers.js';
import { labelOf } from '../../../src/phone/markdown.js';
import { LinkError, readFragment, readLink, socketUrl } from '../../../src/phone/link.js';
import { Relay, newId, retryDelay } from '../../../src/phone/relay.js';
import { Receiver, Resume, Sender } from '../../../src/phone/resume.js';
import { Stream } from '../../../src/phone/stream.js';
import { errorText, plainText, presence, security, unverifiedText } from '../../../src/phone/words.js';

const TOKEN = `oc_pair_${'0123456789abcdef'.repeat(2)}`;
const K = 'A'.repeat(43);

test('delays double up to a minute, are never in step, and keep to what the relay asks for', () => {
  const [soonest, latest] = [() => 0, () => 1];
  assert.deepEqual([0, 1, 2, 5, 6, 7, 1000].map((failures) => retryDelay(failures, { random: latest })), [1000, 2000, 4000, 32000, 60000, 60000, 60000]);
  assert.equal(retryDelay(3, { random: soonest }), 4000, 'from half of it on');
  assert.equal(retryDelay(0, { random: latest, busy: true }), 5000, 'a relay that is full has more time');
  assert.equal(retryDelay(0, { random: latest, atLeast: 90_000 }), 90_000, 'retry_after_ms, also beyond a minute');
});

// A connection to nowhere, whose clock and socket the test moves.
function connecting(t) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  t.mock.method(Math, 'random', () => 1);
  const before = globalThis.WebSocket;
  t.after(() => (globalThis.WebSocket = before));
  const sockets = [];
  globalThis.WebSocket = class {
    sent = [];
    constructor() {
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {}
  };
  const relay = new Relay('ws://nowhere/ws', { token: TOKEN, ext: 1 }, { state() {}, message() {} });
  const says = (type, payload) => sockets.at(-1).onmessage({ data: JSON.stringify({ type, payload }) });
  const authenticates = (ms) => {
    sockets.at(-1).onopen();
    says('auth.ok', { paired: true, ext: { v: 1 } });
    t.mock.timers.tick(ms);
  };
  // Breaks, waits for the next try, and returns how long that was.
  const breaks = (code = 1006) => {
    sockets.at(-1).onclose({ code });
    const wait = relay.state.until - Date.now();
    t.mock.timers.tick(wait);
    assert.equal(relay.state.name, 'connecting');
    return wait;
  };
  relay.start();
  return { relay, sockets, says, authenticates, breaks };
}

test('what worked and broke is tried again at once; the waits grow with tries that fail', (t) => {
  const { authenticates, breaks } = connecting(t);
  assert.deepEqual([breaks(), breaks(), breaks()], [1000, 2000, 4000]);
  authenticates(6000);
  assert.equal(breaks(), 500, 'half a second at most');
  assert.deepEqual([breaks(), breaks()], [1000, 2000]);
  authenticates(6000);
  assert.equal(breaks(), 500);
  const brief = Array.from({ length: 6 }, () => (authenticates(100), breaks()));
  assert.deepEqual(brief, [500, 500, 1000, 2000, 4000, 8000], 'from the third in a row they count as tries that fail');
  authenticates(6000);
  assert.equal(breaks(1012), 1000, 'a relay that restarts has its time');
  authenticates(6000);
  assert.equal(breaks(1013), 5000, 'and one that is full');
});

test('the relay has taken what was sent before a ping that it answers, and nothing else', (t) => {
  const { relay, sockets, says, authenticates } = connecting(t);
  authenticates(0);
  assert.deepEqual(sockets[0].sent[0].payload, { token: TOKEN, ext: 1, role: 'phone' });
  assert.deepEqual(relay.state.ext, { v: 1 });
  const taken = [];
  relay.send({ type: 'chat.send', id: 'one' });
  relay.whenTaken(() => taken.push('one'));
  relay.whenTaken(() => taken.push('two'));
  assert.deepEqual(sockets[0].sent.slice(1).map(({ type }) => type), ['chat.send', 'ping', 'ping']);
  says('pong');
  assert.deepEqual(taken, ['one']);
  sockets[0].onclose({ code: 1006 });
  t.mock.timers.tick(1000);
  authenticates(0);
  says('pong');
  assert.deepEqual(taken, ['one'], 'what waited on the other socket is not known to have come');
  relay.whenTaken(() => {}, 1_600_000);
  t.mock.timers.tick(105_000);
  assert.equal(relay.state.name, 'open', 'a large message has its time');
  t.mock.timers.tick(10_000);
  assert.equal(relay.state.name, 'waiting', 'and then the connection is dead');
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

test('what others write is one line of bounded length, in the order in which it was written', () => {
  assert.equal(plainText(' a\n\tb\u0000c\u202ed\u2066e ', 99), 'a b cde');
  assert.equal(plainText('x'.repeat(1e6), 5), 'xxxxx…');
  assert.equal(plainText({ a: 1 }, 5), '');
  assert.equal(unverifiedText({ code: 'RATE_LIMITED' }), 'The relay says (not verified): Too many messages.');
  assert.equal(unverifiedText({ code: 'X', message: 'your\naccount' }), 'The relay says (not verified): your account');
  assert.ok(unverifiedText({ message: 'x'.repeat(1e6) }).length < 400);
  for (const odd of [{}, { code: 'toString' }, { code: {}, message: [] }]) assert.match(unverifiedText(odd), /^The relay says/);
});

test('a link that reads like another address shows where it goes', () => {
  for (const [label, target, shown] of [
    ['here', 'https://evil.example/a', 'here'],
    ['https://example.org/a', 'https://example.org/a', 'https://example.org/a'],
    ['example.org', 'https://example.org/', 'example.org'],
    ['https://bank.example', 'https://evil.example/', 'https://bank.example (evil.example)'],
    ['bank.example', 'https://evil.example/', 'bank.example (evil.example)'],
    ['bank．example', 'https://evil.example/', 'bank．example (evil.example)'],
    ['example.org.evil.example', 'https://example.org/', 'example.org.evil.example (example.org)'],
    ['https://bank.example@evil.example/', 'https://bank.example@evil.example/', 'https://bank.example@evil.example/ (evil.example)'],
  ]) {
    assert.equal(labelOf(label, target), shown);
  }
});

// The answers as they are shown, and what was said of the questions.
function answering() {
  const shown = [];
  const failed = [];
  const answers = new Answers({
    security: () => 'verified',
    show: (answer) => shown.includes(answer) || shown.push(answer),
    remove: (answer) => shown.splice(shown.indexOf(answer), 1),
    keep: () => {},
    progress: () => {},
    announce: () => {},
    answered: () => {},
    settled: () => {},
    ended: (ref, text) => failed.push([ref, text]),
    failed: (ref, text) => Boolean(failed.push([ref, text])),
  });
  const delta = (ref, seq, text) => answers.receive('chat.stream', { ref, seq, delta: text });
  const state = () => shown.map(({ ref, text, state }) => [ref, text, state]);
  return { answers, shown, failed, delta, state };
}

test('what is to be sent while nothing else is leaves at once', async () => {
  const sent = [];
  const keys = {};
  const owner = {
    keys: () => keys,
    seal: async (_keys, _type, _id, plain) => plain,
    hand: (type, { p }) => sent.push([type, p]),
    send: (type) => sent.push([type]),
  };
  const next = ['a', 'b', 'c'];
  const handlers = {
    // The ends have met: whoever waited for that sends now.
    change: () => next.length && stream.push('chat.send', next.shift(), `id ${next.length}`),
    resumed: () => {},
  };
  const stream = new Stream(new Resume(new Sender(() => 'A'.repeat(11)), new Receiver()), owner, handlers);
  stream.handleAgreed();
  await delay(20);
  for (let n = 0; n < 3; n++) {
    stream.handle('ack', { a: n ? { e: 'A'.repeat(11), n } : { e: '', n: 0 } });
    await delay(20);
  }
  stream.stop();
  assert.deepEqual(sent, [['ack'], ['chat.send', 'a'], ['chat.send', 'b'], ['chat.send', 'c']]);
});

test('an answer belongs to the question that it names, and so does an error', () => {
  const { answers, failed, delta, state } = answering();
  for (const ref of ['one', 'two', 'three']) answers.expect(ref);
  delta('two', 1, 'second');
  delta('one', 1, 'first');
  answers.fail('three', 'no model');
  answers.receive('chat.done', { ref: 'two', full_text: 'second.' });
  answers.fail('one', 'broke');
  assert.deepEqual(state(), [['one', 'first', 'cut'], ['two', 'second.', 'done']]);
  assert.deepEqual(failed, [['three', 'no model']], 'without a word of an answer no line is left for one');
});

test('without names, answers come in the order of their questions', () => {
  const { answers, delta, state, failed } = answering();
  for (const ref of ['one', 'two']) answers.expect(ref);
  delta(undefined, 1, 'first');
  answers.receive('chat.done', { full_text: 'first.' });
  answers.fail(undefined, 'no');
  assert.deepEqual(state(), [['one', 'first.', 'done']]);
  assert.deepEqual(failed, [['two', 'no']]);
});

test('a restart ends what the agent had begun, and nothing that it gets after that', () => {
  const { answers, failed, delta, state } = answering();
  for (const ref of ['one', 'two', 'three']) answers.expect(ref);
  delta('one', 1, 'first');
  answers.meet((ref) => ref === 'two');
  answers.pause(false);
  answers.restarted('restarted');
  assert.deepEqual(state(), [['one', 'first', 'cut'], ['three', '', 'streaming']]);
  assert.deepEqual(failed, [['two', 'restarted']]);
  answers.restarted('again');
  assert.equal(failed.length, 1);
});

test('what is missing of an answer is told until it comes whole', () => {
  const { answers, shown, delta } = answering();
  delta('one', 5, 'end');
  assert.equal(shown[0].gap, 'beginning');
  answers.receive('chat.done', { ref: 'one', full_text: 'begin end' });
  assert.deepEqual([shown[0].gap, shown[0].text], [undefined, 'begin end']);
  const kept = { role: 'agent', ref: 'two', text: 'be', seq: 1, state: 'cut' };
  answers.restore([kept]);
  delta('two', 2, 'gin ');
  assert.deepEqual([kept.text, kept.gap, kept.state], ['begin ', undefined, 'streaming']);
  delta('two', 4, 'nd');
  assert.equal(kept.gap, 'part');
  answers.receive('chat.done', { ref: 'three', full_text: '' });
  assert.equal(shown.at(-1).remark, 'The answer is empty');
});

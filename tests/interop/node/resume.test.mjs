// The page's part in resuming, against the vectors of clients/vectors/resume.json.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Refused } from '../../../src/phone/crypto.js';
import * as e2e from '../../../src/phone/e2e.js';
import { Malformed, Receiver, Resume, Sender, readAck, readRecord } from '../../../src/phone/resume.js';
import { fixedPair } from './e2e-pair.mjs';

const vectors = JSON.parse(readFileSync(new URL('../../../clients/vectors/resume.json', import.meta.url), 'utf8'));
const NOTHING = { e: '', n: 0 };
const hex = (text) => new Uint8Array(Buffer.from(text, 'hex'));
const base64 = (text) => new Uint8Array(Buffer.from(text, 'base64'));
const nameOf = ({ name, why }) => name ?? why;

// ---- Agreeing on it ----

// The phone's handshake with the ephemeral key of the vectors.
async function opened(resumes) {
  const publicKey = Buffer.from(hex(vectors.message_1)).subarray(0, 32).toString('hex');
  const pair = await fixedPair(vectors.phone_ephemeral_private, publicKey);
  return e2e.Handshake.start(hex(vectors.secret), vectors.token, { pair, resumes });
}

test('the phone opens, and agrees, as the vectors have it', async () => {
  const handshake = await opened(true);
  assert.deepEqual(handshake.opening, hex(vectors.message_1));
  for (const { why, payload } of vectors.refused_answers) {
    await assert.rejects(handshake.finish(payload), Refused, why);
  }
  const session = await handshake.finish(vectors.key_exchange.answer);
  assert.equal(session.resumes, true);
  const [ours, theirs] = ['phone', 'agent'].map((from) => vectors.messages.filter((message) => message.from === from));
  for (const { type, plaintext, payload } of ours) {
    assert.deepEqual(await session.seal(type, JSON.parse(plaintext)), payload);
  }
  for (const { type, plaintext, payload } of theirs) assert.deepEqual(await session.open(type, payload), JSON.parse(plaintext));
});

test('without it the opening is that of version 2', async () => {
  assert.deepEqual((await opened(false)).opening, base64(vectors.plain_opening.noise));
  for (const { why, payload } of vectors.plain_announcements) assert.equal(e2e.offersResume(payload), false, why);
  assert.equal(e2e.offersResume(vectors.key_exchange.announcement), true);
});

// ---- Plaintexts ----

test('records and acks are read', () => {
  for (const { plaintext, record } of vectors.records.read) assert.deepEqual(readRecord(JSON.parse(plaintext)), record, plaintext);
  for (const { plaintext, a, r } of vectors.acks.read) assert.deepEqual(readAck(JSON.parse(plaintext)), { a, r }, plaintext);
});

test('what is out of range, or missing, is refused', () => {
  for (const [read, cases] of [[readRecord, vectors.records.refused], [readAck, vectors.acks.refused]]) {
    for (const { why, plaintext } of cases) {
      assert.throws(() => read(JSON.parse(plaintext)), (error) => error instanceof Malformed || error instanceof SyntaxError, why);
    }
  }
});

// ---- Scripts ----

function filled(fields, size) {
  if (size === undefined) return fields;
  const bare = JSON.stringify({ ...fields, x: '' }).length;
  return { ...fields, x: 'x'.repeat(size - bare) };
}

// One that has agreed, and whose first ack and the peer's have passed.
function quiet(sender, receiver) {
  const resume = new Resume(sender, receiver);
  resume.handleAgreed();
  assert.deepEqual(resume.poll(-1e9), { ack: { a: NOTHING, r: true } });
  resume.handleAck(0, { a: NOTHING, r: false });
  return resume;
}

for (const script of vectors.receiver) {
  test(`receiver: ${script.name}`, () => {
    const receiver = new Receiver();
    receiver.counted = !script.ext;
    const resume = quiet(new Sender(() => 'AAAAAAAAAAA'), receiver);
    for (const step of script.steps) {
      const now = step.at;
      let [taken, missed, confirm] = [[], 0, undefined];
      if (step.do === 'record') {
        const { size, ...fields } = step.record;
        const payload = filled({ n: fields.n }, size);
        const record = readRecord({ ...fields, p: payload });
        ({ taken, missed } = resume.handleRecord(now, record, JSON.stringify(payload).length, record.n));
      } else if (step.do === 'agreed') {
        resume.handleAgreed();
      } else if (step.do === 'pause') resume.handlePause();
      else if (step.do === 'drains') resume.handleConnected(null, true);
      else if (step.do === 'mail') ({ taken, missed, confirm } = receiver.handleMail(now, step.upto, step.left));
      assert.equal(confirm, step.confirm, JSON.stringify(step));
      const acks = step.do === 'carry' ? [{ a: receiver.told() }] : [];
      for (let next; (next = resume.poll(now)); ) acks.push(next.ack);
      if (step.do === 'agreed') resume.handleAck(now, { a: NOTHING, r: false });
      const seen = { taken, missed, acks, held: receiver.held };
      assert.deepEqual(seen, { taken: step.taken, missed: step.missed, acks: step.acks, held: step.held }, JSON.stringify(step));
      assert.ok(resume.deadline() > now, JSON.stringify(step));
    }
  });
}

// An agent's window, in which most scripts are written.
const WIDE = { messages: 256, bytes: 192 << 10 };
// What a phone does not have: answers, and giving up.
const isPhones = ({ role, steps }) =>
  steps.every((step) => !['piece', 'done', 'error'].includes(step.do) && !step.given_up && step.keep !== 'wake' && !step.fleeting) &&
  // An agent sends what never came again by itself.
  (role === 'phone' || steps.every((step) => !step.a?.x));

function sending(script) {
  const boots = [...(script.boots ?? ['Ev6rT0fHdwQ'])];
  const sender = new Sender(() => boots.shift(), script.role === 'phone' ? undefined : WIDE);
  sender.mailBytesMax = script.mail ?? null;
  return sender;
}

function act(resume, step) {
  const now = step.at;
  const ack = step.ack ?? step;
  if (step.do === 'send') {
    const payload = filled({ id: step.id }, step.size);
    resume.sender.push({ type: 'x', id: step.id, payload, size: JSON.stringify(payload).length, t: vectors.t0 + step.at });
  } else if (step.do === 'ack') resume.handleAck(now, { a: ack.a, r: ack.r ?? false });
  else if (step.do === 'refused') return resume.sender.handleRefused(now, step.id, step.code, step.retry_after_ms);
  else if (step.do === 'agreed') resume.handleAgreed();
  else if (step.do === 'kept') resume.sender.handleKept(step.id);
  else if (step.do === 'absent') resume.handleAbsent();
  else if (['pause', 'connected', 'lost', 'online'].includes(step.do)) resume.handlePause();
  else assert.equal(step.do, 'time');
  return undefined;
}

function leaving(resume, { ack, message }) {
  if (ack) return { ack };
  const { e, n, f = n, b, t } = resume.sender.record(message, NOTHING);
  const { keep } = resume.sender;
  return { e, n, f, b, is: message.id, ...(keep && { keep }), ...(t !== undefined && { t }) };
}

const scripts = vectors.sender.filter(isPhones);

test('the scripts that a phone can follow are most', () => assert.ok(scripts.length >= 12, `${scripts.length}`));

for (const script of scripts) {
  test(`sender: ${script.name}`, () => {
    const resume = quiet(sending(script), new Receiver());
    for (const step of script.steps) {
      const told = act(resume, step) === 'void' ? [step.id] : [];
      told.push(...resume.sender.takeUndelivered().map(({ id }) => id));
      if (step.do === 'agreed') assert.ok(resume.poll(step.at).ack, 'the first of an agreement');
      const out = [];
      for (let next; (next = resume.poll(step.at)); ) if (next.message) out.push(leaving(resume, next));
      assert.deepEqual([out, told], [step.out, step.told ?? []], JSON.stringify(step));
      assert.ok(resume.sender.deadline() > step.at, JSON.stringify(step));
    }
  });
}

test('sender: refused with a code that nobody knows, a message is held and holds up nothing', () => {
  const sender = new Sender(() => 'AAAAAAAAAAA');
  const leaves = () => {
    const ids = [];
    for (let next; (next = sender.poll(10)); ) ids.push(next.id);
    return ids;
  };
  const push = (id) => sender.push({ type: 'x', id, payload: {}, size: 2 });
  sender.isOpen = true;
  push('m1');
  assert.deepEqual(leaves(), ['m1']);
  for (const code of ['NEWER_THAN_THIS', '', undefined]) {
    for (const after of [0, 60_000]) assert.equal(sender.handleRefused(10, 'm1', code, after), 'held');
  }
  push('m2');
  assert.deepEqual(leaves(), ['m2'], 'sending goes on, and nothing leaves twice unasked');
  sender.handleAck(10, NOTHING, true);
  assert.deepEqual(leaves(), ['m1', 'm2'], 'nothing is lost');
});

for (const script of vectors.agreement) {
  test(`agreement, as ${script.role}: ${script.name}`, () => {
    const receiver = new Receiver();
    receiver.counted = false;
    const resume = new Resume(sending(script), receiver);
    for (const step of script.steps) {
      act(resume, step);
      const out = [];
      for (let next; (next = resume.poll(step.at)); ) {
        const left = leaving(resume, next);
        out.push(left.ack ? left : { record: left });
      }
      assert.deepEqual(out, step.out, JSON.stringify(step));
      assert.ok(resume.deadline() > step.at, JSON.stringify(step));
    }
  });
}

// ---- What is kept ----

test('where it is kept, only what is kept is acknowledged', () => {
  const receiver = new Receiver({ boots: [['Ev6rT0fHdwQ', 4]], keeps: true });
  receiver.counted = false;
  const resume = new Resume(new Sender(() => 'AAAAAAAAAAA'), receiver);
  resume.handleAgreed();
  assert.deepEqual(resume.poll(0).ack, { a: { e: 'Ev6rT0fHdwQ', n: 3 }, r: true }, 'as an earlier page kept it');
  resume.handleAck(0, { a: NOTHING, r: true });
  const record = (n) => readRecord({ e: 'Ev6rT0fHdwQ', n, b: 1, p: {} });
  assert.deepEqual(resume.handleRecord(0, record(4), 10, 4).taken, [4]);
  assert.equal(receiver.keepIsDue(999), false);
  assert.equal(receiver.keepIsDue(1000), true);
  assert.equal(resume.poll(1000), null, 'not before it is kept');
  assert.deepEqual(receiver.told(), { e: 'Ev6rT0fHdwQ', n: 3 }, 'nor by a record that leaves');
  receiver.handleKept(1000, null);
  assert.deepEqual([receiver.keepIsDue(1999), receiver.keepIsDue(2000)], [false, true], 'tried again');
  const { boots } = receiver;
  resume.handleRecord(2000, record(5), 10, 5);
  receiver.handleKept(2000, boots);
  assert.deepEqual([receiver.told(), resume.poll(2000)], [{ e: 'Ev6rT0fHdwQ', n: 4 }, null], 'of what has come since, nothing');
  receiver.handleKept(2500, receiver.boots);
  assert.deepEqual(resume.poll(3000).ack, { a: { e: 'Ev6rT0fHdwQ', n: 5 } });
});

// The page: link, channel, conversation and history together. State lives here and in `Channel`; elements only show it.

import { Answers } from './answers.js';
import { Channel } from './channel.js';
import { canScan, confirm, scanCode, showAbout } from './dialogs.js';
import { readSecret, support, toBase64 } from './e2e.js';
import { History } from './history.js';
import { Attached } from './images.js';
import { LinkError, isSamePairing, loadPairing, pairingName, readFragment, readLink, savePairing, socketUrl } from './link.js';
import { Conversation } from './messages.js';
import { within } from './patience.js';
import { newId } from './relay.js';
import { ENDED, RESTARTED, UNCONFIRMED, UNKNOWN, errorText, missedText, plainText, presence, security, unverifiedText } from './words.js';

const $ = (id) => document.getElementById(id);

// A longer text might not fit into a message.
const TEXT_CHARACTERS_MAX = 200_000;
// The browser itself is not waited for longer.
const BROWSER_MS = 3_000;
const PICTURES_MS = 20_000;
// How many messages wait for the agent at most.
const WAITING_MAX = 10;
// So many sent messages can be told from their errors.
const SENT_MAX = 100;
// How often an answer under way is written to the history.
const KEEP_EVERY_MS = 2_000;
// Notes on the screen, and of each visit: others may cause them without end.
const NOTES_MAX = 20;
const NOT_REMOVED = 'This browser’s storage does not answer. What it kept of the conversation may still be there.';
const NAME = 'My agent';
const NAME_CHARACTERS_MAX = 60;
// A rate limit is waited for by itself if it is not longer than this.
const PATIENCE_MS = 90_000;

const conversation = new Conversation($('scroller'), $('log'), {
  retry: (message) => resend(message),
  follow: (isAtEnd) => ($('to-end').hidden = isAtEnd),
});

let pairing = null;
let channel = null;
let history = null;
let abilities = 'ok';
// Whether agent and page have agreed to confirm what they get, in this page or an earlier one.
let hasResumed = false;
let keptAt = 0;
// Messages of the user that could not go out yet, and those that went out on this connection: id to message.
let waiting = [];
const sent = new Map();
let notes = [];
let notesKept = 0;
// How many messages of the agent never came, and the note that says so.
let missed = 0;
let missedNote = null;
// The request for the agent's name, and the keys under which it was made.
let nameAsked = null;

const attached = new Attached($('attached'), $('about').querySelector('header svg'), () => $('text').focus());

const answers = new Answers({
  security: () => channel.security.name,
  show: (answer) => showAnswer(answer),
  remove: (answer) => conversation.remove(answer),
  keep: (answer) => keep(answer),
  // What is confirmed is kept before that anyway.
  progress: (answer) => !hasResumed && Date.now() - keptAt > KEEP_EVERY_MS && keep(answer),
  announce: (text) => announce(text),
  answered: (ref) => markAnswered(ref),
  failed: (ref, text) => markFailed(ref, `The agent says: ${text}`),
  ended: (ref, text) => markFailed(ref, text),
});

// The pairing that is open here, and the other pages of this browser: the last one that opens it has it.
let shared = '';
const otherPages = globalThis.BroadcastChannel && new BroadcastChannel('coralmux');
if (otherPages) otherPages.onmessage = ({ data }) => data === shared && channel?.giveWay();

// ---- Pairing ----

async function begin() {
  abilities = await within(support(), BROWSER_MS).catch(() => 'old');
  pairing = loadPairing();
  const linked = fromAddressBar();
  if (linked) await adopt(linked);
  if (pairing) await openChat();
  else welcome();
}

// The pairing in the page's own address, which is taken out of it: an address is shown, kept and shared.
function fromAddressBar() {
  const { hash } = location;
  if (!hash) return null;
  try {
    return readFragment(hash);
  } catch (error) {
    showLinkError(error);
    return null;
  } finally {
    window.history.replaceState(null, '', location.pathname + location.search);
  }
}

// Takes a pairing, after asking where another one would be lost: a link may come from anybody.
async function adopt(linked) {
  if (pairing && isSamePairing(pairing, linked)) return true;
  if (pairing) {
    const same = pairing.token === linked.token;
    const text = same
      ? 'This link is for the agent that this browser is paired with, with another key. Take it only if it comes from your own agent.'
      : 'This browser is paired with another agent. Its conversation will be removed from this browser.';
    if (!(await confirm('Use this new link?', text, 'Use it'))) return false;
    await forgetPairing({ andConversation: !same });
  }
  pairing = linked;
  savePairing(pairing);
  return true;
}

async function pair(text) {
  try {
    const linked = readLink(text, location.href);
    $('link').value = '';
    showLinkError(null);
    if (await adopt(linked)) await openChat();
    return true;
  } catch (error) {
    showLinkError(error);
    return false;
  }
}

function showLinkError(error) {
  if (error && !(error instanceof LinkError)) throw error;
  $('link-error').textContent = error?.message ?? '';
  $('link').setAttribute('aria-invalid', String(Boolean(error)));
}

function welcome(trouble = '') {
  $('starting').hidden = $('chat').hidden = true;
  $('welcome').hidden = false;
  const { text } = security({ name: 'refused', why: abilities });
  $('welcome-note').textContent = trouble || (abilities === 'ok' ? '' : text);
  $('welcome-note').hidden = !$('welcome-note').textContent;
  $('app-note').hidden = !(navigator.standalone || matchMedia('(display-mode: standalone)').matches);
  canScan().then((can) => ($('scan').hidden = !can));
  if (matchMedia('(pointer: fine)').matches) $('link').focus();
}

// ---- The chat ----

async function openChat() {
  leaveChat();
  $('starting').hidden = $('welcome').hidden = true;
  $('chat').hidden = false;
  $('presence-text').textContent = 'Connecting…';
  const name = await pairingName(pairing);
  history = await History.open(name);
  const { messages, boots } = await history.load(newId());
  hasResumed = Boolean(boots);
  history.boots = () => (hasResumed ? channel?.boots : undefined);
  const earlier = messages.sort((one, other) => one.time - other.time);
  for (const message of earlier) {
    if (message.role === 'me' && message.id) remember(message);
    restore(message);
    conversation.show(message);
  }
  answers.restore(earlier);
  showName('');
  const secret = pairing.k ? readSecret(pairing.k) : null;
  channel = new Channel(socketUrl(location.href), { ...pairing, secret }, abilities, {
    change: () => refresh(),
    message: (type, payload) => receive(type, payload),
    error: (payload) => receiveError(payload),
    refused: (payload) => receiveUnread(payload),
    missed: (count) => noteMissed(count),
    unreadable: (reason) => note(`A message could not be read and was dropped: ${reason}.`),
    left: (id) => markLeft(id),
    taken: (id) => markTaken(id),
    numbered: (id, place) => markPlace(id, place),
    delivered: (id) => markDelivered(id),
    void: (id, payload) => markVoid(id, payload),
    waits: (id, payload) => markWaiting(id, payload),
    resumed: () => resumed(),
    restarted: () => answers.restarted(RESTARTED),
    keep: async () => (await kept(history?.commit()))?.boots,
  }, boots);
  for (const message of earlier.filter(isUnanswered)) {
    answers.expect(message.id);
    answers.await(message.id);
  }
  // Another page would be replaced only when it is connected, and might be so last.
  shared = name;
  otherPages?.postMessage(name);
  channel.start();
  refresh();
  $('text').focus({ preventScroll: true });
}

// What was under way when an earlier page was closed goes on, where that cannot make two of one.
function restore(message) {
  const { role, state, ticks, place, isOut } = message;
  if (role === 'agent' && state === 'streaming') {
    if (hasResumed) message.isPaused = true;
    else message.state = 'cut';
  }
  if (role !== 'me' || state === 'failed' || ticks === 2) return;
  if (place || (ticks === 0 && !isOut)) {
    message.state = 'waiting';
    waiting.push(message);
  } else if (state !== 'sent') {
    Object.assign(message, { state: 'failed', error: isOut ? UNKNOWN : 'Not sent' });
  }
}

function isUnanswered({ role, state, ticks, place, answered, id }) {
  return hasResumed && role === 'me' && state === 'sent' && ticks === 2 && place && !answered && !answers.has(id);
}

// Leaves the chat; the pairing and its conversation stay in the browser.
function leaveChat() {
  channel?.stop();
  channel = null;
  history?.close();
  history = null;
  conversation.clear();
  answers.clear();
  waiting = [];
  notes = [];
  missed = 0;
  missedNote = null;
  nameAsked = null;
  sent.clear();
  attached.clear();
}

// Resolves to whether nothing is left of what was to go.
async function forgetPairing({ andConversation }) {
  leaveChat();
  let isGone = true;
  if (andConversation) {
    const left = await History.open(await pairingName(pairing));
    isGone = await left.clear({ andPlace: true });
    left.close();
  }
  pairing = null;
  savePairing(null);
  return isGone;
}

function keep(message) {
  keptAt = Date.now();
  return kept(history?.put(message));
}

// What comes of keeping something: where another page has the pairing, this one lets go of it.
async function kept(change) {
  const outcome = await change;
  if (outcome?.isTaken) channel?.giveWay();
  return outcome;
}

function showAnswer(answer) {
  show(answer);
  if (hasResumed && (answer.text || answer.state !== 'streaming')) history?.mark(answer);
}

function show(message) {
  conversation.show(message);
  $('empty').hidden = true;
}

function note(text, unverified = false) {
  // The same again says nothing new.
  if (notes.at(-1)?.text === text && conversation.isLast(notes.at(-1))) return;
  const message = { role: 'note', text, time: Date.now(), state: 'done', unverified };
  notes.push(message);
  if (notes.length > NOTES_MAX) conversation.remove(notes.shift());
  show(message);
  if (notesKept++ < NOTES_MAX) keep(message);
  announce(text);
}

function noteMissed(count) {
  missed += count;
  if (!notes.includes(missedNote)) {
    note(missedText(missed, channel.resumes));
    missedNote = notes.at(-1);
  } else {
    missedNote.text = missedText(missed, channel.resumes);
    show(missedNote);
    keep(missedNote);
  }
}

let announced = '';
function announce(text) {
  // The same words twice would not be read out twice.
  announced = text === announced ? `${text}\u00a0` : text;
  $('announcer').textContent = announced;
}

// ---- What the user sends ----

async function submit() {
  const text = $('text').value.trim();
  const images = attached.blobs;
  if ((!text && !images.length) || !channel || $('send').disabled) return;
  if (tooLong()) return showComposerError(tooLong());
  if (waiting.length >= WAITING_MAX) return showComposerError('Enough messages wait for the agent already.');
  const message = { role: 'me', text, images, time: Date.now(), state: 'sending', ticks: 0 };
  $('text').value = '';
  attached.clear();
  showComposerError('');
  fitComposer();
  waiting.push(message);
  show(message);
  // Storage that does not answer keeps nothing from being sent.
  keep(message);
  await flush();
}

async function resend(message) {
  if (waiting.includes(message)) return;
  waiting.push(message);
  message.ticks = 0;
  for (const field of ['error', 'answered', 'again', 'place', 'isOut']) delete message[field];
  await flush();
}

let flushing = false;
// Sends what waits, in order, while the channel is ready.
async function flush() {
  if (flushing) return;
  flushing = true;
  try {
    while (waiting.length && channel?.ready) {
      const [message] = waiting;
      // Nobody would tell it from the first time.
      if (message.place && !channel.resumes) {
        waiting.shift();
        markFailed(message.id, UNKNOWN);
        continue;
      }
      setState(message, 'sending');
      if (!message.place) message.id = newId();
      remember(message);
      const payload = await payloadOf(message).catch(() => null);
      if (!payload) {
        waiting = waiting.filter((one) => one !== message);
        setState(message, 'failed', 'An image can no longer be read. Add it again.');
        continue;
      }
      // Whoever finds it half sent must know that it may have left.
      if (!channel?.resumes) {
        message.isOut = true;
        await keep(message);
      }
      // The chat may have been closed, or the channel lost, meanwhile.
      if (!(await channel?.send('chat.send', payload, message.id, message.place))) {
        delete message.isOut;
        if (!message.place) sent.delete(message.id);
        if (!channel?.ready) break;
        continue;
      }
      waiting = waiting.filter((one) => one !== message);
    }
  } finally {
    flushing = false;
  }
  for (const message of waiting) setState(message, 'waiting');
}

function remember(message) {
  sent.set(message.id, message);
  if (sent.size > SENT_MAX) sent.delete(sent.keys().next().value);
}

// What could not go out goes out later, before what was written after it.
function putBack(message) {
  if (!waiting.includes(message)) waiting = [...waiting, message].sort((one, other) => one.time - other.time);
  setState(message, 'waiting');
}

async function payloadOf(message) {
  const { images } = message;
  // Half of a pair of code units is no character; not every agent could read it.
  const text = message.text.toWellFormed?.() ?? message.text;
  if (!images?.length) return { text };
  const encoded = images.map(async (blob) => ({
    mime: blob.type,
    data: toBase64(new Uint8Array(await within(blob.arrayBuffer(), PICTURES_MS))),
  }));
  return { text, images: await Promise.all(encoded) };
}

// ---- What becomes of it ----

// It was handed to the socket, for the first time or again.
function markLeft(id) {
  const message = sent.get(id);
  if (!message) return;
  delete message.waits;
  if (message.state !== 'sent') setState(message, 'sending');
  if (!message.answered && !answers.has(id)) answers.expect(id);
}

// The relay has it.
function markTaken(id) {
  const message = sent.get(id);
  if (message?.state !== 'sending') return;
  message.ticks = 1;
  answers.await(id);
  setState(message, 'sent');
  keep(message);
}

// The agent has it.
function markDelivered(id) {
  if (nameAsked?.id === id) nameAsked.isHeld = false;
  const message = sent.get(id);
  if (!message || message.ticks === 2) return;
  message.ticks = 2;
  delete message.waits;
  answers.await(id);
  setState(message, 'sent');
  keep(message);
}

// Its number is kept before it leaves, so that a later page can say which one it was. The first number counts.
async function markPlace(id, place) {
  const message = sent.get(id);
  if (!message) return;
  message.place ??= place;
  await keep(message);
}

function markVoid(id, payload) {
  answers.retract(id);
  markFailed(id, unverifiedText(payload));
}

// The relay did not take it yet: it goes out again by itself.
function markWaiting(id, payload) {
  const message = sent.get(id);
  if (!message) return;
  answers.retract(id);
  message.ticks = 0;
  if (payload.code !== 'PEER_OFFLINE') message.waits = `Waits to be sent. ${unverifiedText({ ...payload, retry_after_ms: 0 })}`;
  setState(message, 'waiting');
}

// The connection broke: what the relay has not confirmed has perhaps not left. Where nobody confirms it, it goes out again
// once.
function recall() {
  for (const message of sent.values()) {
    if (message.state !== 'sending' || waiting.includes(message)) continue;
    answers.retract(message.id);
    if (hasResumed) setState(message, 'waiting');
    else if (message.again) markFailed(message.id, UNKNOWN);
    else {
      message.again = true;
      putBack(message);
    }
  }
}

// The ends have met and know what each of them lacks.
function resumed() {
  hasResumed = true;
  answers.meet((ref) => sent.get(ref)?.ticks === 2);
  answers.pause(false);
}

// The agent confirmed what it got, and does no more.
function resumedNoMore() {
  hasResumed = false;
  nameAsked = null;
  answers.interrupt();
  for (const message of [...sent.values()]) {
    if (!message.place || message.ticks === 2 || message.state === 'failed') continue;
    waiting = waiting.filter((one) => one !== message);
    markFailed(message.id, UNKNOWN);
  }
  note(UNCONFIRMED);
}

function setState(message, state, error) {
  message.state = state;
  if (error) message.error = error;
  show(message);
}

// ---- What the agent sends ----

function receive(type, payload) {
  if (type === 'chat.error') receiveAgentError(payload);
  else if (type === 'agent.list.result') receiveName(payload);
  // Types of other apps: nothing that a chat could show.
  else answers.receive(type, payload);
}

// An error of the agent itself, or of one that has no keys.
function receiveAgentError(payload) {
  // An agent that does not know the question for its name.
  if (nameAsked && payload.ref === nameAsked.id) {
    nameAsked.isHeld = false;
    return;
  }
  const text = errorText(payload);
  if (!answers.fail(payload.ref, text)) note(`The agent says: ${text}`);
}

// A word of the agent proves that it has the question, whatever an error in clear has said.
function markAnswered(ref) {
  const message = sent.get(ref);
  if (!message || message.answered) return;
  message.answered = true;
  message.ticks = 2;
  delete message.error;
  setState(message, 'sent');
  keep(message);
}

function markFailed(ref, text) {
  const message = sent.get(ref);
  if (!message) return false;
  setState(message, 'failed', text);
  keep(message);
  announce(text);
  return true;
}

// An error in clear: the relay's, or anybody's on the way. In a chat without encryption it may be the agent's.
function receiveError(payload) {
  if (nameAsked && payload.ref === nameAsked.id) return;
  const isPlain = channel.security.name === 'plain';
  const text = isPlain ? errorText(payload) : unverifiedText(payload);
  const message = sent.get(payload.ref);
  if (isPlain && payload.code === 'BACKEND_ERROR') return receiveAgentError(payload);
  // What is answered has been delivered, whatever this says.
  if (message && !message.answered) return receiveRefusal(message, payload, text);
  // The banner says it already; a message that met nobody is told apart by its `ref`.
  if (channel.security.name === 'refused' || payload.code === 'PEER_OFFLINE') return;
  if (isPlain) receiveAgentError(payload);
  else note(text, true);
}

// The agent seems to have other keys, and others are being agreed upon: what has no answer yet goes out again, once. The
// agent does not say which message it could not read, so that it is any of them.
function receiveUnread(payload) {
  const refs = answers.unanswered;
  for (const ref of refs.includes(payload.ref) ? [payload.ref] : refs) {
    const message = sent.get(ref);
    if (!message) continue;
    sent.delete(ref);
    answers.retract(ref);
    if (message.again) {
      setState(message, 'failed', unverifiedText(payload));
      keep(message);
    } else {
      message.again = true;
      putBack(message);
    }
  }
}

// The relay did not deliver a message.
function receiveRefusal(message, { ref, code, retry_after_ms: retryAfterMs }, text) {
  answers.retract(ref);
  // It goes out when the agent is back.
  if (code === 'PEER_OFFLINE') {
    delete message.isOut;
    return putBack(message);
  }
  markFailed(ref, text);
  if (code === 'RATE_LIMITED' && retryAfterMs > 0 && retryAfterMs <= PATIENCE_MS) {
    setTimeout(() => message.state === 'failed' && resend(message), retryAfterMs);
  }
}

// ---- The agent's name ----

// Asked for once with each agreement on keys.
async function askName() {
  const id = newId();
  nameAsked = { id, security: channel.security, isHeld: channel.resumes };
  if (!(await channel.send('agent.list', {}, id)) && nameAsked?.id === id) nameAsked = null;
}

function receiveName({ agents, ref }) {
  if (!nameAsked || (ref !== undefined && ref !== nameAsked.id)) return;
  nameAsked.isHeld = false;
  showName(Array.isArray(agents) ? agents[0]?.name : '');
}

function showName(name) {
  $('agent-name').textContent = plainText(name, NAME_CHARACTERS_MAX) || NAME;
}

// ---- State ----

let said = '';

function refresh() {
  if (!channel) return;
  const { connection, agentOnline } = channel;
  const safety = security(channel.security);
  const text = presence(connection, agentOnline);
  $('presence-text').textContent = text;
  document.querySelector('.dot').dataset.level = presenceLevel(connection, agentOnline);
  $('security').hidden = channel.security.name === 'none';
  $('security').dataset.level = safety.level;
  $('security-label').textContent = safety.label;
  $('security').querySelector('use').setAttribute('href', safety.level === 'bad' ? '#i-open' : '#i-lock');
  $('about-label').textContent = safety.label;
  $('about-label').parentElement.dataset.level = safety.level;
  $('about-text').textContent = safety.text;
  $('fingerprint').hidden = !channel.security.fingerprint;
  $('fingerprint').textContent = channel.security.fingerprint ?? '';
  $('empty').hidden = !conversation.isEmpty;
  $('empty-text').textContent = emptyText(connection, agentOnline, safety);
  showBanner(connection, safety);
  if (channel.security.name === 'unverified' && pairing.plainAllowed) {
    // An agent that encrypts has not to be believed when it says that it does not.
    pairing.plainAllowed = false;
    savePairing(pairing);
  }
  const plain = channel.security.name === 'plain' && !pairing.plainAllowed;
  $('send').disabled = connection.name === 'ended' || channel.security.name === 'refused' || plain;
  // A screen reader hears of changes, not of each second that is counted down.
  const spoken = connection.name === 'open' ? `The agent is ${agentOnline ? 'online' : 'offline'}. ${safety.label}` : 'No connection';
  if (connection.name !== 'connecting' && channel.security.name !== 'pending' && spoken !== said) announce((said = spoken));
  if (channel.security.name === 'verified' && !channel.resumes && hasResumed) resumedNoMore();
  if (connection.name !== 'open') recall();
  if (hasResumed) answers.pause(!channel.resumes);
  else if (!agentOnline) answers.interrupt();
  clearTimeout(countdown);
  if (connection.name === 'waiting') countdown = setTimeout(refresh, 1000);
  if (channel.ready && nameAsked?.security !== channel.security && !nameAsked?.isHeld) askName();
  flush();
}

let countdown = 0;

function presenceLevel(connection, agentOnline) {
  if (connection.name === 'open') return agentOnline ? 'good' : 'idle';
  return connection.name === 'connecting' || connection.name === 'waiting' ? 'busy' : 'bad';
}

function emptyText(connection, agentOnline, safety) {
  if (connection.name === 'open' && !agentOnline) return 'Your agent is not connected. What you write now is sent when it comes.';
  if (safety.level === 'good') return 'Your agent is there. Only the two of you can read this chat.';
  return 'Your messages and the agent’s answers appear here.';
}

let bannerAction = null;

function showBanner(connection, safety) {
  const { name } = channel.security;
  let banner = null;
  if (connection.name === 'ended') {
    const ended = ENDED[connection.why];
    banner = { ...ended, act: connection.why === 'replaced' ? () => takeBack() : () => unpair() };
  } else if (name === 'refused') {
    banner = { title: safety.label, text: safety.text, action: 'Pair again', act: () => unpair() };
  } else if (name === 'plain' && !pairing.plainAllowed) {
    banner = { title: safety.label, text: safety.text, action: 'Chat anyway', act: () => allowPlain() };
  }
  $('banner').hidden = !banner;
  bannerAction = banner?.act;
  if (!banner || $('banner-title').textContent + $('banner-text').textContent === banner.title + banner.text) return;
  $('banner-title').textContent = banner.title;
  $('banner-text').textContent = banner.text;
  $('banner-action').textContent = banner.action;
}

function allowPlain() {
  pairing.plainAllowed = true;
  savePairing(pairing);
  channel.allowPlain();
  $('text').focus();
}

// What another page has sent since, and what not, is in the history.
function takeBack() {
  if (history?.isKept) openChat();
  else channel.start();
}

// Goes to the pairing page, and keeps the present pairing until another one is taken.
function unpair() {
  leaveChat();
  welcome();
}

// ---- Composer ----

function tooLong() {
  const { length } = $('text').value;
  if (length <= TEXT_CHARACTERS_MAX) return '';
  const [has, most] = [length, TEXT_CHARACTERS_MAX].map((count) => count.toLocaleString('en'));
  return `This message has ${has} characters, and ${most} fit. Nothing was cut off: shorten it, or send it in parts.`;
}

function showComposerError(text) {
  $('composer-error').textContent = text;
}

// Grows with its text where the browser does not do it by itself.
function fitComposer() {
  if (CSS.supports('field-sizing', 'content')) return;
  $('text').style.height = 'auto';
  $('text').style.height = `${$('text').scrollHeight}px`;
}

async function attach(files) {
  showComposerError('');
  showComposerError(await attached.add(files));
}

// ---- Events ----

$('pair').onsubmit = (event) => {
  event.preventDefault();
  pair($('link').value);
};
$('scan').onclick = async () => {
  const found = await scanCode();
  if (found) await pair(found);
};
$('composer').onsubmit = (event) => {
  event.preventDefault();
  submit();
};
$('text').oninput = () => {
  fitComposer();
  showComposerError(tooLong());
};
$('text').onkeydown = (event) => {
  // On a touch keyboard the key makes a new line; there is a button to send.
  if (event.key !== 'Enter' || event.shiftKey || matchMedia('(pointer: coarse)').matches) return;
  // The key that ends an input method's composition; in Safari it comes after the composition's end, with this code.
  if (event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
};
$('text').onpaste = (event) => {
  const images = [...event.clipboardData.files].filter((file) => file.type.startsWith('image/'));
  // Where a picture stands beside the text that was copied, the text is meant.
  if (!images.length || event.clipboardData.getData('text/plain')) return;
  event.preventDefault();
  attach(images);
};
$('attach').onclick = () => $('file').click();
$('file').onchange = async () => {
  await attach([...$('file').files]);
  $('file').value = '';
  $('text').focus();
};
$('to-end').onclick = () => conversation.toEnd();
$('banner-action').onclick = () => bannerAction?.();
for (const id of ['security', 'more']) $(id).onclick = () => showAbout(pairing, history?.isKept);
$('clear').onclick = async () => {
  $('about').close();
  if (!(await confirm('Clear the conversation?', 'It is removed from this browser. Your agent may remember it.', 'Clear'))) return;
  answers.interrupt();
  answers.clear();
  notes = [];
  const isGone = await history.clear();
  conversation.clear();
  refresh();
  if (!isGone) note(NOT_REMOVED);
};
$('forget').onclick = async () => {
  $('about').close();
  const text = 'The conversation and the key are removed from this browser. To chat again you need the link that your agent shows.';
  if (!(await confirm('Forget this pairing?', text, 'Forget'))) return;
  const isGone = await forgetPairing({ andConversation: true });
  welcome(isGone ? '' : NOT_REMOVED);
};
addEventListener('hashchange', async () => {
  const linked = fromAddressBar();
  if (linked && (await adopt(linked))) await openChat();
});
addEventListener('online', () => channel?.wake());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') channel?.wake();
  else for (const answer of answers.underWay) if (answer.text) keep(answer);
});
addEventListener('beforeinstallprompt', (event) => {
  event.preventDefault();
  $('install').hidden = false;
  $('install').onclick = async () => {
    $('install').hidden = true;
    await event.prompt();
  };
});
// The one address of a script that the page's policy lets through.
const worker = globalThis.trustedTypes?.createPolicy('service-worker', { createScriptURL: () => 'sw.js' }).createScriptURL('');
navigator.serviceWorker?.register(worker ?? 'sw.js').catch((error) => console.warn('no offline page:', error));

begin().catch((error) => {
  console.error(error);
  $('starting').hidden = false;
  $('starting').textContent = `The page could not start: ${error.message}. Load it again.`;
});

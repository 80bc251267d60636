// The page: link, channel, conversation and history together. State lives here and in `Channel`; elements only show it.

import { Answers } from './answers.js';
import { Channel } from './channel.js';
import { Composer } from './composer.js';
import { readSecret, support, toBase64url } from './crypto.js';
import { DeviceChannel, deviceFor, refusedChannel } from './device-channel.js';
import { canScan, confirm, showAbout } from './dialogs.js';
import { $ } from './dom.js';
import { Elsewhere } from './elsewhere.js';
import { Frame } from './frame.js';
import { History } from './history.js';
import { inviteOf } from './keys.js';
import { LinkError, isSamePairing, loadPairing, pairingName, readFragment, readLink, savePairing, socketUrl } from './link.js';
import { takeLock } from './lock.js';
import { Conversation } from './messages.js';
import { Notes } from './notes.js';
import { within } from './patience.js';
import { Questions } from './questions.js';
import { newId } from './relay.js';
import { Sending } from './sending.js';
import { Unread } from './unread.js';
import { NOT_LOADED, RESTARTED, UNCONFIRMED, browserName, errorText, plainText, security, unverifiedText } from './words.js';

// The browser itself is not waited for longer.
const BROWSER_MS = 3_000;
// How often an answer under way is written to the history.
const KEEP_EVERY_MS = 2_000;
// An agent that asks nobody lets a phone in as a device within this. Until then the page shows nothing of it.
const LIFT_MS = 2_000;
// So long the agent has to remove this browser from its devices.
const LEAVE_MS = 5_000;
const STAYS = 'The agent could not remove this browser from its devices. Remove it there, on another device or with “coralmux-agent devices”.';
const SECOND = 'This browser becomes one more of its devices. Remove the old one there.';
const NOT_REMOVED = 'This browser’s storage does not answer. What it kept of the conversation may still be there.';
const NAME = 'My agent';
const NAME_CHARACTERS_MAX = 60;

const conversation = new Conversation($('scroller'), $('log'), {
  retry: (message) => sending.resend(message),
  follow: (isAtEnd) => ($('to-end').hidden = isAtEnd),
  answer: (asked, given) => questions.answer(asked, given),
});

let pairing = null;
let channel = null;
let history = null;
let abilities = 'ok';
// Whether agent and page have agreed to confirm what they get, in this page or an earlier one.
let hasResumed = false;
let keptAt = 0;
// The request for the agent's name, and the keys under which it was made.
let nameAsked = null;
// Lets go of the keys of this browser as a device; null where it is none, or has let go.
let letGo = null;
// Whether the agent has offered this browser to become a device, and it did not.
let hasTriedLift = false;
// The pairing with which it becomes one as soon as nothing is on its way, and whether it is about to.
let liftsTo = null;
let isLifting = false;

const answers = new Answers({
  security: () => channel.security.name,
  show: (answer) => showAnswer(answer),
  remove: (answer) => conversation.remove(answer),
  keep: (answer) => keep(answer),
  // What is confirmed is kept before that anyway.
  progress: (answer) => !hasResumed && Date.now() - keptAt > KEEP_EVERY_MS && keep(answer),
  announce: (text) => announce(text),
  answered: (ref) => sending.markAnswered(ref),
  settled: () => lift(),
  failed: (ref, text) => sending.fail(ref, `The agent says: ${text}`),
  ended: (ref, text) => sending.fail(ref, text),
});

const sending = new Sending(answers, {
  channel: () => channel,
  hasResumed: () => hasResumed,
  show: (message) => show(message),
  keep: (message) => keep(message),
  announce: (text) => announce(text),
});

const questions = new Questions({
  answerFor: (ref) => answers.waiting(ref),
  send: (type, payload, id) => send(type, payload, id),
  show: (answer) => show(answer),
  asked: (answer) => unread.add(answer, channel.isDraining),
  keep: (answer) => keep(answer),
  announce: (text) => announce(text),
});

const unread = new Unread({ mark: (message, count) => conversation.mark(message, count) });

const notes = new Notes({
  show: (message) => show(message),
  isLast: (message) => conversation.isLast(message),
  remove: (message) => conversation.remove(message),
  keep: (message) => keep(message),
  announce: (text) => announce(text),
});

const elsewhere = new Elsewhere({
  send: (type, payload, id) => send(type, payload, id),
  nameOf: (device) => later?.devices.nameOf(device),
  has: (message) => conversation.has(message),
  show: (message) => show(message),
  shown: () => conversation.sort(),
  keep: (message) => history?.mark(message),
  announce: (text) => announce(text),
});

const composer = new Composer({
  isOpen: () => Boolean(channel),
  send: (text, images) => {
    unread.clear();
    return sending.submit(text, images);
  },
});

const frame = new Frame({
  announce: (text) => announce(text),
  takeBack: () => takeBack(),
  unpair: () => unpair(),
  allowPlain: () => allowPlain(),
});

// The pairing that is open here, and the other pages of this browser: the last one that opens it has it.
let shared = '';
const otherPages = globalThis.BroadcastChannel && new BroadcastChannel('coralmux');
if (otherPages) otherPages.onmessage = ({ data }) => data === shared && giveWay();

// What `later.js` has: null until it has come.
let later = null;
let loading = null;

// Has `act` done with what `later.js` has; resolves to whether it has come.
function afterwards(act) {
  loading ??= import('./later.js').then(({ Devices, Push, scanCode }) => {
    const devices = new Devices({
      send: (type, payload, id) => send(type, payload, id),
      announce: (text) => announce(text),
    });
    const push = new Push({
      device: () => channel?.id,
      tell: (payload) => channel?.ask?.('relay.push', payload) ?? Promise.resolve(null),
      announce: (text) => announce(text),
    });
    later = { devices, push, scanCode };
    showPush();
    look();
  });
  return loading.then(
    () => Promise.resolve(act(later)).then(() => true),
    (error) => {
      console.warn('not loaded:', error);
      loading = null;
      return false;
    },
  );
}

// What is asked of an agent that is there, and of no other: resolves to whether it leaves.
function send(type, payload, id) {
  return channel?.ready ? channel.send(type, payload, id) : Promise.resolve(false);
}

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
  if (pairing && (await isKnown(linked))) return true;
  if (pairing) {
    const same = pairing.token === linked.token;
    const text = same
      ? `This link is for the agent that this browser is paired with, with another key. Take it only if it comes from your own agent.${pairing.used ? ` ${SECOND}` : ''}`
      : `This browser is paired with another agent. Its conversation will be removed from this browser.${pairing.used ? ` ${whatStays()}` : ''}`;
    if (!(await confirm('Use this new link?', text, 'Use it'))) return false;
    const hasLeft = same || (await leaveDevices());
    await forgetPairing({ andConversation: !same });
    if (!hasLeft) remains = STAYS;
  }
  pairing = linked;
  savePairing(pairing);
  return true;
}

async function isKnown(linked) {
  if (isSamePairing(pairing, linked)) return true;
  // The link that this browser became a device with.
  return Boolean(pairing.used && linked.a && abilities === 'ok') && pairing.used === toBase64url(await inviteOf(readSecret(linked.k)));
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
  const left = leaveChat();
  $('starting').hidden = $('welcome').hidden = true;
  $('chat').hidden = false;
  $('presence-text').textContent = 'Connecting…';
  const name = await pairingName(pairing);
  await left;
  // Another page would be replaced only when it is connected, and might be so last.
  shared = name;
  otherPages?.postMessage(name);
  await takeKeys();
  history = await History.open(name);
  const { messages, ...stored } = await history.load(newId());
  const { device, boots } = await placeOf(stored);
  const earlier = messages.sort((one, other) => one.time - other.time);
  for (const message of earlier) {
    if (message.role !== 'me') restore(message);
    else if (!message.isElsewhere) sending.restore(message);
    conversation.show(message);
  }
  answers.restore(earlier);
  if (earlier.some(({ role, state }) => role === 'agent' && state === 'done')) afterwards(({ push }) => push.handleAnswer());
  questions.restore(earlier);
  showName('');
  channel = connected(device, boots);
  for (const message of earlier.filter(isUnanswered)) {
    answers.expect(message.id);
    answers.await(message.id);
  }
  channel.start();
  refresh();
  if (remains) notes.add(remains);
  remains = '';
  composer.focus({ preventScroll: true });
  composer.handleOpen();
}

const isDevice = () => Boolean(pairing.a) && abilities === 'ok';

// The keys of a device are in one page at a time.
async function takeKeys() {
  if (!isDevice()) return;
  const lock = await takeLock(() => lock === letGo && giveWay());
  letGo = lock;
}

// What this browser is to its agent, going on from what is stored.
async function placeOf(stored) {
  const device = isDevice() && history.isKept ? await deviceFor(pairing, stored.device) : null;
  // The agent counts anew for a new device.
  const boots = isDevice() && device !== stored.device ? undefined : stored.boots;
  hasResumed = Boolean(boots);
  history.boots = () => (hasResumed ? channel?.boots : undefined);
  history.device = () => (device ? channel?.kept : undefined);
  return { device, boots };
}

function connected(device, boots) {
  const url = socketUrl(location.href);
  const handlers = {
    change: () => refresh(),
    message: (type, payload) => receive(type, payload),
    error: (payload) => receiveError(payload),
    refused: (payload) => sending.receiveUnread(payload),
    missed: (count) => receiveMissed(count),
    unreadable: (reason) => notes.add(`A message could not be read and was dropped: ${reason}.`),
    left: (id) => sending.markLeft(id),
    taken: (id) => sending.markTaken(id),
    numbered: (id, place) => sending.markPlace(id, place),
    delivered: (id) => markDelivered(id),
    void: (id, payload) => sending.markVoid(id, payload),
    waits: (id, payload) => sending.markWaiting(id, payload),
    kept: (id) => sending.markKept(id),
    undelivered: (id) => sending.markUndelivered(id),
    resumed: () => resumed(),
    restarted: () => answers.restarted(RESTARTED),
    keep: async () => (await kept(history?.commit()))?.boots,
    canLift: () => Boolean(history?.isKept) && !hasTriedLift,
    store: async () => history.keepDevice(),
    enrolled: () => enrolled(device),
    lost: () => elsewhere.miss(),
  };
  if (!pairing.a) {
    const secret = pairing.k ? readSecret(pairing.k) : null;
    return new Channel(url, { ...pairing, secret }, abilities, handlers, boots);
  }
  // A link that is made for devices is good for nothing less.
  if (device) return new DeviceChannel(url, pairing, device, browserName(navigator.userAgent), handlers, boots);
  return refusedChannel(abilities !== 'ok' ? abilities : history.isKept ? 'lost' : 'storage');
}

// The agent has let this browser in: its link is worth nothing any more.
function enrolled({ invite }) {
  isLifting = false;
  pairing = { token: pairing.token, a: pairing.a, used: invite };
  savePairing(pairing);
  hasResumed = true;
  if (conversation.isEmpty) elsewhere.miss();
  // A browser that has room takes this as a wish.
  navigator.storage?.persist?.().catch(() => {});
  announce('This browser was added');
}

// The agent offers a browser that it knows by its link to become a device.
function receiveLift({ web, link }) {
  if (pairing.a || hasTriedLift || channel.security.name !== 'verified') return;
  let linked = null;
  try {
    const { hash, search } = new URL(web ?? link);
    linked = readFragment(web ? hash : search);
  } catch {}
  if (linked?.token !== pairing.token || !linked.a) return;
  hasTriedLift = true;
  liftsTo = linked;
  lift();
}

// Becomes a device, once the agent has what was asked on the present channel, and has answered it. What is written
// meanwhile leaves on the new one.
async function lift() {
  if (!liftsTo || !sending.isQuiet || answers.underWay.length) return;
  pairing = { ...liftsTo, before: pairing };
  liftsTo = nameAsked = null;
  const plain = channel;
  isLifting = true;
  setTimeout(liftedOrNot, LIFT_MS);
  plain.stop();
  savePairing(pairing);
  await takeKeys();
  if (channel !== plain) return;
  const { device, boots } = await placeOf({});
  if (channel !== plain) return;
  channel = connected(device, boots);
  channel.start();
  refresh();
}

function liftedOrNot() {
  if (!isLifting) return;
  isLifting = false;
  refresh();
}

// It has not become one: it goes on as before.
function fallBack() {
  pairing = pairing.before;
  savePairing(pairing);
  openChat();
}

// Another page has the pairing, or asks for it.
function giveWay() {
  channel?.giveWay();
  letGo?.();
  letGo = null;
}

// An answer that was under way when an earlier page was closed goes on where the agent sends what is missing.
function restore(message) {
  if (message.role !== 'agent' || message.state !== 'streaming') return;
  if (hasResumed) message.isPaused = true;
  else message.state = 'cut';
}

function isUnanswered({ role, state, ticks, place, answered, id }) {
  return hasResumed && role === 'me' && state === 'sent' && ticks === 2 && place && !answered && !answers.has(id);
}

// Leaves the chat; the pairing and its conversation stay in the browser. Resolves when all of it is written.
function leaveChat() {
  channel?.stop();
  channel = null;
  letGo?.();
  letGo = null;
  const closed = history?.close();
  history = null;
  conversation.clear();
  answers.clear();
  questions.clear();
  sending.clear();
  notes.clear();
  elsewhere.clear();
  unread.clear();
  later?.devices.clear();
  later?.push.clear();
  nameAsked = liftsTo = null;
  isLifting = false;
  composer.clear();
  return closed;
}

// What becomes of this browser at its agent when it forgets the pairing.
function whatStays() {
  if (channel?.ready) return 'Your agent removes this browser from its devices.';
  return 'Your agent is not connected, so this browser stays among its devices. Remove it there, on another device or with “coralmux-agent devices”.';
}

// Has the agent remove this browser from its devices, and not those that it has added. Resolves to whether none is left.
async function leaveDevices() {
  if (!channel?.id || channel.isJoining || channel.connection.name === 'ended') return true;
  const device = channel.id;
  const gone = new Promise((resolve) => (removed = resolve));
  if (!(await channel.send('device.revoke', { device, keep_invited: true }))) return false;
  return within(gone, LEAVE_MS).catch(() => false);
}

// Resolves to whether nothing is left of what was to go.
async function forgetPairing({ andConversation }) {
  await leaveChat();
  await afterwards(({ push }) => push.forget());
  let isGone = true;
  if (andConversation) {
    const left = await History.open(await pairingName(pairing));
    isGone = await left.clear({ andPlace: true });
    await left.close();
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
  if (outcome?.isTaken) giveWay();
  return outcome;
}

function showAnswer(answer) {
  show(answer);
  if (answer.state === 'done') {
    unread.add(answer, channel.isDraining);
    afterwards(({ push }) => push.handleAnswer());
  }
  if (hasResumed && (answer.text || answer.state !== 'streaming')) history?.mark(answer);
}

function show(message) {
  conversation.show(message);
  $('empty').hidden = true;
}

let announced = '';
function announce(text) {
  // The same words twice would not be read out twice.
  announced = text === announced ? `${text}\u00a0` : text;
  $('announcer').textContent = announced;
}

// ---- What the agent sends ----

// The agent has it.
function markDelivered(id) {
  if (nameAsked?.id === id) nameAsked.isHeld = false;
  sending.markDelivered(id);
}

// The ends have met and know what each of them lacks.
function resumed() {
  hasResumed = true;
  answers.meet((ref) => sending.isDelivered(ref));
  answers.pause(false);
  if (pairing.a) afterwards(({ devices }) => devices.learn());
}

// The agent confirmed what it got, and does no more.
function resumedNoMore() {
  hasResumed = false;
  nameAsked = null;
  answers.interrupt();
  sending.failUnconfirmed();
  notes.add(UNCONFIRMED);
}

function receive(type, payload) {
  if (type === 'chat.error') receiveAgentError(payload);
  else if (type === 'agent.list.result') receiveName(payload);
  else if (type === 'chat.ask' || type === 'chat.answered') questions.receive(type, payload);
  else if (!pairing.a && type === 'device.invite.result') receiveLift(payload);
  else if (pairing.a && type === 'device.welcome') receiveWelcome(payload);
  else if (pairing.a && type.startsWith('device.')) afterwards(({ devices }) => devices.receive(type, payload));
  else if (pairing.a && elsewhere.receive(type, payload)) return;
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
  if (later?.devices.fail(payload)) return;
  const text = errorText(payload);
  if (!answers.fail(payload.ref, text)) notes.add(`The agent says: ${text}`);
}

// An error in clear: the relay's, or anybody's on the way. In a chat without encryption it may be the agent's.
function receiveError(payload) {
  if (nameAsked && payload.ref === nameAsked.id) return;
  const isPlain = channel.security.name === 'plain';
  const text = isPlain ? errorText(payload) : unverifiedText(payload);
  if (isPlain && payload.code === 'BACKEND_ERROR') return receiveAgentError(payload);
  if (sending.receiveRefusal(payload, text)) return;
  // The banner says it already; a message that met nobody is told apart by its `ref`.
  if (channel.security.name === 'refused' || payload.code === 'PEER_OFFLINE') return;
  if (isPlain) receiveAgentError(payload);
  else notes.add(text, true);
}

// What did not arrive is in what the agent remembers.
function receiveMissed(count) {
  notes.addMissed(count, channel.resumes);
  if (!pairing.a) return;
  elsewhere.miss();
  refresh();
}

function receiveWelcome(payload) {
  afterwards(({ devices }) => devices.receive('device.welcome', payload));
  showName(payload.name);
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

function refresh() {
  if (!channel) return;
  const { connection, agentOnline } = channel;
  if (!isLifting) frame.show(channel, pairing.plainAllowed, conversation.isEmpty);
  if (connection.name === 'open') afterwards(() => {});
  showPush();
  if (connection.why === 'deviceRevoked') removed?.(true);
  if (channel.security.name === 'unverified' && pairing.plainAllowed) {
    // An agent that encrypts has not to be believed when it says that it does not.
    pairing.plainAllowed = false;
    savePairing(pairing);
  }
  if (channel.security.name === 'verified' && !channel.resumes && hasResumed) resumedNoMore();
  const isOver = (connection.name === 'ended' && connection.why !== 'replaced') || channel.security.name === 'refused';
  if (pairing.before && isOver) return fallBack();
  if (connection.name !== 'open') sending.recall();
  if (hasResumed) answers.pause(!channel.resumes);
  else if (!agentOnline) answers.interrupt();
  clearTimeout(countdown);
  if (connection.name === 'waiting') countdown = setTimeout(refresh, 1000);
  if (channel.ready && nameAsked?.security !== channel.security && !nameAsked?.isHeld) askName();
  if (channel.ready) elsewhere.ask();
  sending.flush();
  lift();
  return undefined;
}

function showPush() {
  if (channel) later?.push.handleState(Boolean(channel.id) && !channel.isJoining, channel.push ?? null);
}

let countdown = 0;
// What stayed behind at the agent of the pairing before this one.
let remains = '';
// Says that the agent has removed this browser, where that is waited for.
let removed = null;

function allowPlain() {
  pairing.plainAllowed = true;
  savePairing(pairing);
  channel.allowPlain();
  composer.focus();
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

// ---- Events ----

$('pair').onsubmit = (event) => {
  event.preventDefault();
  pair($('link').value);
};
$('scan').onclick = async () => {
  const isThere = await afterwards(async ({ scanCode }) => {
    const found = await scanCode();
    if (found) await pair(found);
  });
  if (!isThere) $('link-error').textContent = NOT_LOADED;
};
$('to-end').onclick = () => conversation.toEnd();
for (const id of ['security', 'more']) $(id).onclick = () => showAbout(pairing, history?.isKept, channel?.id && !channel.isJoining);
$('show-devices').onclick = async () => {
  $('about').close();
  if (!(await afterwards(({ devices }) => devices.open()))) notes.add(NOT_LOADED);
};
$('clear').onclick = async () => {
  $('about').close();
  if (!(await confirm('Clear the conversation?', 'It is removed from this browser. Your agent may remember it.', 'Clear'))) return;
  answers.interrupt();
  answers.clear();
  notes.drop();
  const isGone = await history.clear();
  conversation.clear();
  refresh();
  if (!isGone) notes.add(NOT_REMOVED);
};
$('forget').onclick = async () => {
  $('about').close();
  const text = 'The conversation and the key are removed from this browser. To chat again you need a link that your agent shows.';
  const isDevice = channel?.id && !channel.isJoining && channel.connection.name !== 'ended';
  if (!(await confirm('Forget this pairing?', isDevice ? `${text} ${whatStays()}` : text, 'Forget'))) return;
  const hasLeft = await leaveDevices();
  const isGone = await forgetPairing({ andConversation: true });
  welcome([!hasLeft && STAYS, !isGone && NOT_REMOVED].filter(Boolean).join(' '));
};
addEventListener('hashchange', async () => {
  const linked = fromAddressBar();
  if (linked && (await adopt(linked))) await openChat();
});
addEventListener('pagehide', ({ persisted }) => persisted && history?.putAway());
addEventListener('pageshow', ({ persisted }) => persisted && history?.comeBack());
function look() {
  unread.see();
  later?.push.seen().catch((error) => console.warn(error));
}
if (document.visibilityState === 'visible') look();
document.addEventListener('freeze', () => channel?.sleep?.());
addEventListener('online', () => channel?.wake());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') {
    look();
    return channel?.wake();
  }
  for (const answer of answers.underWay) if (answer.text) keep(answer);
  return channel?.sleep?.();
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

// One agent's chat: its pairing, channel, history, and what is said. It goes on while another agent's is shown; the page (see
// app.js) is its handlers'.

import { Answers } from './answers.js';
import { Channel } from './channel.js';
import { readSecret, toBase64url } from './crypto.js';
import { DeviceChannel, deviceFor, refusedChannel } from './device-channel.js';
import { Elsewhere } from './elsewhere.js';
import { History } from './history.js';
import { inviteOf } from './keys.js';
import { isSamePairing, pairingName, readFragment, socketUrl } from './link.js';
import { Notes } from './notes.js';
import { within } from './patience.js';
import { Questions } from './questions.js';
import { newId } from './relay.js';
import { Sending } from './sending.js';
import { Unread } from './unread.js';
import { NAME, RESTARTED, STAYS, UNCONFIRMED, browserName, errorText, plainText, unverifiedText } from './words.js';

// How often an answer under way is written to the history.
const KEEP_EVERY_MS = 2_000;
// An agent that asks nobody lets a phone in as a device within this. Until then the page shows nothing of it.
const LIFT_MS = 2_000;
// So long the agent has to remove this browser from its devices.
const LEAVE_MS = 5_000;
// The browser itself is not waited for longer.
const WRITTEN_MS = 3_000;
const NAME_CHARACTERS_MAX = 60;

export class Chat {
  // What the person has begun to write.
  draft = '';
  channel = null;
  // Becomes a device, and shows nothing of it yet.
  isLifting = false;
  // What the agent last said of its devices, and what they ask since then: for the dialog.
  ofDevices = [];
  #page;
  #abilities;
  #history = null;
  #messages = new Set();
  // Grows whenever it is opened or closed: what belongs to an earlier time is dropped.
  #turn = 0;
  // Whether agent and page have agreed to confirm what they get, in this page or an earlier one.
  #hasResumed = false;
  #keptAt = 0;
  // The request for the agent's name, and the keys under which it was made.
  #nameAsked = null;
  // Whether the agent has offered this browser to become a device, and it did not.
  #hasTriedLift = false;
  // The pairing with which it becomes one as soon as nothing is on its way.
  #liftsTo = null;
  // Says that the agent has removed this browser, where that is waited for.
  #removed = null;
  #countdown = null;

  #answers = new Answers({
    security: () => this.channel.security.name,
    show: (answer) => this.#showAnswer(answer),
    remove: (answer) => this.#remove(answer),
    keep: (answer) => this.#keep(answer),
    // What is confirmed is kept before that anyway.
    progress: (answer) => !this.#hasResumed && Date.now() - this.#keptAt > KEEP_EVERY_MS && this.#keep(answer),
    announce: (text) => this.#announce(text),
    answered: (ref) => this.#sending.markAnswered(ref),
    settled: () => this.#lift(),
    failed: (ref, text) => this.#sending.fail(ref, `The agent says: ${text}`),
    ended: (ref, text) => this.#sending.fail(ref, text),
  });

  #sending = new Sending(this.#answers, {
    channel: () => this.channel,
    hasResumed: () => this.#hasResumed,
    show: (message) => this.#show(message),
    keep: (message) => this.#keep(message),
    announce: (text) => this.#announce(text),
  });

  #questions = new Questions({
    answerFor: (ref) => this.#answers.waiting(ref),
    send: (type, payload, id) => this.send(type, payload, id),
    show: (answer) => this.#show(answer),
    asked: (answer) => this.#unread.add(answer, this.channel.isDraining),
    keep: (answer) => this.#keep(answer),
    announce: (text) => this.#announce(text),
  });

  #unread = new Unread({
    mark: (message, count) => this.#page.isShown(this) && this.#page.conversation.mark(message, count),
    isSeen: () => this.#page.isShown(this) && document.visibilityState === 'visible',
    changed: () => this.#page.listed(),
  });

  #notes = new Notes({
    show: (message) => this.#show(message),
    isLast: (message) => [...this.#messages].at(-1) === message,
    remove: (message) => this.#remove(message),
    keep: (message) => this.#keep(message),
    announce: (text) => this.#announce(text),
  });

  #elsewhere = new Elsewhere({
    send: (type, payload, id) => this.send(type, payload, id),
    nameOf: (device) => this.#page.isShown(this) && this.#page.deviceName(device),
    has: ({ role, text }) => [...this.#messages].some((one) => one.role === role && one.text === text),
    show: (message) => this.#show(message),
    shown: () => this.#sort(),
    keep: (message) => this.#history?.mark(message),
    announce: (text) => this.#announce(text),
  });

  // page: conversation, isShown(chat), announce(text), save(): the pairings have changed, listed(): what a list of the agents
  // says has, changed(chat), claim(key): other pages let go of the pairing; takeKeys(): resolves when they have let go of all
  // keys, giveWay(): another page has them, answered(): an answer has come, worked(): whether the agent is
  // at work may have changed, devices(chat, type, payload),
  // deviceFailed(payload): returns whether it was about devices, deviceName(id)
  constructor(pairing, abilities, page) {
    this.pairing = pairing;
    this.#abilities = abilities;
    this.#page = page;
  }

  get name() {
    return this.pairing.name || NAME;
  }

  get isKept() {
    return Boolean(this.#history?.isKept);
  }

  get isEmpty() {
    return this.#messages.size === 0;
  }

  // What was said, oldest first.
  get messages() {
    return [...this.#messages];
  }

  // Whether the agent is there and at work on an answer.
  get isAnswering() {
    return Boolean(this.channel?.ready) && this.#answers.underWay.some(({ isUnseen }) => !isUnseen);
  }

  get unseen() {
    return this.#unread.unseen;
  }

  // The newest that was said.
  get last() {
    return [...this.#messages].findLast(({ role }) => role !== 'note') ?? null;
  }

  // Whether this browser is a device of the agent's, and has not been removed.
  get isDevice() {
    return Boolean(this.channel?.id) && !this.channel.isJoining && this.channel.connection.name !== 'ended';
  }

  // ---- Opening and closing ----

  async open() {
    const left = this.close();
    const turn = ++this.#turn;
    const key = await pairingName(this.pairing);
    await left;
    if (turn !== this.#turn) return;
    // Another page would be replaced only when it is connected, and might be so last.
    this.key = key;
    this.#page.claim(key);
    if (this.#wantsKeys) await this.#page.takeKeys();
    const history = await History.open(key);
    const { messages, ...stored } = await history.load(newId());
    if (turn !== this.#turn) {
      history.close();
      return;
    }
    this.#history = history;
    const { device, boots } = await this.#placeOf(stored);
    if (turn !== this.#turn) return;
    const earlier = messages.sort((one, other) => one.time - other.time);
    for (const message of earlier) {
      if (message.role !== 'me') this.#restore(message);
      else if (!message.isElsewhere) this.#sending.restore(message);
      this.#show(message);
    }
    this.#answers.restore(earlier);
    if (earlier.some(({ role, state }) => role === 'agent' && state === 'done')) this.#page.answered();
    this.#questions.restore(earlier);
    this.#unread.restore(earlier.filter(({ role }) => role === 'agent'), this.pairing.unseen ?? 0);
    this.channel = this.#connected(device, boots);
    for (const message of earlier.filter((one) => this.#isUnanswered(one))) {
      this.#answers.expect(message.id);
      this.#answers.await(message.id);
    }
    this.channel.start();
    this.refresh();
  }

  // Leaves it; the pairing and its conversation stay in the browser. Resolves when all of it is written.
  close() {
    this.#turn += 1;
    this.channel?.stop();
    this.channel = null;
    clearTimeout(this.#countdown);
    const closed = this.#history?.close();
    this.#history = null;
    this.#messages.clear();
    if (this.#page.isShown(this)) this.#page.conversation.clear();
    for (const part of [this.#answers, this.#questions, this.#sending, this.#notes, this.#elsewhere, this.#unread]) part.clear();
    this.ofDevices = [];
    this.#nameAsked = this.#liftsTo = null;
    this.isLifting = false;
    return closed && within(closed, WRITTEN_MS).catch(() => {});
  }

  get #wantsKeys() {
    return Boolean(this.pairing.a) && this.#abilities === 'ok';
  }

  // What this browser is to its agent, going on from what is stored.
  async #placeOf(stored) {
    const history = this.#history;
    const device = this.#wantsKeys && history.isKept ? await deviceFor(this.pairing, stored.device) : null;
    // The agent counts anew for a new device.
    const boots = this.#wantsKeys && device !== stored.device ? undefined : stored.boots;
    this.#hasResumed = Boolean(boots);
    history.boots = () => (this.#hasResumed ? this.channel?.boots : undefined);
    history.device = () => (device ? this.channel?.kept : undefined);
    return { device, boots };
  }

  #connected(device, boots) {
    const url = socketUrl(location.href);
    const sending = this.#sending;
    const handlers = {
      change: () => this.refresh(),
      message: (type, payload) => this.#receive(type, payload),
      error: (payload) => this.#receiveError(payload),
      refused: (payload) => sending.receiveUnread(payload),
      missed: (count) => this.#receiveMissed(count),
      unreadable: (reason) => this.#notes.add(`A message could not be read and was dropped: ${reason}.`),
      left: (id) => sending.markLeft(id),
      taken: (id) => sending.markTaken(id),
      numbered: (id, place) => sending.markPlace(id, place),
      delivered: (id) => this.#markDelivered(id),
      void: (id, payload) => sending.markVoid(id, payload),
      waits: (id, payload) => sending.markWaiting(id, payload),
      kept: (id) => sending.markKept(id),
      undelivered: (id) => sending.markUndelivered(id),
      resumed: () => this.#resumed(),
      restarted: () => this.#answers.restarted(RESTARTED),
      keep: async () => (await this.#kept(this.#history?.commit()))?.boots,
      canLift: () => this.isKept && !this.#hasTriedLift,
      store: async () => this.#history.keepDevice(),
      enrolled: () => this.#enrolled(device),
      lost: () => this.#elsewhere.miss(),
    };
    const { pairing } = this;
    if (!pairing.a) {
      const secret = pairing.k ? readSecret(pairing.k) : null;
      return new Channel(url, { ...pairing, secret }, this.#abilities, handlers, boots);
    }
    // A link that is made for devices is good for nothing less.
    if (device) return new DeviceChannel(url, pairing, device, browserName(navigator.userAgent), handlers, boots);
    return refusedChannel(this.#abilities !== 'ok' ? this.#abilities : this.isKept ? 'lost' : 'storage');
  }

  // An answer that was under way when an earlier page was closed goes on where the agent sends what is missing.
  #restore(message) {
    if (message.role !== 'agent' || message.state !== 'streaming') return;
    if (this.#hasResumed) message.isPaused = true;
    else message.state = 'cut';
  }

  #isUnanswered({ role, state, ticks, place, answered, id }) {
    return this.#hasResumed && role === 'me' && state === 'sent' && ticks === 2 && place && !answered && !this.#answers.has(id);
  }

  // Another page has the pairing, or asks for it.
  giveWay() {
    this.channel?.giveWay();
  }

  // What another page has sent since, and what not, is in the history.
  takeBack() {
    if (this.isKept || !this.channel) this.open();
    else this.channel.start();
  }

  // Whether a link is one that this pairing was made with.
  async isOf(linked) {
    const { pairing } = this;
    if (isSamePairing(pairing, linked)) return true;
    // The link that this browser became a device with.
    return Boolean(pairing.used && linked.a && this.#abilities === 'ok') && pairing.used === toBase64url(await inviteOf(readSecret(linked.k)));
  }

  // Goes on with another link of the same agent.
  use(linked) {
    this.pairing = linked;
    this.#hasTriedLift = false;
    this.#page.save();
  }

  // Has the agent remove this browser from its devices, and not those that it has added. Resolves to whether none is left.
  async leaveDevices() {
    if (!this.isDevice) return true;
    const device = this.channel.id;
    const gone = new Promise((resolve) => (this.#removed = resolve));
    if (!(await this.send('device.revoke', { device, keep_invited: true }))) return false;
    return within(gone, LEAVE_MS).catch(() => false);
  }

  // Removes what this browser has of it. Resolves to whether nothing is left.
  async forget() {
    await this.close();
    const left = await History.open(await pairingName(this.pairing));
    const isGone = await left.clear({ andPlace: true });
    await left.close();
    return isGone;
  }

  // ---- Becoming a device ----

  // The agent has let this browser in: its link is worth nothing any more.
  #enrolled({ invite }) {
    const { token, a, name } = this.pairing;
    this.isLifting = false;
    this.pairing = { token, a, used: invite, ...(name && { name }) };
    this.#page.save();
    this.#hasResumed = true;
    if (this.isEmpty) this.#elsewhere.miss();
    // A browser that has room takes this as a wish.
    navigator.storage?.persist?.().catch(() => {});
    this.#announce('This browser was added');
  }

  // The agent offers a browser that it knows by its link to become a device.
  #receiveLift({ web, link }) {
    if (this.pairing.a || this.#hasTriedLift || this.channel.security.name !== 'verified') return;
    let linked = null;
    try {
      const { hash, search } = new URL(web ?? link);
      linked = readFragment(web ? hash : search);
    } catch {}
    if (linked?.token !== this.pairing.token || !linked.a) return;
    this.#hasTriedLift = true;
    this.#liftsTo = linked;
    this.#lift();
  }

  // Becomes a device, once the agent has what was asked on the present channel, and has answered it. What is written
  // meanwhile leaves on the new one.
  async #lift() {
    if (!this.#liftsTo || !this.#sending.isQuiet || this.#answers.underWay.length) return;
    const { name } = this.pairing;
    this.pairing = { ...this.#liftsTo, ...(name && { name }), before: this.pairing };
    this.#liftsTo = this.#nameAsked = null;
    const plain = this.channel;
    this.isLifting = true;
    setTimeout(() => this.#liftedOrNot(), LIFT_MS);
    plain.stop();
    this.#page.save();
    await this.#page.takeKeys();
    if (this.channel !== plain) return;
    const { device, boots } = await this.#placeOf({});
    if (this.channel !== plain) return;
    this.channel = this.#connected(device, boots);
    this.channel.start();
    this.refresh();
  }

  #liftedOrNot() {
    if (!this.isLifting) return;
    this.isLifting = false;
    this.refresh();
  }

  // It has not become one: it goes on as before.
  #fallBack() {
    this.pairing = this.pairing.before;
    this.#page.save();
    this.open();
  }

  // ---- What is shown and kept ----

  // It is on the screen from now on.
  reveal() {
    for (const message of this.#messages) this.#page.conversation.show(message);
    this.#unread.see();
    this.#unread.draw();
  }

  // The person looks at it.
  see() {
    this.#unread.see();
  }

  #show(message) {
    this.#messages.add(message);
    if (!this.#page.isShown(this)) return;
    this.#page.conversation.show(message);
    this.#page.worked();
  }

  #remove(message) {
    this.#messages.delete(message);
    if (!this.#page.isShown(this)) return;
    this.#page.conversation.remove(message);
    this.#page.worked();
  }

  #sort() {
    this.#messages = new Set([...this.#messages].sort((one, other) => one.time - other.time));
    if (this.#page.isShown(this)) this.#page.conversation.sort();
  }

  #announce(text) {
    if (this.#page.isShown(this)) this.#page.announce(text);
  }

  #keep(message) {
    this.#keptAt = Date.now();
    return this.#kept(this.#history?.put(message));
  }

  // What comes of keeping something: where another page has the pairing, this one lets go of it.
  async #kept(change) {
    const turn = this.#turn;
    const outcome = await change;
    if (outcome?.isTaken && turn === this.#turn) this.#page.giveWay();
    return outcome;
  }

  // Nobody looks at the page: the browser may freeze it at any time.
  sleep() {
    for (const answer of this.#answers.underWay) if (answer.text) this.#keep(answer);
    this.channel?.sleep?.();
  }

  putAway() {
    this.#history?.putAway();
  }

  comeBack() {
    this.#history?.comeBack();
  }

  #showAnswer(answer) {
    this.#show(answer);
    if (answer.state === 'done') {
      this.#unread.add(answer, this.channel.isDraining);
      this.#page.answered();
    }
    if (this.#hasResumed && (answer.text || answer.state !== 'streaming')) this.#history?.mark(answer);
  }

  // ---- What the person does ----

  submit(text, images) {
    this.#unread.clear();
    return this.#sending.submit(text, images);
  }

  stop() {
    this.#answers.stop();
    this.send('chat.cancel', {}, newId());
  }

  resend(message) {
    return this.#sending.resend(message);
  }

  answer(asked, given) {
    return this.#questions.answer(asked, given);
  }

  note(text) {
    this.#notes.add(text);
  }

  allowPlain() {
    this.pairing.plainAllowed = true;
    this.#page.save();
    this.channel.allowPlain();
  }

  // Resolves to whether the browser keeps nothing of what was said.
  async clearConversation() {
    this.#answers.interrupt();
    this.#answers.clear();
    this.#notes.drop();
    const isGone = await this.#history.clear();
    this.#messages.clear();
    if (this.#page.isShown(this)) this.#page.conversation.clear();
    this.refresh();
    return isGone;
  }

  // What is asked of an agent that is there, and of no other: resolves to whether it leaves.
  send(type, payload, id) {
    return this.channel?.ready ? this.channel.send(type, payload, id) : Promise.resolve(false);
  }

  // ---- What the agent sends ----

  // The agent has it.
  #markDelivered(id) {
    if (this.#nameAsked?.id === id) this.#nameAsked.isHeld = false;
    this.#sending.markDelivered(id);
  }

  // The ends have met and know what each of them lacks.
  #resumed() {
    this.#hasResumed = true;
    this.#answers.meet((ref) => this.#sending.isDelivered(ref));
    this.#answers.pause(false);
    if (this.pairing.a) this.#page.devices(this, 'met');
  }

  // The agent confirmed what it got, and does no more.
  #resumedNoMore() {
    this.#hasResumed = false;
    this.#nameAsked = null;
    this.#answers.interrupt();
    this.#sending.failUnconfirmed();
    this.#notes.add(UNCONFIRMED);
  }

  #receive(type, payload) {
    const isPaired = Boolean(this.pairing.a);
    if (type === 'chat.error') this.#receiveAgentError(payload);
    else if (type === 'agent.list.result') this.#receiveName(payload);
    else if (type === 'chat.ask' || type === 'chat.answered') this.#questions.receive(type, payload);
    else if (!isPaired && type === 'device.invite.result') this.#receiveLift(payload);
    else if (isPaired && type.startsWith('device.')) this.#receiveOfDevices(type, payload);
    else if (isPaired && this.#elsewhere.receive(type, payload)) return;
    // Types of other apps: nothing that a chat could show.
    else this.#answers.receive(type, payload);
  }

  #receiveOfDevices(type, payload) {
    if (type === 'device.welcome') this.#showName(payload.name);
    this.#page.devices(this, type, payload);
  }

  // An error of the agent itself, or of one that has no keys.
  #receiveAgentError(payload) {
    // An agent that does not know the question for its name.
    if (this.#nameAsked && payload.ref === this.#nameAsked.id) {
      this.#nameAsked.isHeld = false;
      return;
    }
    if (this.#page.deviceFailed(payload)) return;
    const text = errorText(payload);
    if (!this.#answers.fail(payload.ref, text)) this.#notes.add(`The agent says: ${text}`);
  }

  // An error in clear: the relay's, or anybody's on the way. In a chat without encryption it may be the agent's.
  #receiveError(payload) {
    if (this.#nameAsked && payload.ref === this.#nameAsked.id) return;
    const { name } = this.channel.security;
    const isPlain = name === 'plain';
    const text = isPlain ? errorText(payload) : unverifiedText(payload);
    if (isPlain && payload.code === 'BACKEND_ERROR') return this.#receiveAgentError(payload);
    if (this.#sending.receiveRefusal(payload, text)) return;
    // The banner says it already; a message that met nobody is told apart by its `ref`.
    if (name === 'refused' || payload.code === 'PEER_OFFLINE') return;
    if (isPlain) this.#receiveAgentError(payload);
    else this.#notes.add(text, true);
  }

  // What did not arrive is in what the agent remembers.
  #receiveMissed(count) {
    this.#notes.addMissed(count, this.channel.resumes);
    if (!this.pairing.a) return;
    this.#elsewhere.miss();
    this.refresh();
  }

  // ---- The agent's name ----

  // Asked for once with each agreement on keys.
  async #askName() {
    const id = newId();
    const asked = { id, security: this.channel.security, isHeld: this.channel.resumes };
    this.#nameAsked = asked;
    if (!(await this.channel.send('agent.list', {}, id)) && this.#nameAsked === asked) this.#nameAsked = null;
  }

  #receiveName({ agents, ref }) {
    if (!this.#nameAsked || (ref !== undefined && ref !== this.#nameAsked.id)) return;
    this.#nameAsked.isHeld = false;
    this.#showName(Array.isArray(agents) ? agents[0]?.name : '');
  }

  #showName(text) {
    const name = plainText(text, NAME_CHARACTERS_MAX);
    if (name === (this.pairing.name ?? '')) return;
    this.pairing.name = name;
    this.#page.save();
    this.#page.listed();
  }

  // ---- State ----

  refresh() {
    const { channel, pairing } = this;
    if (!channel) return;
    const { connection, agentOnline } = channel;
    this.#page.changed(this);
    if (connection.why === 'deviceRevoked') this.#removed?.(true);
    if (channel.security.name === 'unverified' && pairing.plainAllowed) {
      // An agent that encrypts has not to be believed when it says that it does not.
      pairing.plainAllowed = false;
      this.#page.save();
    }
    if (channel.security.name === 'verified' && !channel.resumes && this.#hasResumed) this.#resumedNoMore();
    const isOver = (connection.name === 'ended' && connection.why !== 'replaced') || channel.security.name === 'refused';
    if (pairing.before && isOver) {
      this.#fallBack();
      return;
    }
    if (connection.name !== 'open') this.#sending.recall();
    if (this.#hasResumed) this.#answers.pause(!channel.resumes);
    else if (!agentOnline) this.#answers.interrupt();
    clearTimeout(this.#countdown);
    if (connection.name === 'waiting') this.#countdown = setTimeout(() => this.refresh(), 1000);
    if (channel.ready && this.#nameAsked?.security !== channel.security && !this.#nameAsked?.isHeld) this.#askName();
    if (channel.ready) this.#elsewhere.ask();
    this.#sending.flush();
    this.#lift();
  }

  // What becomes of this browser at its agent when it forgets the pairing.
  get whatStays() {
    if (this.channel?.ready) return 'Your agent removes this browser from its devices.';
    return 'Your agent is not connected, so this browser stays among its devices. Remove it there, on another device or with “coralmux-agent devices”.';
  }
}

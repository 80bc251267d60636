// Notifications: whether this browser is woken when something waits for it at the relay. The relay, the browser and its
// push service have to agree on that; what the person wants, and what the relay was last told, is kept here.

import { toBase64url } from './crypto.js';
import { $ } from './dom.js';
import { within } from './patience.js';
import { errorText } from './words.js';

const WISH = 'coralmux.push';
const TAG = 'coralmux';
// A push service on the other side of the world is waited for no longer.
const SUBSCRIBE_MS = 30_000;
const WORKER_MS = 5_000;

const IOS =
  'On an iPhone or iPad this needs an app on the home screen: tap Share, then “Add to Home Screen”, and open it there. It starts unpaired: add it under “Devices” here, and paste the link there.';
const LACKING = 'This browser has no notifications for this page.';
const DENIED = 'This browser blocks notifications of this page. Allow them in its settings for this site.';
const NONE = 'This relay sends no notifications.';
const OFF = 'You can be told when your agent answers while nobody looks at this page.';
const ON = 'You are told when your agent answers while nobody looks at this page.';
const PRIVATE = 'A notification never says what was written, or by whom.';
const UNSUBSCRIBED = 'The push service of this browser does not answer. Try again later.';
const UNTOLD = 'The relay is told when it is connected.';

const isEqual = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Push {
  #handlers;
  // The connections on which this browser is a device, and the relay wakes devices: { id, push: { vapid, kinds, state },
  // ask(type, payload) }. The offer is another object with each connection.
  #devices = [];
  #known = new WeakSet();
  #isDevice = false;
  #hasAnswer = false;
  // What kept it from working, for the person.
  #trouble = '';
  #work = Promise.resolve();

  // handlers: announce(text)
  constructor(handlers) {
    this.#handlers = handlers;
    $('notify-switch').onclick = () => (this.#stored.on ? this.turnOff() : this.#turnOn());
    $('offer-yes').onclick = () => this.#turnOn();
    $('offer-no').onclick = () => {
      this.#store({ declined: true });
      this.#draw();
    };
  }

  // What the relay offers; it is the same for all devices.
  get #offer() {
    return this.#devices[0]?.push ?? null;
  }

  get #stored() {
    try {
      return JSON.parse(localStorage.getItem(WISH)) ?? {};
    } catch {
      return {};
    }
  }

  #store(change) {
    try {
      localStorage.setItem(WISH, JSON.stringify({ ...this.#stored, ...change }));
    } catch {}
  }

  get #lacks() {
    // Safari says so on iPhones and iPads alone, and has push in apps on the home screen only.
    if (navigator.standalone === false) return IOS;
    if (!navigator.serviceWorker || !globalThis.PushManager || !globalThis.Notification) return LACKING;
    return Notification.permission === 'denied' ? DENIED : '';
  }

  // devices: see above; isDevice: whether this browser is a device of the agent whose chat is shown.
  handleState(devices, isDevice) {
    this.#isDevice = isDevice;
    this.#devices = devices;
    const isNew = devices.some(({ push }) => !this.#known.has(push));
    for (const { push } of devices) this.#known.add(push);
    if (isNew) this.#agree();
    this.#draw();
  }

  // An answer has come: now somebody knows what notifications are for.
  handleAnswer() {
    if (this.#hasAnswer) return;
    this.#hasAnswer = true;
    this.#draw();
  }

  // Nothing stays of what was told for a device, and nothing at all with the last pairing.
  async forget(device, isLast) {
    this.#tellNoMore(device);
    if (!isLast) return;
    this.#hasAnswer = false;
    this.#trouble = '';
    try {
      localStorage.removeItem(WISH);
    } catch {}
    await within(unsubscribe(), WORKER_MS).catch(() => {});
  }

  // What the relay was last told: device to that. Earlier pages kept it of one device.
  get #told() {
    const { told } = this.#stored;
    return told?.device ? { [told.device]: told } : told ?? {};
  }

  #tellNoMore(device) {
    const { [device]: _gone, ...told } = this.#told;
    this.#store({ told });
  }

  // On a tap: browsers ask then only.
  async #turnOn() {
    if (this.#lacks) return;
    this.#trouble = '';
    $('notify-switch').disabled = $('offer-yes').disabled = true;
    const permission = await Notification.requestPermission().catch(() => 'default');
    if (permission === 'granted') {
      this.#store({ on: true, declined: true });
      await this.#agree();
      if (!this.#trouble) this.#handlers.announce('Notifications are on');
    }
    $('notify-switch').disabled = $('offer-yes').disabled = false;
    this.#draw();
  }

  async turnOff() {
    this.#store({ on: false });
    this.#trouble = '';
    await this.#agree();
    this.#handlers.announce('Notifications are off');
    this.#draw();
  }

  // Brings relay, browser and push service to what the person wants, one step after the other.
  #agree() {
    this.#work = this.#work.then(() => this.#settle()).catch((error) => {
      console.warn('no notifications:', error);
      this.#trouble = UNSUBSCRIBED;
    });
    return this.#work.then(() => this.#draw());
  }

  async #settle() {
    const devices = this.#devices;
    const isOn = Boolean(this.#stored.on) && !this.#lacks;
    if (!isOn) {
      await within(unsubscribe(), WORKER_MS).catch(() => {});
      for (const device of devices) {
        const { id, push } = device;
        if ((this.#told[id] || push.state === 'ok') && (await this.#tell(device, { kind: null }))) this.#tellNoMore(id);
      }
      return;
    }
    if (!this.#hasKey) return;
    // Of a subscription that is gone the browser may know nothing.
    const isGone = devices.some(({ id, push }) => push.state === 'gone' && this.#told[id]);
    const subscription = await subscribe(this.#offer.vapid, isGone);
    const { endpoint, keys } = subscription.toJSON();
    for (const device of devices) {
      const { id, push } = device;
      const wanted = { kind: 'webpush', endpoint, p256dh: keys.p256dh, auth: keys.auth, origin: location.origin };
      const known = { device: id, ...wanted };
      if (isEqual(this.#told[id], known) && push.state === 'ok') continue;
      if (await this.#tell(device, wanted)) this.#store({ told: { ...this.#told, [id]: known } });
    }
  }

  get #hasKey() {
    return typeof this.#offer?.vapid === 'string' && this.#offer.kinds?.includes('webpush');
  }

  // Resolves to whether the relay has it.
  async #tell(device, payload) {
    const answer = await device.ask('relay.push', payload);
    if (answer?.type === 'relay.ok') {
      this.#trouble = '';
      return true;
    }
    if (answer) this.#trouble = `The relay says (not verified): ${errorText(answer.payload)}`;
    return false;
  }

  // ---- What is shown ----

  #draw() {
    const { on, declined } = this.#stored;
    const isTold = Object.keys(this.#told).length > 0;
    const lacks = this.#lacks;
    const isOffered = !lacks && (this.#hasKey || (on && !this.#offer));
    $('notify').hidden = !this.#isDevice;
    $('notify-switch').hidden = !isOffered && !on;
    $('notify-switch').textContent = on ? 'Turn notifications off' : 'Turn notifications on';
    const refused = on && this.#offer?.state === 'refused' ? 'The relay says (not verified) that the push service refuses it.' : '';
    const state = on && !isTold && !this.#trouble ? `${ON} ${UNTOLD}` : on ? ON : OFF;
    $('notify-text').textContent = lacks || (!isOffered && NONE) || `${this.#trouble || refused || state} ${PRIVATE}`;
    const mayAsk = this.#isDevice && this.#hasAnswer && this.#hasKey && !on && !declined;
    $('offer').hidden = !(mayAsk && (!lacks || lacks === IOS));
    $('offer-text').textContent = lacks === IOS ? `${OFF} ${IOS}` : `${OFF} ${PRIVATE}`;
    $('offer-yes').hidden = Boolean(lacks);
    $('offer-no').textContent = lacks ? 'Understood' : 'Not now';
  }

  // Somebody looks at the page: what the notifications said has been seen.
  async seen() {
    const worker = await navigator.serviceWorker?.getRegistration();
    for (const shown of (await worker?.getNotifications?.({ tag: TAG })) ?? []) shown.close();
  }
}

async function subscribe(vapid, isAnew) {
  const worker = await within(navigator.serviceWorker.ready, WORKER_MS);
  const old = await worker.pushManager.getSubscription();
  const isOurs = old && toBase64url(new Uint8Array(old.options.applicationServerKey)) === vapid;
  if (old && isOurs && !isAnew) return old;
  await old?.unsubscribe();
  return within(worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: vapid }), SUBSCRIBE_MS);
}

async function unsubscribe() {
  const worker = await navigator.serviceWorker?.getRegistration();
  await (await worker?.pushManager?.getSubscription())?.unsubscribe();
}

// Keeps the page for when the network is away or slow. The files of one version are kept together, when a new worker comes,
// so that a page is never made of two.

// Becomes a hash of all files: another page has another worker.
const CACHE = 'phone-VERSION_OF_THE_PAGE';
// `build/served.rs` puts a hash into the names of what the page loads when it starts.
const START = ['phone/style.css', 'phone/app.js', 'phone/markdown-it.js'];
const FILES = ['./', ...START, 'phone/manifest.webmanifest', 'phone/icon.svg', 'phone/icon-192.png', 'phone/later.js', 'phone/qr.js'];

// The page itself is waited for no longer than this where one is kept: a newer one is shown the next time then.
const NETWORK_MS = 400;
// The cache has to answer within this.
const CACHE_MS = 1_000;

self.addEventListener('install', (event) => event.waitUntil(keep().then(() => self.skipWaiting())));
self.addEventListener('activate', (event) => event.waitUntil(clean().then(() => self.clients.claim())));

self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET') return;
  const address = new URL(request.url);
  address.search = '';
  const page = new URL('./', self.location).href;
  if (address.href === page) event.respondWith(newest(request, page));
  else if (address.href.startsWith(`${page}phone/`)) event.respondWith(kept(address.href).then((found) => found ?? fetch(request)));
});

// A push says that something waits. It is the same each time, and what comes in it is not looked at: whoever sends it cannot
// make it say anything else. Browsers take the right to it away where nothing is shown, so that it is, whatever else is.
const TITLE = 'CoralMux';
const NOTIFICATION = { body: 'Your agent has answered', tag: 'coralmux', renotify: true, icon: 'phone/icon-192.png' };

self.addEventListener('push', (event) => event.waitUntil(notify()));
self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(open());
});

async function notify() {
  // How much waits is known when it has been fetched.
  navigator.setAppBadge?.().catch(() => {});
  await self.registration.showNotification(TITLE, NOTIFICATION);
}

// The conversation: the window that has it, or a new one.
async function open() {
  const page = new URL('./', self.location).href;
  const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const shown = windows.find(({ url }) => url.replace(/[?#].*/, '') === page);
  const focused = await shown?.focus().catch(() => null);
  if (!focused) await self.clients.openWindow(page);
}

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES);
  const page = await (await cache.match('./')).text();
  // The relay may have been upgraded meanwhile: the next try gets the new worker.
  if (!START.every((file) => page.includes(file))) throw new Error('the page is not of this version');
}

// A page of the version before may still be loading: its files stay until there is another version.
async function clean() {
  const others = (await caches.keys()).filter((name) => name !== CACHE);
  await Promise.all(others.slice(0, -1).map((name) => caches.delete(name)));
}

async function newest(request, page) {
  const old = await kept(page);
  const fresh = fetch(request);
  if (!old) return fresh;
  const late = new Promise((resolve) => setTimeout(resolve, NETWORK_MS, old));
  return Promise.race([fresh.then((answer) => (answer.status < 400 ? answer : old)), late]).catch(() => old);
}

// Undefined where nothing is kept, or the cache fails or does not answer.
function kept(address) {
  const found = caches.open(CACHE).then(async (cache) => (await cache.match(address)) ?? caches.match(address));
  return Promise.race([found.catch(() => {}), new Promise((resolve) => setTimeout(resolve, CACHE_MS))]);
}

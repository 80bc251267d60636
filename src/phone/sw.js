// Keeps the page for when the network is away: from the relay first, from the cache where it does not answer. The page
// then shows the conversation, and says that there is no connection.

const CACHE = 'phone';
const FILES = [
  '/',
  '/phone/style.css',
  '/phone/manifest.webmanifest',
  '/phone/icon.svg',
  '/phone/icon-192.png',
  '/phone/answers.js',
  '/phone/app.js',
  '/phone/channel.js',
  '/phone/e2e.js',
  '/phone/history.js',
  '/phone/images.js',
  '/phone/link.js',
  '/phone/markdown.js',
  '/phone/messages.js',
  '/phone/relay.js',
  '/phone/scan.js',
  '/phone/words.js',
];

self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== 'GET' || origin !== self.location.origin || !FILES.includes(pathname)) return;
  event.respondWith(answer(request, pathname));
});

async function answer(request, pathname) {
  const cache = await caches.open(CACHE);
  try {
    const fresh = await fetch(request);
    if (!fresh.ok) throw new Error(`status ${fresh.status}`);
    await cache.put(pathname, fresh.clone());
    return fresh;
  } catch (error) {
    const kept = await cache.match(pathname);
    if (kept) return kept;
    throw error;
  }
}

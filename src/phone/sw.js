// Keeps the page for when the network is away: from the relay first, from the cache where it does not answer, or not
// soon. The page then shows the conversation, and says that there is no connection.

const CACHE = 'phone';
const FILES = [
  './',
  'phone/style.css',
  'phone/manifest.webmanifest',
  'phone/icon.svg',
  'phone/icon-192.png',
  'phone/app.js',
  'phone/markdown-it.js',
  'phone/qr.js',
];

// A file that is kept is waited for no longer than this, and for some time after that none is.
const NETWORK_MS = 2_500;
const SLOW_MS = 10_000;
// The cache itself has to answer within this.
const CACHE_MS = 1_000;

let slowUntil = 0;

self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const address = new URL(request.url);
  address.search = '';
  const isOurs = FILES.some((file) => new URL(file, self.location).href === address.href);
  if (request.method === 'GET' && isOurs) event.respondWith(answer(request, address.href));
});

async function answer(request, address) {
  const kept = await within(caches.open(CACHE).then((cache) => cache.match(address)));
  if (kept && Date.now() < slowUntil) return kept;
  const signal = kept && AbortSignal.timeout(NETWORK_MS);
  try {
    const fresh = await fetch(request, { signal });
    if (!fresh.ok) throw new Error(`status ${fresh.status}`);
    const body = await fresh.blob();
    const { status, headers } = fresh;
    const copy = () => new Response(body, { status, headers });
    await within(caches.open(CACHE).then((cache) => cache.put(address, copy())));
    return copy();
  } catch (error) {
    if (signal?.aborted) slowUntil = Date.now() + SLOW_MS;
    if (kept) return kept;
    throw error;
  }
}

// Undefined where the cache fails, or does not answer.
function within(promise) {
  return Promise.race([promise.catch(() => {}), new Promise((resolve) => setTimeout(resolve, CACHE_MS))]);
}

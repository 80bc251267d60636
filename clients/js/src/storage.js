// Storage for browsers, in which private keys never leave the engine.

const STORE = 'state';

export function indexedDbStorage(name = 'coralmux') {
  let opened;
  const open = () =>
    (opened ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    }));
  const work = async (mode, act) => {
    const transaction = (await open()).transaction(STORE, mode, { durability: 'strict' });
    const request = act(transaction.objectStore(STORE));
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  };
  return {
    clones: true,
    load: async () => (await work('readonly', (store) => store.get(STORE))) ?? null,
    save: async (state) => void (await work('readwrite', (store) => store.put(state, STORE))),
  };
}

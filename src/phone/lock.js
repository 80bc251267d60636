// One page of this browser has the device's keys in use at a time. Where another one has them and does not let go (a browser
// may have frozen it), they are taken from it: it finds that out before it sends.

const LOCK = 'coralmux-device';
// A page that is asked to lets go at once.
const WAIT_MS = 1_500;

// Resolves, when this page has the lock, to what lets go of it. `lost()`: another page has taken it.
export function takeLock(lost) {
  return new Promise((resolve) => {
    let isHeld = false;
    let release;
    const over = new Promise((done) => (release = done));
    const hold = () => {
      isHeld = true;
      resolve(release);
      return over;
    };
    const steal = () => navigator.locks.request(LOCK, { steal: true }, hold).catch(lost);
    navigator.locks.request(LOCK, { signal: AbortSignal.timeout(WAIT_MS) }, hold).catch(() => (isHeld ? lost() : steal()));
  });
}

// Bounds for what a browser may never answer: storage, camera, clipboard, a picture to be read.

export class Late extends Error {}

// As `promise`, but rejects when it has not come after `ms`.
export function within(promise, ms) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Late(`no answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

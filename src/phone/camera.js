// A pairing link, seen by the camera as a QR code.

import { $ } from './dom.js';
import { readLink } from './link.js';
import { within } from './patience.js';

const CAMERA_MS = 5_000;
const LOOK_EVERY_MS = 200;
const DETECT_MS = 3_000;

// Shows the camera in `video` until `accept(text)` says yes to a code, or `signal` is aborted.
async function scan(video, accept, signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  try {
    // The dialog may have been closed while the browser asked.
    if (signal.aborted) return;
    video.srcObject = stream;
    await video.play();
    const detector = new BarcodeDetector({ formats: ['qr_code'] });
    while (!signal.aborted) {
      const codes = await within(detector.detect(video), DETECT_MS).catch(() => []);
      if (codes.some(({ rawValue }) => accept(rawValue))) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

// Resolves to the link that the camera saw, or null.
export async function scanCode() {
  const dialog = $('camera');
  const abort = new AbortController();
  dialog.addEventListener('close', () => abort.abort(), { once: true });
  dialog.showModal();
  const waits = setTimeout(() => {
    if (!$('video').videoWidth) $('camera-note').textContent = 'The camera does not answer. Allow it for this page, or close this and paste the link.';
  }, CAMERA_MS);
  let text = null;
  const accept = (found) => {
    try {
      readLink(found, location.href);
    } catch (error) {
      $('camera-note').textContent = error.message;
      return false;
    }
    text = found;
    return true;
  };
  try {
    await scan($('video'), accept, abort.signal);
    dialog.close();
  } catch {
    $('camera-note').textContent = 'The camera cannot be used. Allow it for this page, or paste the link.';
  } finally {
    clearTimeout(waits);
  }
  return text;
}

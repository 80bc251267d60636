// Reads a pairing link from a QR code through the camera, in browsers that can (BarcodeDetector).

import { within } from './patience.js';

const LOOK_EVERY_MS = 200;
const LOOK_MS = 3_000;

export async function canScan() {
  if (!('BarcodeDetector' in globalThis) || !navigator.mediaDevices) return false;
  const formats = await within(BarcodeDetector.getSupportedFormats(), LOOK_MS).catch(() => []);
  return formats.includes('qr_code');
}

// Shows the camera in `video` until `accept(text)` says yes to a code, or `signal` is aborted.
export async function scan(video, accept, signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  try {
    // The dialog may have been closed while the browser asked.
    if (signal.aborted) return;
    video.srcObject = stream;
    await video.play();
    const detector = new BarcodeDetector({ formats: ['qr_code'] });
    while (!signal.aborted) {
      const codes = await within(detector.detect(video), LOOK_MS).catch(() => []);
      if (codes.some(({ rawValue }) => accept(rawValue))) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

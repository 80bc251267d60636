// Reads a pairing link from a QR code through the camera, in browsers that can (BarcodeDetector).

const LOOK_EVERY_MS = 200;

export async function canScan() {
  if (!('BarcodeDetector' in globalThis) || !navigator.mediaDevices) return false;
  const formats = await BarcodeDetector.getSupportedFormats().catch(() => []);
  return formats.includes('qr_code');
}

// Shows the camera in `video` until `accept(text)` says yes to a code, or `signal` is aborted.
export async function scan(video, accept, signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  try {
    video.srcObject = stream;
    await video.play();
    const detector = new BarcodeDetector({ formats: ['qr_code'] });
    while (!signal.aborted) {
      const codes = await detector.detect(video).catch(() => []);
      if (codes.some(({ rawValue }) => accept(rawValue))) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

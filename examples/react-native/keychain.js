// The phone's state in Android's Keystore or iOS's Keychain: it holds keys. It stays on this device, and can be read while the
// screen is locked, so that a message that comes then is taken.
import * as Keychain from 'react-native-keychain';

const OPTIONS = { service: 'coralmux', accessible: Keychain.ACCESSIBLE.AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY };

export const keychain = {
  load: async () => (await Keychain.getGenericPassword(OPTIONS))?.password ?? null,
  save: async (text) => {
    if (!(await Keychain.setGenericPassword('state', text, OPTIONS))) throw new Error('the keychain did not keep it');
  },
};

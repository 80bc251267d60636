// What the page can do without until it is connected: a file of its own, loaded when there is a connection, or when it is
// asked for.

import { Agents } from './agents.js';
import { scanCode } from './camera.js';
import { Devices } from './devices.js';
import { Attached } from './images.js';
import { Push } from './push.js';

export { Agents, Attached, Devices, Push, scanCode };

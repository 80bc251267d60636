// What the page can do without until it is connected: a file of its own, loaded when there is a connection, or when it is
// asked for.

import { showAbout } from './about.js';
import { Actions } from './actions.js';
import { Agents } from './agents.js';
import { scanCode } from './camera.js';
import { Devices } from './devices.js';
import { Attached } from './images.js';
import { drawMore } from './more.js';
import { Push } from './push.js';
import { Search, exportChat } from './search.js';

export { Actions, Agents, Attached, Devices, Push, Search, drawMore, exportChat, scanCode, showAbout };

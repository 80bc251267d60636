import { WebSocket } from 'undici';
import { suite } from './suite.mjs';

suite('index.js', WebSocket);

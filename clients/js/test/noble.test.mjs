import { WebSocket } from 'ws';
import { suite } from './suite.mjs';

suite('noble.js', WebSocket);

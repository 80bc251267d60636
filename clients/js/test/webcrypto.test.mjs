import { WebSocket } from 'ws';
import { suite } from './suite.mjs';

suite('index.js', WebSocket);

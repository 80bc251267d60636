import { suite } from './suite.mjs';

suite('index.js');

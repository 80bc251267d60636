import { suite } from './suite.mjs';

suite('noble.js');

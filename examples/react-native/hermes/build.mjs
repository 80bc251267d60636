// Makes build/vectors.js of vectors.js, for the Hermes VM: one script, in the language that it knows. `node build.mjs CHECKOUT`
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import babel from '@babel/core';
import { build } from 'esbuild';

const checkout = process.argv[2];
const app = new URL('..', import.meta.url).pathname;
const vectors = Object.fromEntries(['v1', 'v2', 'v3'].map((name) => [name, JSON.parse(readFileSync(join(checkout, `clients/vectors/e2e_${name}.json`), 'utf8'))]));
const { outputFiles } = await build({
  entryPoints: [join(checkout, 'examples/react-native/hermes/vectors.js')],
  bundle: true,
  write: false,
  format: 'iife',
  nodePaths: [join(app, 'node_modules')],
  define: { VECTORS: JSON.stringify(vectors) },
});
const kept = ['transform-regenerator', 'transform-async-to-generator', 'transform-typeof-symbol', 'transform-exponentiation-operator'];
const preset = [createRequire(import.meta.url).resolve('@babel/preset-env'), { targets: { ie: 11 }, exclude: kept }];
const { code } = babel.transformSync(outputFiles[0].text, { configFile: false, babelrc: false, compact: false, presets: [preset] });
mkdirSync(join(app, 'build'), { recursive: true });
writeFileSync(join(app, 'build/vectors.js'), code);

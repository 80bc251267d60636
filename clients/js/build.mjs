// Makes dist/ of src/ and the page's modules: two entries that share one file, so that what one puts in the other has.
import { copyFileSync, cpSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

rmSync(here('dist'), { recursive: true, force: true });
await build({
  entryPoints: [here('src/index.js'), here('src/noble.js')],
  outdir: here('dist'),
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  external: ['@noble/*'],
  chunkNames: 'shared-[hash]',
  legalComments: 'none',
  logLevel: 'warning',
});
cpSync(here('types'), here('dist'), { recursive: true });
copyFileSync(here('../../LICENSE'), here('LICENSE'));
